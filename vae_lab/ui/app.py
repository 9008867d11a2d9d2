"""VAE Lab as a stand-alone app, without a WebUI."""

from __future__ import annotations

import io
import logging
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field

import gradio as gr
from fastapi import FastAPI
from starlette.middleware import Middleware

from vae_lab.api.access import Access
from vae_lab.api.compression import Compression
from vae_lab.api.routes import add_routes
from vae_lab.api.uploads import use_private_folder
from vae_lab.errors import HostError
from vae_lab.host.base import Host
from vae_lab.service.service import Service, service_of
from vae_lab.ui.assets import add_scripts, script_url, style_sheet
from vae_lab.ui.compat import page
from vae_lab.ui.tab import build_tab

__all__ = ["Running", "launch", "serve"]

_HERE_ONLY = "127.0.0.1"
_EVERYWHERE = "0.0.0.0"  # noqa: S104  only if the user asks for it, and then with a token
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """A page that is being served.

    Attributes:
        url: its URL on this machine, with a trailing slash.
        url_elsewhere: its URL on other machines, with the token; "" if it is served to this machine only.
        app: the FastAPI app behind it.
    """

    url: str
    url_elsewhere: str
    app: FastAPI
    _blocks: gr.Blocks
    _service: Service
    _closed: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Wait until the page is closed."""
        self._closed.wait()

    def close(self) -> None:
        """Stop the server and the current run."""
        self._service.runs.cancel()
        self._service.hashes.cancel()
        self._blocks.close(verbose=False)
        self._closed.set()


def launch(host: Host, port: int = 0, *, listen: bool = False) -> Running:
    """Serve the tab of ``host`` as a page until it is closed.

    Args:
        host: what the page works on.
        port: TCP port; 0 takes a free one.
        listen: serve it to other machines too, which need a token; otherwise to this machine only.

    Raises:
        HostError: the port is in use or not allowed.
    """
    use_private_folder()
    blocks = build_tab(host, page("VAE Lab", style_sheet(), f"{script_url()}&alone"))
    address, token = (_EVERYWHERE, secrets.token_urlsafe(24)) if listen else (_HERE_ONLY, "")
    for tries_left in range(0 if port else 2, -1, -1):
        free = _free_port(address, port)
        # From the first request on, so not added later.
        middleware = [Middleware(Compression), Middleware(Access, token=token, cookie=f"vae_lab_{free}")]
        try:
            # Gradio 3 prints the URL even with quiet=True.
            with redirect_stdout(io.StringIO()):
                app, url, _ = blocks.launch(
                    server_name=address, server_port=free, prevent_thread_lock=True, share=False, quiet=True,
                    show_api=False, inbrowser=False, show_error=True, app_kwargs={"middleware": middleware},
                )  # fmt: skip
            break
        except OSError as error:  # another program took the port in the meantime
            if not tries_left:
                raise HostError(f"port {free} cannot be used: {error}") from error
    _close_to_other_sites(app)
    add_scripts(app)
    add_routes(app, host)
    _log.info("serving %s at %s", host.name, url)
    elsewhere = f"http://{socket.gethostname()}:{free}/?token={token}" if listen else ""
    return Running(url, elsewhere, app, blocks, service_of(host))


def serve(
    host: Host,
    *,
    port: int = 0,
    listen: bool = False,
    open_browser: bool = True,
    announce: Callable[[str], None] | None = None,
) -> None:
    """As :func:`launch`, but returns only when the user stops it with Ctrl+C.

    Args:
        host: what the page works on.
        port: TCP port; 0 takes a free one.
        listen: see :func:`launch`.
        open_browser: open the page in the user's browser.
        announce: called with each URL once the page is served.

    Raises:
        HostError: the port is in use or not allowed.
    """
    running = launch(host, port, listen=listen)
    try:
        for url in filter(None, (running.url, running.url_elsewhere)) if announce else ():
            announce(url)
        if open_browser:
            webbrowser.open(running.url)
        running.wait()
    except KeyboardInterrupt:
        _log.info("stopped by the user")
    finally:
        running.close()


def _free_port(address: str, port: int) -> int:
    """Checked first, because gradio does not report which port it chose for 0, nor clearly that a port is in use."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise HostError(f"port {port} cannot be used ({error}); choose another, or 0 for a free one") from None
        return probe.getsockname()[1]


def _close_to_other_sites(app: FastAPI) -> None:
    """Gradio allows other web sites to call a page served on this machine; like the WebUI, we forbid it."""
    app.user_middleware = [entry for entry in app.user_middleware if not entry.cls.__name__.endswith("CORSMiddleware")]
    app.middleware_stack = app.build_middleware_stack()
