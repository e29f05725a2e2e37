"""The studio's server: pages, pictures and sockets behind the guard."""

from __future__ import annotations

import secrets
import warnings
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from nicegui import ui
from starlette.types import ASGIApp

from zeuxis.errors import UserError, shortened
from zeuxis.files import make_folder
from zeuxis.listening import address_of, listen, require_secret
from zeuxis.progress import say
from zeuxis.serving import misfit
from zeuxis.studio import frames, routes
from zeuxis.studio.guard import Guard, names_of
from zeuxis.studio.pages import register
from zeuxis.studio.state import Studio

__all__ = ["build", "serve"]

STATIC = Path(__file__).parent / "static"


def build(studio: Studio, *, token: str, host: str, port: int) -> ASGIApp:
    """Returns the whole application."""
    app = FastAPI(title="Zeuxis studio", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(UserError)
    async def explained(request: Request, error: UserError) -> Response:
        return JSONResponse({"error": shortened(str(error))}, status_code=400)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"error": shortened(misfit(error))}, status_code=422)

    routes.register(app, studio)
    frames.register(app, studio)
    app.mount("/studio", StaticFiles(directory=STATIC))
    register(studio)
    ui.run_with(
        app, title="Zeuxis", favicon=STATIC / "icon.svg", dark=None, tailwind=False, show_welcome_message=False,
        reconnect_timeout=30.0, binding_refresh_interval=None,
    )  # fmt: skip
    return Guard(app, token, names_of(host, port), port)


def serve(
    runs: Path,
    *,
    images: Sequence[Path] = (),
    host: str = "127.0.0.1",
    port: int = 8890,
    token: str = "",
    browser: bool = True,
) -> None:
    """Serves the studio until it is interrupted.

    Args:
        runs: the folder of runs.
        images: folders that images may be read from, besides the data directory.
        host: the address to listen on.
        port: the port; 0 for any that is free.
        token: the secret that the address holds; random if empty.
        browser: whether to open a browser.

    Raises:
        UserError: for an address beyond this machine without a token of the user's, or one that cannot be used.
    """
    beyond = require_secret(host, token, "the studio", "ZEUXIS_STUDIO_TOKEN")
    if beyond:
        say(
            f"Warning: everybody who reaches {host} and has the token can use this machine as you can in the studio: "
            "train, delete runs, read images. What is sent is not encrypted."
        )
    make_folder(runs)
    listening = listen(host, port, "The studio")
    port = listening.getsockname()[1]
    token = token or secrets.token_urlsafe(24)
    app = build(Studio(runs, images), token=token, host=host, port=port)
    place = f"{address_of(host, listening)}/?token={token}"
    say(f"The studio of {runs} is at\n\n    {place}\n\nCtrl-C ends it; trainings go on.")
    if browser:
        webbrowser.open(place)
    # NiceGUI looks through all objects for its server, and PyTorch warns of one that it looks at.
    warnings.filterwarnings("ignore", category=FutureWarning, module="nicegui")
    # On one machine there is nothing to gain by compressing pictures, and time to lose.
    config = uvicorn.Config(
        app, log_level="error", ws_max_size=16 * 2**20, ws_per_message_deflate=False, timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run(sockets=[listening])
