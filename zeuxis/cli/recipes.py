"""Commands that describe recipes and data."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from zeuxis.cli.shared import (
    DataOption,
    Minutes,
    Plugins,
    Settings,
    Trusted,
    app,
    budget,
    data_app,
    echo,
    overrides_of,
    recipe_of,
    show,
)
from zeuxis.errors import UserError, one_of, require_within
from zeuxis.files import path_part
from zeuxis.progress import say


class Fit(StrEnum):
    """What happens to images of another shape."""

    crop = "crop"
    pad = "pad"
    stretch = "stretch"


# How many of the files that are left out `data info` names.
SHOWN = 20


@app.command()
def recipes(
    part: Annotated[str, typer.Argument(help="list only recipes with this in their names, such as mnist or vae")] = "",
) -> None:
    """List the recipes that come with the package, those to start with first."""
    from rich.table import Table

    from zeuxis.guide import groups
    from zeuxis.recipe import recipe_names

    names = [name for name in recipe_names() if part in name]
    if not names:
        raise one_of("recipe", part, recipe_names())
    width = max(map(len, names))
    for group in groups(names):
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(width=width, no_wrap=True)
        table.add_column(width=len("128x128 colour"), no_wrap=True)
        table.add_column()
        for recipe in group.recipes:
            table.add_row(recipe.name, recipe.data.in_words, recipe.description)
        echo(f"{group.title}\n{group.text}\n")
        show(table)
        echo("")
    if not part:
        echo("`zeuxis train --data PATH` chooses a recipe for your images; `zeuxis init` writes one to change.")


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="name of the recipe, whose file is NAME.toml")] = "my-recipe",
    data: DataOption = None,
) -> None:
    """Write a commented recipe of your own, to change and to train."""
    from zeuxis.data import choose
    from zeuxis.starter import write_starter

    path = write_starter(name, choose(data) if data else None)
    echo(path)
    say(f"Next: change it in an editor, then zeuxis summary {quote(str(path))}, zeuxis train {quote(str(path))}")


@app.command()
def summary(
    recipe: Annotated[
        str, typer.Argument(help="a recipe's name (`zeuxis recipes`), or a TOML file; chosen for --data if left out")
    ] = "",
    settings: Settings = None,
    data: DataOption = None,
    size: Annotated[
        str | None, typer.Option(metavar="PIXELS", help="side of the images, or WIDTHxHEIGHT such as 96x64")
    ] = None,
    minutes: Minutes = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="draw the networks to this picture file: .svg, .png, .pdf or .jpg"),
    ] = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Print the layers, output shapes and parameters of a recipe, or of the one that --data would be trained with."""
    # Before importing PyTorch, which takes seconds, so that a mistake is reported at once.
    overrides = overrides_of(settings, data, **budget(None, None, minutes))
    loaded = recipe_of(recipe, overrides, minutes=minutes, size=size, trust=trust, plugins=plugin)

    from rich.table import Table

    from zeuxis.models import build_model
    from zeuxis.nets import summary as tables

    model = build_model(loaded)
    if draw is not None:
        from zeuxis.figures.architecture import draw_recipe
        from zeuxis.figures.style import write

        networks = {name: model.net(name) for name in model.networks}
        write(lambda: draw_recipe(networks, loaded.name), draw)
        echo(draw)
        return
    network_tables = tables(loaded.name, model.networks)
    if as_json:
        echo(json.dumps(network_tables, indent=2))
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
        show(table)


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
    show(table)
    echo(f"\nData directory (ZEUXIS_DATA): {data_dir()}")


