"""The command line: one function per command, which parses its arguments, calls the library and prints the result."""

from __future__ import annotations

import json
import re
import shutil
import sys
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer

from zeuxis.errors import StoppedError, UserError, one_of, shortened
from zeuxis.files import path_part, subfolder, why
from zeuxis.trust import Trust

__all__ = ["app", "main"]

# The base class of all errors in a command line's arguments; typer exports only some of its subclasses.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
# With fewer training images than this, `evaluate` prints a caution.
FEW = 500
# From so many columns of the terminal on, the list of runs shows recipe, data, date and note as well.
WIDE = 120
# How many of the files that are left out `data info` names.
SHOWN = 20


class Search(StrEnum):
    """How a sweep chooses the values of its settings."""

    grid = "grid"
    random = "random"
    tpe = "tpe"


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
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override any recipe key, such as training.batch_size=64"),
]
Runs = Annotated[Path | None, typer.Option(help="folder of runs [default: runs, or ZEUXIS_RUNS]")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="NAME_OR_PATH", help="a data source, a folder or zip of images, or .npy or .npz"),
]
Classes = Annotated[str | None, typer.Option(help="train only on these classes, separated by commas")]
Attribute = Annotated[
    str | None, typer.Option(metavar="NAMES", help="attributes to use as classes, such as Smiling or Smiling,Male")
]
Epochs = Annotated[float | None, typer.Option(help="train for this many passes over the images")]
Steps = Annotated[int | None, typer.Option(help="train for this many iterations")]
Minutes = Annotated[float | None, typer.Option(help="train for this many minutes")]
Seed = Annotated[int, typer.Option(help="seed of the latents")]
SamplingOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="how the model samples, such as solver_steps=4 for a flow"),
]
Seeds = Annotated[int, typer.Option(min=1, max=1000, help="train each this many times, with different seeds")]
Samples = Annotated[int, typer.Option(min=100, max=100_000, help="images to sample from each for the measures")]
Out = Annotated[Path | None, typer.Option(help="where to write")]
Trusted = Annotated[
    bool, typer.Option("--trust", help="run the Python code that a run or recipe from elsewhere contains or names")
]


def _version(asked: bool) -> None:
    if asked:
        from zeuxis import __version__

        _echo(f"zeuxis {__version__}")
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


def _overrides(settings: list[str] | None, data: str | None, attribute: str | None) -> dict[str, Any]:
    from zeuxis.recipe import parse_override

    overrides: dict[str, Any] = {}
    if data is not None:
        from zeuxis.data import choose

        overrides |= choose(data)
    if attribute is not None:
        overrides["data.attribute"] = attribute
    return overrides | dict(parse_override(text) for text in settings or [])


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _budget(epochs: float | None, steps: int | None, minutes: float | None) -> dict[str, float]:
    budgets = {
        key: value for key, value in (("epochs", epochs), ("steps", steps), ("minutes", minutes)) if value is not None
    }
    if len(budgets) > 1:
        raise UserError(f"{' and '.join(f'--{key}' for key in budgets)} cannot be combined; give only one.")
    return {f"training.{key}": value for key, value in budgets.items()}


@app.command()
def recipes(
    part: Annotated[str, typer.Argument(help="list only recipes with this in their names, such as mnist or vae")] = "",
) -> None:
    """List the recipes that come with the package."""
    from rich.table import Table

    from zeuxis.recipe import load_recipe, recipe_names

    names = [name for name in recipe_names() if part in name]
    if not names:
        raise one_of("recipe", part, recipe_names())
    table = Table("recipe", "model", "images", "what it is", box=None, pad_edge=False)
    for name in names:
        recipe = load_recipe(name)
        kind = "grey" if recipe.data.channels == 1 else "colour"
        table.add_row(name, recipe.model.name, f"{recipe.data.size}x{recipe.data.size} {kind}", recipe.description)
    _print(table)


