"""Commands that train."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from zeuxis.cli.shared import (
    Attribute,
    Classes,
    DataOption,
    Epochs,
    Minutes,
    Plugins,
    RunName,
    Runs,
    Settings,
    Steps,
    Track,
    Trusted,
    app,
    budget,
    echo,
    names_in,
    open_run,
    overrides_of,
    recipe_of,
)
from zeuxis.errors import StoppedError
from zeuxis.trust import NOTHING, Trust

Processes = Annotated[
    int, typer.Option(min=1, max=1024, help="train in so many processes on this machine, which share every batch")
]


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="a recipe's name (`zeuxis recipes`), or a TOML file; chosen for --data if left out")
    ] = "",
    data: DataOption = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS", help="side of the images, or WIDTHxHEIGHT such as 96x64; the recipe's networks follow"
        ),
    ] = None,
    classes: Classes = None,
    attribute: Attribute = None,
    epochs: Epochs = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: Annotated[int | None, typer.Option(help="seed of weights, batches and latents")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps or auto")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TERM", help="stop when this no longer falls: fid, or a test term such as mse")
    ] = None,
    settings: Settings = None,
    track: Track = "",
    from_run: Annotated[
        str, typer.Option(metavar="RUN", help="start from this run's weights, as far as they fit the recipe's networks")
    ] = "",
    name: Annotated[str, typer.Option(help="name of the run's folder")] = "",
    processes: Processes = 1,
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Train a recipe, or images without one, into a new run folder."""
    options = {"data.attribute": attribute, "training.seed": seed, "training.device": device, "training.until": until}
    overrides = overrides_of(settings, data, **options, **budget(epochs, steps, minutes))
    # Before importing PyTorch, which takes seconds, so that a mistake is reported at once.
    loaded = recipe_of(recipe, overrides, minutes=minutes, size=size, trust=trust, plugins=plugin)
    if classes is not None:
        from zeuxis.data import choose_classes

        loaded = loaded.updated({"data.classes": choose_classes(classes, loaded.data)})
    _launch(processes)

    from zeuxis import runs_dir
    from zeuxis.training import start, tracked

    origin = open_run(from_run, runs, trust).path if from_run else None
    folder, finished = start(tracked(loaded, names_in(track)), runs_dir(runs), name=name, from_run=origin)
    _done(folder, finished)


@app.command()
def resume(
    run: RunName,
    epochs: Epochs = None,
    steps: Steps = None,
    minutes: Minutes = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="change a rate, a weight of a loss or how often is logged"),
    ] = None,
    processes: Processes = 1,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Resume a stopped run, or train a finished one longer; some settings may change."""
    from zeuxis.training import resume as resume_run

    opened = open_run(run, runs, trust)
    _ = opened.environment  # whether it is damaged shows before hours of training
    _launch(processes)
    changes = overrides_of(settings, None, **budget(epochs, steps, minutes))
    _done(opened.path, resume_run(opened.path, changes, trust=opened.trust), opened.trust)


@app.command()
def watch(
    run: RunName,
    page: Annotated[
        bool, typer.Option("--page", help="also write live.html into the run, which renews itself")
    ] = False,
    runs: Runs = None,
) -> None:
    """Watch a training in the terminal until it ends. Ctrl-C leaves the training alone."""
    from zeuxis.watching import PAGE
    from zeuxis.watching import watch as watch_run

    folder = open_run(run, runs, trust=False).path
    if page:
        echo(f"{folder / PAGE}: open it in a browser; it renews itself.")
    echo(watch_run(folder, page=page, say=echo))


@app.command()
def demo(
    minutes: Annotated[
        float | None, typer.Option(min=0.01, max=1000, help="training time of the three models together [default: 2.7]")
    ] = None,
    runs: Annotated[str, typer.Option(metavar="FOLDER", help="folder for the demo's runs")] = "demo",
) -> None:
    """Train three small models on digits and compare them."""
    from zeuxis import runs_dir
    from zeuxis.demo import run_demo

    echo(run_demo(runs_dir(runs), minutes=minutes))


def _launch(processes: int) -> None:
    """Runs this command in several processes that train together, and ends with their exit code."""
    if processes > 1 and "WORLD_SIZE" not in os.environ:
        from zeuxis.training.launching import launch

        raise typer.Exit(launch(processes, sys.argv[1:]))


def _done(folder: Path, finished: bool, trust: Trust = NOTHING) -> None:
    from zeuxis.run import Run
    from zeuxis.training.distributed import is_main

    if not is_main():
        raise typer.Exit(0 if finished else 130)
    run = Run(folder, trust=trust)
    if finished:
        _after(run)
        echo(folder)
        return
    last = run.journal[-1]
    raise StoppedError(
        f"Stopped and saved at step {last['step']:,} (epoch {last['epoch']:.3g}). Continue with: "
        f"zeuxis resume {quote(str(folder))}"
    )


def _after(run: Any) -> None:
    """Says on standard error which weights a finished run uses, and what to do with it next."""
    from zeuxis.evaluation.verdict import training_state
    from zeuxis.progress import say

    for sentence in training_state(run):
        say(sentence)
    first, name = "sample" if run.generates else "figures", quote(run.name)
    say(f"Next: zeuxis {first} {name}, zeuxis evaluate {name}, zeuxis report {name}")
