"""The command that opens the studio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeuxis.cli.shared import Runs, app
from zeuxis.errors import UserError


@app.command()
def studio(
    runs: Runs = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="images may be read from here too, besides the data directory"),
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on; beyond this machine it needs --token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: any that is free")] = 8890,
    token: Annotated[
        str, typer.Option(envvar="ZEUXIS_STUDIO_TOKEN", help="secret that opens the studio [default: a random one]")
    ] = "",
    browser: Annotated[bool, typer.Option(help="open a browser")] = True,
) -> None:
    """Look at runs, train, explore and judge them in a browser."""
    from zeuxis import runs_dir

    for folder in images or ():
        if not folder.is_dir():
            raise UserError(f"--images {folder} is not a folder.")
    try:
        from zeuxis.studio.server import serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("zeuxis", ""):
            raise
        raise UserError("The studio needs NiceGUI: pip install 'zeuxis[studio]'.") from error
    serve(runs_dir(runs), images=images or (), host=host, port=port, token=token, browser=browser)