@app.command()
def summary(
    recipe: RecipeName,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="draw the networks to this picture file: .svg, .png, .pdf or .jpg"),
    ] = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Print a recipe's layers, output shapes and parameters."""
    from zeuxis.recipe import load_recipe, parse_override

    # Before importing PyTorch, which takes seconds, so that a mistake is reported at once.
    overrides = dict(parse_override(text) for text in settings or [])
    loaded = load_recipe(recipe, overrides, trust=Trust(trust), plugins=plugin or ())

    from rich.table import Table

    from zeuxis.models import build_model
    from zeuxis.nets import summary as tables

    model = build_model(loaded)
    if draw is not None:
        from zeuxis.figures.architecture import draw_recipe
        from zeuxis.figures.style import write

        networks = {name: model.net(name) for name in model.networks}
        write(lambda: draw_recipe(networks, loaded.name), draw)
        _echo(draw)
        return
    network_tables = tables(loaded.name, model.networks)
    if as_json:
        _echo(json.dumps(network_tables, indent=2))
        return
    for name, network in network_tables["networks"].items():
        table = Table(
            "layer", "output", title=f"{loaded.name}: {name}", title_justify="left", title_style="bold", min_width=52
        )
        table.add_column("parameters", justify="right")
        for row in network["layers"]:
            table.add_row(row["layer"], ", ".join(map(str, row["output"])), f"{row['parameters']:,}")
        table.add_section()
        for label, count in (
            ("total", network["total"]),
            ("trainable", network["trainable"]),
            ("non-trainable", network["total"] - network["trainable"]),
        ):
            table.add_row(label, "", f"{count:,}", style="bold" if label == "total" else None)
        _print(table)


@data_app.callback()
def data_list(context: typer.Context, plugin: Plugins = None) -> None:
    """List data sources."""
    if context.invoked_subcommand:
        return
    from rich.table import Table

    from zeuxis.data import SOURCES, data_dir

    table = Table("source", "what it is", box=None, pad_edge=False)
    for source in SOURCES.values():
        table.add_row(source.name, source.description)
    _print(table)
    _echo(f"\nData directory (ZEUXIS_DATA): {data_dir()}")


