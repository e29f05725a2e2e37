"""What the commands share: the application, the types of their arguments, and the ways to print."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from zeuxis.errors import UserError
from zeuxis.files import path_part, require_inside
from zeuxis.trust import Trust

__all__ = [
    "Attribute", "Classes", "DataOption", "Epochs", "Form", "Jobs", "Label", "Minutes", "On", "Only", "Out",
    "OutFolder", "Pictures", "Plugins", "RecipeName", "RunName", "RunNames", "Runs", "Samples", "SamplingOptions",
    "Seed", "Seeds", "Settings", "Steps", "To", "Track", "Trusted", "app", "budget", "columns", "data_app", "echo",
    "names_in", "open_run", "overrides_of", "print_brief", "print_comparison", "print_table", "recipe_of",
    "runs_app", "samples_folder", "show", "table_rows",
]  # fmt: skip

# Columns of an output that is no terminal.
UNCUT = 10_000

app = typer.Typer(
    help="A laboratory for generative image models: train VAEs, GANs and flows, watch them learn, compare them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)
data_app = typer.Typer(help="List data sources, or inspect a data set.", invoke_without_command=True)
app.add_typer(data_app, name="data")
runs_app = typer.Typer(help="List runs; rename, annotate, star, prune or remove them.", invoke_without_command=True)
app.add_typer(runs_app, name="runs")

RecipeName = Annotated[str, typer.Argument(help="a recipe's name (`zeuxis recipes`), or a TOML file")]
RunName = Annotated[str, typer.Argument(help="a run's folder, or its name in the folder of runs")]
RunNames = Annotated[list[str], typer.Argument(help="names of runs")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override any recipe key, such as training.batch_size=64"),
]
Runs = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER", help="folder of runs, or one in a store: s3://BUCKET/PATH [default: runs, or ZEUXIS_RUNS]"
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="NAME_OR_PATH", help="a data source, a folder or zip of images, .npy or .npz, or shards"
    ),
]
Classes = Annotated[str | None, typer.Option(help="train only on these classes, separated by commas")]
Attribute = Annotated[
    str | None, typer.Option(metavar="NAMES", help="attributes to use as classes, such as Smiling or Smiling,Male")
]
Epochs = Annotated[float | None, typer.Option(help="train for this many passes over the images in all")]
Steps = Annotated[int | None, typer.Option(help="train for this many iterations in all")]
Minutes = Annotated[float | None, typer.Option(help="train for this many minutes in all")]
Seed = Annotated[int, typer.Option(help="seed of the latents")]
SamplingOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="how the model samples, such as solver_steps=4 for a flow"),
]
Pictures = Annotated[list[Path], typer.Argument(help="image files of your own")]
Label = Annotated[
    str | None,
    typer.Option(
        "--label",
        "--condition",
        help="class of the pictures, or attributes such as Smiling=1,Male=0 [default: searched]",
    ),
]
Seeds = Annotated[int, typer.Option(min=1, max=1000, help="train each this many times, with different seeds")]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1, max=256, help="trainings at once, each with an equal share of the cores [default: 1; a cluster's cores]"
    ),
]
On = Annotated[
    str, typer.Option("--on", metavar="WHERE", help="train on local, this machine, or ray or ray:HOST:PORT, a cluster")
]
Samples = Annotated[int, typer.Option(min=100, max=100_000, help="images to sample from each for the measures")]


class Form(StrEnum):
    """Formats of a table of measures."""

    latex = "latex"
    markdown = "markdown"
    html = "html"
    csv = "csv"
    json = "json"


To = Annotated[Form | None, typer.Option("--to", help="print the table of measures in this format")]
Only = Annotated[str, typer.Option(metavar="NAMES", help="rows of that table: measures, separated by commas")]
Out = Annotated[Path | None, typer.Option(help="where to write")]
OutFolder = Annotated[Path | None, typer.Option("--out", help="folder to write images to")]
Track = Annotated[
    str, typer.Option(metavar="NAMES", help="trackers that follow it: tensorboard, mlflow, wandb, separated by commas")
]
Trusted = Annotated[
    bool, typer.Option("--trust", help="run the Python code that a run or recipe from elsewhere contains or names")
]


def _version(asked: bool) -> None:
    if asked:
        from zeuxis import __version__

        echo(f"zeuxis {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Options of the program itself."""


def _load_plugins(paths: list[Path] | None) -> list[Path]:
    """Runs the plugins named on the command line, before any other argument is processed."""
    if paths:
        from zeuxis.plugins import load_plugins, read_plugin

        load_plugins(read_plugin(path, "--plugin") for path in paths)
    return paths or []


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        callback=_load_plugins,
        is_eager=True,
        help="a Python file that registers models, layers, losses, data sources, measures, figures or callbacks",
    ),
]


