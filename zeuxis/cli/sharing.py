"""Commands that take a model out of Zeuxis."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from zeuxis.cli.shared import Out, Plugins, RunName, Runs, SamplingOptions, Trusted, app, echo, open_run
from zeuxis.errors import UserError


class Axes(StrEnum):
    """The order of an image's axes."""

    nhwc = "nhwc"
    nchw = "nchw"


@app.command()
def export(
    run: RunName,
    to: Annotated[str, typer.Option(metavar="FORMAT", help="onnx, web (a page), hub, torch or safetensors")] = "onnx",
    layout: Annotated[Axes, typer.Option(help="order of an image's axes: channels last, or first")] = Axes.nhwc,
    settings: SamplingOptions = None,
    out: Out = None,
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Write a run's model in a format that other programs read."""
    from zeuxis.export import export as write_export
    from zeuxis.export import export_folder

    opened = open_run(run, runs, trust, settings)
    folder = out or export_folder(opened, to)
    lines = write_export(opened, to, folder, layout=layout.value)
    echo("\n".join([*lines, str(folder)]))


@app.command()
def serve(
    run: RunName,
    host: Annotated[str, typer.Option(help="address to listen on; beyond this machine it needs --token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: any that is free")] = 8891,
    token: Annotated[
        str, typer.Option(envvar="ZEUXIS_SERVE_TOKEN", help="secret that requests carry [default: a random one]")
    ] = "",
    settings: SamplingOptions = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Serve a run to other programs: an HTTP server with samples, latents and images."""
    opened = open_run(run, runs, trust, settings)
    try:
        from zeuxis.serving import serve as serve_run
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("zeuxis", ""):
            raise
        raise UserError("The server needs FastAPI: pip install 'zeuxis[serve]'.") from error
    serve_run(opened, host=host, port=port, token=token)


HubName = Annotated[str, typer.Argument(metavar="USER/NAME", help="name on the Hugging Face hub")]


@app.command()
def push(
    run: RunName,
    name: HubName,
    public: Annotated[bool, typer.Option("--public", help="show a new page to everybody, not to you alone")] = False,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Upload a run to the Hugging Face hub, with a model card."""
    from zeuxis.export.hub import push as upload

    echo(upload(open_run(run, runs, trust), name, private=not public))


@app.command()
def pull(
    name: HubName,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit")] = None,
    runs: Runs = None,
) -> None:
    """Download a run from the Hugging Face hub into the folder of runs."""
    from zeuxis import runs_dir
    from zeuxis.export.hub import pull as download

    echo(download(name, runs_dir(runs), revision=revision))