@data_app.command("info")
def data_info(
    data: Annotated[
        str, typer.Argument(metavar="NAME_OR_PATH", help="a data source, a folder or zip, or .npy or .npz")
    ],
    size: Annotated[int, typer.Option(min=4, max=256, help="side of the images on the sample sheet, in pixels")] = 64,
    path: Annotated[str, typer.Option(help="folder or archive, for a source that reads one")] = "",
    out: Out = None,
    plugin: Plugins = None,
) -> None:
    """Describe a data set and draw a sample sheet. Prints counts, sizes and classes or attributes."""
    from zeuxis.data import TO_COLOUR, choose, load
    from zeuxis.data.notes import LONGEST
    from zeuxis.figures.datasheet import datasheet
    from zeuxis.recipe import DataOptions

    location = {key.removeprefix("data."): value for key, value in choose(data).items()}
    location["path"] = path or location["path"]
    options = DataOptions(**location, size=size, channels=3, convert=True)
    dataset = load(options)
    kind = "grey" if dataset.source["channels"] == 1 else "colour"
    lines = [
        f"source      {options.source}{f' ({options.path})' if options.path else ''}",
        f"images      {len(dataset.train):,} for training, {len(dataset.test):,} for testing",
        f"pixels      {dataset.source['sizes']}, {kind}",
    ]
    if dataset.labels is not None:
        counts = [int((dataset.labels == i).sum()) for i in range(len(dataset.classes))]
        pairs = zip(dataset.classes, counts, strict=True)
        lines.append("classes     " + ", ".join(f"{name} {count:,}" for name, count in pairs))
    if dataset.attributes is not None:
        shares = zip(dataset.attribute_names, dataset.attributes.mean(axis=0), strict=True)
        lines.append("attributes  " + ", ".join(f"{name} {share:.0%}" for name, share in shares))
    # The sheet is always in colour, so for an all-grey set the note about the conversion says nothing.
    notes = [note for note in dataset.notes if not (note.what == TO_COLOUR and dataset.source["channels"] == 1)]
    lines += [f"{note.kind:<11} {note}" for note in notes]
    lines += [f"            {name[:LONGEST]}: {reason}" for name, reason in list(dataset.left_out.items())[:SHOWN]]
    if len(dataset.left_out) > SHOWN:
        lines.append(f"            and {len(dataset.left_out) - SHOWN:,} more")
    sheet = datasheet(dataset, out or Path(path_part(f"{Path(data).stem}-sheet.png")))
    lines.append(f"sheet       {sheet}")
    _echo("\n".join(lines))


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="a recipe's name (`zeuxis recipes`), or a TOML file; chosen for --data if left out")
    ] = "",
    data: DataOption = None,
    size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="side of the images, where the recipe is chosen")
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
    name: Annotated[str, typer.Option(help="name of the run's folder")] = "",
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Train a recipe, or images without one, into a new run folder."""
    from zeuxis.recipe import load_recipe

    overrides = _overrides(settings, data, attribute) | _budget(epochs, steps, minutes)
    options = {"seed": seed, "device": device, "until": until}
    overrides |= {f"training.{key}": value for key, value in options.items() if value is not None}
    # Before importing PyTorch, which takes seconds, so that a mistake is reported at once.
    if recipe:
        if size is not None:
            raise UserError("--size is for a recipe that is chosen for the images; a named recipe has its own size.")
        loaded = load_recipe(recipe, overrides, trust=Trust(trust), plugins=plugin or ())
    else:
        loaded = _chosen(overrides, minutes, size)
    if classes is not None:
        from zeuxis.data import choose_classes

        loaded = loaded.updated({"data.classes": choose_classes(classes, loaded.data)})

    from zeuxis import runs_dir
    from zeuxis.training import start

    folder, finished = start(loaded, runs_dir(runs), name=name)
    _done(folder, finished)


@app.command()
def resume(
    run: RunName,
    epochs: Epochs = None,
    steps: Steps = None,
    minutes: Minutes = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Resume a stopped run, or train a finished one longer."""
    from zeuxis.training import resume as resume_run

    opened = _open(run, runs, trust)
    _done(opened.path, resume_run(opened.path, _budget(epochs, steps, minutes), trust=opened.trust))


