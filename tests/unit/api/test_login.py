"""The routes accept the logins of the host: that of its API, and that of its page."""

from __future__ import annotations

from base64 import b64encode

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.testclient import TestClient

from tests.sample_hosts import MakeHost
from vae_lab.api.routes import add_routes

API, PAGE = {"me": "secret"}, {"you": "other"}
GOOD, BAD = ("me", "secret"), ("me", "wrong")


class GradioDouble(FastAPI):
    """Gradio's app, as far as the WebUI's login goes."""

    def __init__(self, auth: dict[str, str] | None) -> None:
        super().__init__()
        self.auth = auth
        self.tokens = {"cookie-of-you": "you"}

        @self.get("/user")
        def get_current_user(request: Request) -> str | None:
            return self.tokens.get(request.cookies.get("access-token", ""))

        @self.get("/login_check")
        def login_check(user: str | None = Depends(get_current_user)) -> None:
            if self.auth is not None and user is None:
                raise HTTPException(401, "Not authenticated")


def status(client: TestClient, login: tuple[str, str] | None, cookie: str) -> set[int]:
    headers = {"Cookie": f"access-token={cookie}"} if cookie else {}
    if login:
        headers["Authorization"] = f"Basic {b64encode(':'.join(login).encode()).decode()}"
    urls = ("/vae-lab/v1/latents", "/vae-lab/v1/progress", "/vae-lab/v1/images/x/0.png")
    answers = [client.get(url, headers=headers) for url in urls]
    answers += [client.post("/vae-lab/v1/cancel", headers=headers)]
    for answer in answers:
        if answer.status_code == 401:
            assert isinstance(answer.json()["detail"], str)
    return {401 if answer.status_code == 401 else 200 for answer in answers}


@pytest.mark.parametrize(
    ("api", "page", "accepted"),
    [
        (None, None, {"nobody", "api", "page", "wrong"}),
        (API, None, {"api"}),
        (None, PAGE, {"page"}),
        (API, PAGE, {"api", "page"}),
    ],
)
def test_the_host_decides_which_login_counts(
    make_host: MakeHost, api: dict[str, str] | None, page: dict[str, str] | None, accepted: set[str]
) -> None:
    app = GradioDouble(page)
    add_routes(app, make_host(), api)
    client = TestClient(app)
    callers = {
        "nobody": (None, ""),
        "api": (GOOD, ""),
        "page": (None, "cookie-of-you"),
        "wrong": (BAD, "cookie-of-nobody"),
    }
    answers = {name: status(client, *caller) for name, caller in callers.items()}
    assert answers == {name: {200 if name in accepted else 401} for name in callers}


def test_clients_learn_that_the_api_login_counts(make_host: MakeHost) -> None:
    app = GradioDouble(PAGE)
    add_routes(app, make_host(), API)
    assert TestClient(app).get("/vae-lab/v1/latents").headers["www-authenticate"] == "Basic"