def overrides_of(settings: list[str] | None, data: str | None, **options: Any) -> dict[str, Any]:
    """Settings from all options of a command: of --set, of --data, and others by dotted key, None for none."""
    from zeuxis.recipe import parse_overrides, together

    images: dict[str, Any] = {}
    if data is not None:
        from zeuxis.data import choose

        images = choose(data)
    given = {key: value for key, value in options.items() if value is not None}
    return together(images, given, parse_overrides(settings))


def recipe_of(
    name: str,
    overrides: dict[str, Any],
    *,
    minutes: float | None,
    size: str | None,
    trust: bool,
    plugins: list[Path] | None,
) -> Any:
    """A recipe by its name or file, at a size; without a name the one for the images, which standard error says."""
    from zeuxis.recipe import load_recipe
    from zeuxis.sizing import resized

    if size is not None and "data.size" in overrides:
        raise UserError("The size is given twice: as --size and as data.size. Give it once.")
    if name:
        loaded = load_recipe(name, overrides, trust=Trust(trust), plugins=plugins or ())
        return resized(loaded, size) if size is not None else loaded

    from zeuxis.choosing import choose_recipe
    from zeuxis.progress import say

    images = {key: value for key, value in overrides.items() if key.startswith("data.")}
    if "data.source" not in images:
        raise UserError("Name a recipe (`zeuxis recipes` lists them), or images to choose one for: --data PATH.")
    recipe, sentences = choose_recipe(images, minutes=minutes, size=size)
    say(sentences)
    return recipe.updated({key: value for key, value in overrides.items() if key not in images})


def names_in(text: str, separator: str = ",") -> list[str]:
    return [name.strip() for name in text.split(separator) if name.strip()]


def budget(epochs: float | None, steps: int | None, minutes: float | None) -> dict[str, float]:
    from zeuxis.recipe import budget_settings

    found = budget_settings(epochs, steps, minutes)
    if len(found) > 1:
        options = " and ".join(key.replace("training.", "--") for key in found)
        raise UserError(f"{options} cannot be combined; give only one.")
    return found


def open_run(
    name: str, runs: str | None, trust: bool, settings: list[str] | None = None, *, copies: bool = True
) -> Any:
    from zeuxis import runs_dir
    from zeuxis.recipe import parse_overrides
    from zeuxis.run import find_run

    run = find_run(name, runs_dir(runs), trust=Trust(trust), copies=copies)
    if settings:
        run.configure(**parse_overrides(settings))
    return run


def samples_folder(run: Any, name: str) -> Path:
    """The folder of a run's samples of this name; it is not made before there is something to write."""
    return require_inside(run.path, run.path / "samples" / path_part(name))


def show(renderable: Any) -> None:
    from zeuxis.progress import Literal

    output = Literal()
    # A narrower table is unreadable; a narrower terminal wraps its lines instead.
    output.width = max(columns(), 40)
    output.print(renderable)


def columns() -> int:
    """The columns of the output; so many that nothing is cut where it is no terminal, unless COLUMNS names them."""
    from zeuxis.progress import Literal

    output = Literal()
    return output.width if output.is_terminal or "COLUMNS" in os.environ else UNCUT


def table_rows(only: str, to: Form | None) -> list[str]:
    """The measures that --only names, checked before anything is trained or measured."""
    from zeuxis.errors import one_of
    from zeuxis.evaluation.measure import by_name

    names = names_in(only)
    if unknown := [name for name in names if name not in by_name()]:
        raise one_of("measure", unknown[0], by_name())
    if names and to is None:
        raise UserError("--only chooses rows of the table that --to prints; add --to markdown, or drop --only.")
    return names


def print_table(table: Any, to: Form, only: Sequence[str] = ()) -> None:
    """Prints a table of measures; CSV has no place for the methods, which standard error shows."""
    from zeuxis.progress import say
    from zeuxis.report.table import render

    if missing := [name for name in only if name not in {row.name for row in table.rows}]:
        say(f"Not in the table, because it was not measured: {', '.join(missing)}.")
    echo(render(table, to, only))
    if to is Form.csv:
        say(table.methods)


def print_brief(table: Any, names: Sequence[str] = ()) -> None:
    """Prints a few measures of each run: those of these names, or the main ones."""
    from rich.table import Table

    from zeuxis.report.table import brief

    heads, *lines = brief(table, names)
    shown = Table(box=None, pad_edge=False)
    for number, head in enumerate(heads):
        shown.add_column(head, justify="right" if number else "left", no_wrap=True)
    for line in lines:
        shown.add_row(*line)
    show(shown)


def print_comparison(compared: Any, to: Form | None, only: Sequence[str] = ()) -> None:
    """Prints the path of a report or, if a format is named, its table of measures; standard error says which lead."""
    from zeuxis.progress import say

    for sentence in compared.verdict:
        say(sentence)
    if to is None:
        echo(compared.path)
        return
    print_table(compared.table, to, only)
    say(str(compared.path))


def echo(text: object) -> None:
    from zeuxis.progress import plain

    print(plain(text))  # noqa: T201 - the only place that prints results