@data_app.command("info")
def data_info(
    data: Annotated[
        str, typer.Argument(metavar="NAME_OR_PATH", help="a data source, a folder or zip, .npy or .npz, or shards")
    ],
    size: Annotated[
        str, typer.Option(metavar="PIXELS", help="side of the images on the sample sheet, or WIDTHxHEIGHT")
    ] = "64",
    fit: Annotated[Fit, typer.Option(help="what happens to images of another shape, as data.fit")] = Fit.crop,
    path: Annotated[str, typer.Option(help="folder or archive, for a source that reads one")] = "",
    out: Annotated[
        Path | None, typer.Option(help="the sample sheet [default: NAME-sheet.png in the current folder]")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Describe a data set. Prints counts, sizes and classes or attributes, and writes a sample sheet, a picture."""
    from zeuxis.data import TO_COLOUR, choose, load
    from zeuxis.data.notes import LONGEST, in_sentences
    from zeuxis.figures.datasheet import datasheet
    from zeuxis.recipe import DataOptions
    from zeuxis.sizing import size_of

    location = {key.removeprefix("data."): value for key, value in choose(data).items()}
    location["path"] = path or location["path"]
    options = DataOptions(**location, size=size_of(size), channels=3, convert=True, fit=fit.value)
    require_within("The longer side on a sample sheet", max(options.size), 4, 256)
    if out is not None and options.path:
        _require_outside(out, Path(options.path))
    dataset = load(options)
    kind = "grey" if dataset.source["channels"] == 1 else "colour"
    lines = [
        f"source      {options.source}{f' ({options.path})' if options.path else ''}",
        f"images      {dataset.train_count:,} for training, {len(dataset.test):,} for testing",
        f"pixels      {dataset.source['sizes']}, {kind}",
    ]
    if dataset.labels is not None:
        counts = [int((dataset.labels == i).sum()) for i in range(len(dataset.classes))]
        pairs = zip(dataset.classes, counts, strict=True)
        of = " (of the sample)" if dataset.train_count > len(dataset.train) else ""
        lines.append("classes     " + ", ".join(f"{name} {count:,}" for name, count in pairs) + of)
    if dataset.attributes is not None:
        shares = zip(dataset.attribute_names, dataset.attributes.mean(axis=0), strict=True)
        lines.append("attributes  " + ", ".join(f"{name} {share:.0%}" for name, share in shares))
    # The sheet is always in colour, so for an all-grey set the note about the conversion says nothing.
    notes = [note for note in dataset.notes if not (note.what == TO_COLOUR and dataset.source["channels"] == 1)]
    lines += [f"{note.kind:<11} {words}" for note, words in zip(notes, in_sentences(notes), strict=True)]
    lines += [f"            {name[:LONGEST]}: {reason}" for name, reason in list(dataset.left_out.items())[:SHOWN]]
    if len(dataset.left_out) > SHOWN:
        lines.append(f"            and {len(dataset.left_out) - SHOWN:,} more")
    sheet = datasheet(dataset, out or Path(path_part(f"{Path(data).stem}-sheet.png")))
    lines.append(f"sheet       {sheet}{'' if out else ', written to the current folder; --out names another place'}")
    echo("\n".join(lines))


@data_app.command("pack")
def data_pack(
    data: Annotated[
        str, typer.Argument(metavar="NAME_OR_PATH", help="a data source, a folder or zip, or .npy or .npz")
    ],
    out: Annotated[Path, typer.Option(help="the new folder of shards")],
    shard_size: Annotated[str, typer.Option(metavar="SIZE", help="size of a shard")] = "256MB",
    plugin: Plugins = None,
) -> None:
    """Pack images into tar shards (WebDataset), to be trained on as a stream from a disk or a store."""
    from zeuxis.data import choose
    from zeuxis.data.pack import pack, size_of
    from zeuxis.recipe import DataOptions

    location = {key.removeprefix("data."): value for key, value in choose(data).items()}
    packed = pack(DataOptions(**location), out, size_of(shard_size))
    for note in packed.notes:
        echo(f"{note.kind:<11} {note}")
    echo(f"images      {packed.train:,} for training, {packed.test:,} for testing, in {packed.shards:,} shards")
    echo(f"shards      {packed.folder}")
    say(f"Next: zeuxis train --data {quote(str(packed.folder))}, or copy the folder to a store and give its address.")


def _require_outside(out: Path, images: Path) -> None:
    """Raises a `UserError` if a sheet would be written among the images that it shows, or over one of them."""
    if out.resolve().is_relative_to(images.resolve()):
        raise UserError(f"{out} lies in {images}, whose images the sheet would join; choose another --out.")
