"""The host's logins: that of its page, which is gradio's, and that of its API."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from starlette.requests import Request

__all__ = ["has_page_login", "login_of"]

_BASIC = HTTPBasic(auto_error=False)


def has_page_login(app: FastAPI) -> bool:
    """Whether the page of ``app`` requires a login."""
    return any(getattr(app, name, None) is not None for name in ("auth", "auth_dependency"))


def login_of(app: FastAPI, users: Mapping[str, str]) -> Callable[..., None]:
    """A dependency that accepts what the host accepts, and answers 401 to everything else.

    Args:
        app: the host's.
        users: name -> password, of the host's API.
    """

    def page_login(request: Request) -> None:
        if has_page_login(app) and _page_user(app, request) is None:
            raise HTTPException(401, "Not authenticated")

    def any_login(request: Request, credentials: HTTPBasicCredentials | None = Depends(_BASIC)) -> None:  # noqa: B008
        if credentials is not None and _is_user(credentials, users):
            return
        if not has_page_login(app) or _page_user(app, request) is None:
            line = "Not authenticated" if credentials is None else "wrong user or password"
            raise HTTPException(401, line, headers={"WWW-Authenticate": "Basic"})

    return any_login if users else page_login


def _page_user(app: FastAPI, request: Request) -> Any:
    """Who is logged in at the page, by gradio's own function. It exports none, but both versions have the route."""
    routes = (route for route in app.routes if isinstance(route, APIRoute) and route.path == "/user")
    return next((route.endpoint(request) for route in routes), None)


def _is_user(credentials: HTTPBasicCredentials, users: Mapping[str, str]) -> bool:
    expected = users.get(credentials.username)
    given = credentials.password.encode()
    return expected is not None and secrets.compare_digest(given, expected.encode())
