"""Commands that take a model out of Zeuxis."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from zeuxis.cli.shared import Out, RunName, Runs, SamplingOptions, Trusted, app, echo, open_run


class Axes(StrEnum):
    """The order of an image's axes."""

    nhwc = "nhwc"
    nchw = "nchw"


@app.command()
def export(
    run: RunName,
    to: Annotated[str, typer.Option(metavar="FORMAT", help="onnx, web (a page), torch or safetensors")] = "onnx",
    layout: Annotated[Axes, typer.Option(help="order of an image's axes: channels last, or first")] = Axes.nhwc,
    settings: SamplingOptions = None,
    out: Out = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Write a run's model in a format that other programs read."""
    from zeuxis.export import export as write_export
    from zeuxis.export import export_folder

    opened = open_run(run, runs, trust, settings)
    folder = out or export_folder(opened, to)
    lines = write_export(opened, to, folder, layout=layout.value)
    echo("\n".join([*lines, str(folder)]))