@runs_app.callback()
def list_runs(
    context: typer.Context,
    sort: Annotated[str, typer.Option(help="name, date, recipe, state, distance, mse, size or step")] = "name",
    matching: Annotated[str, typer.Option("--filter", metavar="TEXT", help="only runs that mention this text")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
    runs: Runs = None,
) -> None:
    if context.invoked_subcommand:
        return
    from rich.filesize import decimal
    from rich.table import Table

    from zeuxis import runs_dir
    from zeuxis.listing import SORTS, Entry, entries

    if sort not in SORTS:
        raise one_of("way to sort", sort, SORTS)
    listed = entries(runs_dir(runs), sort=sort, matching=matching)
    if as_json:
        _echo(json.dumps([entry.row() for entry in listed], indent=1))
        return
    if as_csv:
        import csv

        text = StringIO()
        writer = csv.DictWriter(text, list(Entry.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(entry.row() for entry in listed)
        _echo(text.getvalue().rstrip("\n"))
        return
    if not listed:
        _echo(f"There are no runs in {runs_dir(runs)}{f' that mention {matching!r}' if matching else ''}.")
        return
    wide = shutil.get_terminal_size().columns >= WIDE
    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "progress"):
        table.add_column(column, no_wrap=True)
    for column in ("distance", "MSE", "size"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("recipe", "data", "started, UTC", "note") if wide else ():
        table.add_column(column)
    for entry in listed:
        table.add_row(
            ("* " if entry.star else "") + entry.name, entry.state, entry.progress,
            f"{entry.distance:.3g}" if entry.distance is not None else "",
            f"{entry.test_mse:.4f}" if entry.test_mse is not None else "", decimal(entry.bytes),
            *((entry.recipe, entry.data, entry.started, entry.note) if wide else ()),
        )  # fmt: skip
    _print(table)
    if not wide and any(entry.note for entry in listed):
        _echo("\n".join(f"{entry.name}: {entry.note}" for entry in listed if entry.note))


RunNames = Annotated[list[str], typer.Argument(help="names of runs")]


@runs_app.command("rm")
def remove_runs(
    names: RunNames,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    runs: Runs = None,
) -> None:
    """Delete runs for good. Asks first."""
    from zeuxis import runs_dir
    from zeuxis.listing import folder_of, remove

    folders = [folder_of(name, runs_dir(runs)) for name in dict.fromkeys(names)]
    if not yes and not typer.confirm(f"Delete {', '.join(map(str, folders))} for good?"):
        raise UserError("Nothing was deleted.")
    remove(folders)
    _echo("\n".join(f"deleted {folder}" for folder in folders))


@runs_app.command("rename")
def rename_run(name: RunName, new: Annotated[str, typer.Argument(help="its new name")], runs: Runs = None) -> None:
    """Give a run another name."""
    from zeuxis import runs_dir
    from zeuxis.listing import folder_of
    from zeuxis.listing import rename as rename_folder

    _echo(rename_folder(folder_of(name, runs_dir(runs)), new))


@runs_app.command("note")
def note_run(
    name: RunName, text: Annotated[str, typer.Argument(help="the note; an empty one removes it")], runs: Runs = None
) -> None:
    """Write a note on a run, which lists show."""
    from zeuxis import runs_dir
    from zeuxis.listing import annotate, folder_of

    annotate(folder_of(name, runs_dir(runs)), note=text)


@runs_app.command("star")
def star_run(
    names: RunNames,
    off: Annotated[bool, typer.Option("--off", help="remove the star")] = False,
    runs: Runs = None,
) -> None:
    """Star runs, which lists show first."""
    from zeuxis import runs_dir
    from zeuxis.listing import annotate, folder_of

    for folder in [folder_of(name, runs_dir(runs)) for name in names]:
        annotate(folder, star=not off)


@runs_app.command("prune")
def prune_runs(names: RunNames, runs: Runs = None) -> None:
    """Keep only a run's best weights. It takes a fraction of the space, and cannot be resumed."""
    from rich.filesize import decimal

    from zeuxis import runs_dir
    from zeuxis.listing import folder_of, prune

    for folder in [folder_of(name, runs_dir(runs)) for name in dict.fromkeys(names)]:
        _echo(f"{folder}: {decimal(prune(folder))} freed")


@app.command()
def pretrained() -> None:
    """List the trained runs that come with the package. `zeuxis sample pretrained/NAME` uses one."""
    from zeuxis.pretrained import PREFIX, cards

    for card in cards():
        _echo(f"{PREFIX}{card.name}\n  {card.description}.")
        _echo(f"  Trained on {card.images}; licence: {card.licence}.\n  Measured: {card.measured}.\n")


@app.command()
def sample(
    run: RunName,
    n: Annotated[int, typer.Option("-n", min=1, max=100_000, help="how many images")] = 32,
    seed: Seed = 1,
    label: Annotated[
        str | None,
        typer.Option("--label", "--condition", help="class to sample, or attributes such as Smiling=1,Male=0"),
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0, max=1000, help="factor that spreads (above 1) or narrows the latents")
    ] = 1.0,
    settings: SamplingOptions = None,
    out: Out = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Sample new images. Writes a folder with nothing but PNG files, and a grid beside it."""
    from zeuxis.figures.export import save_images

    opened = _open(run, runs, trust, settings)
    images = opened.samples(n, seed=seed, label=label, scale=scale)
    suffix = f"-label-{label}" if label is not None else ""
    _echo(save_images(images, n, out or _samples(opened, f"seed-{seed}{suffix}")))


@app.command()
def reconstruct(
    run: RunName,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="how many test images")] = 10,
    out: Out = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Draw test images above their reconstructions. Prints the test MSE."""
    import numpy as np

    from zeuxis.evaluation import mean_squared_error
    from zeuxis.figures.export import save_images

    opened = _open(run, runs, trust)
    all_images, labels = opened.test_images()
    error = mean_squared_error(all_images, opened.reconstruct(all_images, opened.condition(labels)))
    images, labels = opened.test_images(n)
    both = np.concatenate([images, opened.reconstruct(images, opened.condition(labels))])
    grid = save_images([both], len(both), out or _samples(opened, "reconstructions"), columns=len(images))
    _echo(f"test MSE {error:.6f} over {len(all_images):,} images\n{grid}")


@app.command()
def interpolate(
    run: RunName,
    start: Annotated[
        str, typer.Option("--from", help="first image: a class, the seed of a latent, or latents as 0.5,-1")
    ],
    end: Annotated[str, typer.Option("--to", help="last image, in the same form")],
    steps: Annotated[int, typer.Option(min=2, max=1000, help="images in the row")] = 10,
    seed: Seed = 1,
    settings: SamplingOptions = None,
    out: Out = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Draw a row of images from one latent or class to another."""
    from zeuxis.figures.export import save_images
    from zeuxis.progress import say

    opened = _open(run, runs, trust, settings)
    images = opened.interpolate(start, end, steps=steps, seed=seed)
    seeds = not opened.conditional and "," not in start + end
    if seeds:
        say(f"{opened.name} has no classes: {start} and {end} are the seeds of two latents.")
    name = f"from-seed-{start}-to-seed-{end}" if seeds else f"from-{start}-to-{end}"
    _echo(save_images([images], steps, out or _samples(opened, name), columns=steps))


@app.command()
def figures(
    run: RunName,
    only: Annotated[str, typer.Option(metavar="NAMES", help="draw only these figures, separated by commas")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="an option of a figure, such as points=2621")
    ] = None,
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Draw all figures that apply to a run."""
    from zeuxis.figures import draw_all
    from zeuxis.recipe import parse_override

    names = _names(only)
    options = dict(parse_override(text) for text in settings or [])
    _echo("\n".join(map(str, draw_all(_open(run, runs, trust), only=names, options=options).values())))


@app.command()
def evaluate(
    run: RunName,
    samples: Annotated[int, typer.Option(min=100, max=100_000, help="images to sample for the measures")] = 10_000,
    seed: Annotated[int, typer.Option(help="seed of their latents")] = 0,
    judge: Annotated[
        str,
        typer.Option(
            metavar="JUDGE",
            help="measure in the features of efficientnet, inception, timm:NAME, random, or a classifier's run",
        ),
    ] = "",
    only: Annotated[str, typer.Option(metavar="NAMES", help="take only these measures, separated by commas")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Measure a run. Writes evaluation.json into its folder."""
    from rich.table import Table

    from zeuxis.evaluation.evaluate import evaluate as measure
    from zeuxis.evaluation.features import JUDGES, judge_by_name
    from zeuxis.evaluation.measure import as_text, by_name
    from zeuxis.evaluation.verdict import training_state, verdict

    names = _names(only)
    opened = _open(run, runs, trust)
    judge_network = None
    if judge.partition(":")[0] in JUDGES:
        judge_network = judge_by_name(judge, opened.recipe.data.shape)
    elif judge:
        try:
            judge_network = _open(judge, runs, trust)
        except UserError as missing:
            raise UserError(f"{missing} Judges by name: {', '.join(JUDGES)}.") from missing
    evaluation = measure(opened, samples=samples, seed=seed, judge=judge_network, only=names)
    if as_json:
        _echo(json.dumps(evaluation, indent=2))
        return
    sentences = [*verdict(opened, evaluation), *training_state(opened)]
    _echo("\n".join([*sentences, ""]) if sentences else "")
    arrows = {"low": " ↓", "high": " ↑", "": ""}
    definitions = by_name()
    table = Table("measure", box=None, pad_edge=False)
    table.add_column("value", justify="right")
    table.add_column("± error", justify="right")
    table.add_column("images", justify="right")
    table.add_column("what it is")
    for name, value in evaluation["measures"].items():
        error = f"{value['stderr']:.2g}" if value["stderr"] is not None else ""
        definition = definitions[name]
        table.add_row(
            name + arrows[definition.better], ("≥ " if value.get("at_least") else "") + as_text(value["value"]), error,
            f"{value['n']:,}" if value["n"] else "", definition.gives[name],
        )  # fmt: skip
    _print(table)
    if evaluation["features"]:
        note = ""
        if evaluation["features"].startswith("random features"):
            reason = "" if judge else ", because no classifier can tell classes of these images apart"
            note = f": a network with random weights{reason}"
        _echo(f"\nDistances are in the features of {evaluation['features']}{note}.")
    left_out = evaluation["left_out"]
    for reason in dict.fromkeys(left_out.values()):
        _echo(f"Not measured: {', '.join(name for name in left_out if left_out[name] == reason)}: {reason}.")
    if len(opened.dataset.train) < FEW:
        _echo(
            f"Only {len(opened.dataset.train):,} training images: treat these numbers as rough. The error bars do not "
            "reflect such a small set."
        )


@app.command()
def report(run: RunName, out: Out = None, runs: Runs = None, trust: Trusted = False, plugin: Plugins = None) -> None:
    """Write a run's report: one self-contained HTML file."""
    from zeuxis.report import run_report

    _echo(run_report(_open(run, runs, trust), out))


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="runs to compare")],
    seeds: Seeds = 1,
    samples: Samples = 2000,
    out: Out = None,
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Compare runs in a report: one self-contained HTML file."""
    from zeuxis.study import compare as side_by_side

    _echo(side_by_side([_open(name, runs, trust) for name in names], out, seeds=seeds, samples=samples))


@app.command()
def benchmark(
    models: Annotated[str, typer.Option(metavar="NAMES", help="models or recipes, separated by commas")],
    data: Annotated[str, typer.Option(metavar="NAME_OR_PATH", help="a data source, or a folder or zip of images")],
    minutes: Annotated[float | None, typer.Option(help="train each for this many minutes")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="train each on this many images, over all epochs")] = None,
    seeds: Seeds = 1,
    samples: Samples = 2000,
    size: Annotated[int | None, typer.Option(help="side of the images in pixels, for your own data")] = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="folder for runs and report [default: RUNS/benchmark-DATA]")] = None,
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Train models on one budget and compare them. Continues where it was stopped."""
    from zeuxis import runs_dir
    from zeuxis.recipe import parse_override
    from zeuxis.study import benchmark as run_benchmark

    folder = out or runs_dir(runs) / path_part(f"benchmark-{Path(data).stem}")
    overrides: dict[str, Any] = dict(parse_override(text) for text in settings or [])
    overrides["plugins"] = [*overrides.get("plugins", []), *map(str, plugin or ())]
    report = run_benchmark(
        _names(models), data, folder, minutes=minutes, images=images, seeds=seeds, samples=samples, size=size,
        settings=overrides, trust=Trust(trust),
    )  # fmt: skip
    _echo(report)


@app.command()
def sweep(
    recipe: RecipeName,
    over: Annotated[
        list[str],
        typer.Option(metavar="KEY=V1,V2", help="a setting and its values, or its range LOW..HIGH for a search"),
    ],
    search: Annotated[
        Search, typer.Option(help="grid: all combinations; random: random values; tpe: Optuna's sampler")
    ] = Search.grid,
    trials: Annotated[int, typer.Option(min=2, max=10_000, help="number of trainings in a search")] = 12,
    measures: Annotated[str, typer.Option(metavar="X,Y", help="measures to plot; a search minimises the second")] = "",
    data: DataOption = None,
    epochs: Epochs = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: Annotated[int | None, typer.Option(help="seed of the trainings and of a search")] = None,
    settings: Settings = None,
    samples: Samples = 2000,
    out: Annotated[Path | None, typer.Option(help="folder for runs and report [default: RUNS/sweep-RECIPE]")] = None,
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Train a recipe with varied settings. Plots two measures; continues where it was stopped."""
    from zeuxis.recipe import load_recipe

    overrides = _overrides(settings, data, None) | _budget(epochs, steps, minutes)
    overrides |= {"training.seed": seed} if seed is not None else {}
    # Before importing PyTorch, which takes seconds, so that a mistake is reported at once.
    loaded = load_recipe(recipe, overrides, trust=Trust(trust), plugins=plugin or ())

    from zeuxis import runs_dir
    from zeuxis.study import parse_axis
    from zeuxis.study import sweep as run_sweep

    report = run_sweep(
        loaded, [parse_axis(text) for text in over], out or runs_dir(runs) / f"sweep-{loaded.name}",
        search=search.value, trials=trials, shown=_names(measures), samples=samples,
    )  # fmt: skip
    _echo(report)


@app.command()
def demo(runs: Annotated[Path, typer.Option(help="folder for the demo's runs")] = Path("demo")) -> None:
    """Train three small models on digits and compare them."""
    from zeuxis.demo import run_demo

    _echo(run_demo(runs))


def _open(name: str, runs: Path | None, trust: bool, settings: list[str] | None = None) -> Any:
    from zeuxis import runs_dir
    from zeuxis.recipe import parse_override
    from zeuxis.run import find_run

    run = find_run(name, runs_dir(runs), trust=Trust(trust))
    if settings:
        run.configure(**dict(parse_override(text) for text in settings))
    return run


def _samples(run: Any, name: str) -> Path:
    return subfolder(subfolder(run.path, "samples"), path_part(name))


def _print(renderable: Any) -> None:
    from zeuxis.progress import Literal

    output = Literal()
    # A narrower table is unreadable; a narrower terminal wraps its lines instead.
    output.width = max(output.width, 40)
    output.print(renderable)


def _echo(text: object) -> None:
    from zeuxis.progress import plain

    print(plain(text))  # noqa: T201 - the only place that prints results


def _done(folder: Path, finished: bool) -> None:
    from zeuxis.run import Run

    run = Run(folder)
    if finished:
        _after(run)
        _echo(folder)
        return
    last = run.journal[-1]
    raise StoppedError(
        f"Stopped and saved at step {last['step']:,} (epoch {last['epoch']:.3g}). Continue with: zeuxis resume {folder}"
    )


def _chosen(overrides: dict[str, Any], minutes: float | None, size: int | None) -> Any:
    """The recipe for the images that are named, which standard error says."""
    from zeuxis.choosing import choose_recipe
    from zeuxis.progress import say

    images = {key: value for key, value in overrides.items() if key.startswith("data.")}
    if "data.source" not in images:
        raise UserError("Name a recipe (`zeuxis recipes` lists them), or images to choose one for: --data PATH.")
    recipe, sentences = choose_recipe(images, minutes=minutes, size=size)
    say(sentences)
    return recipe.updated({key: value for key, value in overrides.items() if key not in images})


def _after(run: Any) -> None:
    """Says on standard error which weights a finished run uses, and what to do with it next."""
    from zeuxis.evaluation.verdict import training_state
    from zeuxis.progress import say

    for sentence in training_state(run):
        say(sentence)
    first = f"zeuxis sample {run.name}" if run.generates else f"zeuxis figures {run.name}"
    say(f"Next: {first}, zeuxis evaluate {run.name}, zeuxis report {run.name}")


def main() -> NoReturn:
    """Runs the command line and exits with its code; a user's mistake prints a sentence and exits with code 2."""
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        usage = StringIO()
        error.show(usage)
        _fail(usage.getvalue().rstrip("\n"), 2)
    except StoppedError as error:
        _fail(str(error), 130)
    except UserError as error:
        _fail(f"Error: {error}", 2)
    except OSError as error:
        _fail(f"Error: {error.filename or 'A file'} cannot be used: {why(error)}.", 2)
    except (MemoryError, RuntimeError) as error:
        # PyTorch raises a plain RuntimeError when the CPU runs out of memory.
        if isinstance(error, RuntimeError) and not re.search("tried to allocate|out of memory", str(error)):
            raise
        _fail("Error: There is not enough memory for this; ask for less at once.", 2)
    sys.exit(code)


def _fail(message: str, code: int) -> NoReturn:
    from zeuxis.progress import plain

    print(plain(shortened(message)), file=sys.stderr)  # noqa: T201 - the only place that prints failures
    sys.exit(code)
