"""Commands that take a user's own pictures into latent space."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from zeuxis.cli.shared import (
    Label,
    OutFolder,
    Pictures,
    RunName,
    Runs,
    SamplingOptions,
    Seed,
    Trusted,
    app,
    echo,
    open_run,
    samples_folder,
)
from zeuxis.errors import UserError, quoted


@app.command()
def encode(
    run: RunName,
    pictures: Pictures,
    label: Label = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write the latents to this file: .npy or .json")
    ] = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Encode your own pictures. Prints their latents as JSON, or writes them to a file."""
    import numpy as np

    from zeuxis.files import require_output, write_file

    if out is not None:
        require_output(out, ".npy", ".json")
    latents = open_run(run, runs, trust).encode_files(pictures, label=label)
    if out is not None and out.suffix.lower() == ".npy":
        echo(write_file(out, lambda path: np.save(path, latents)))
        return
    text = json.dumps({str(path): row for path, row in zip(pictures, latents.tolist(), strict=True)}, indent=1)
    echo(text if out is None else write_file(out, text))


@app.command()
def project(
    run: RunName,
    pictures: Pictures,
    label: Label = None,
    starts: Annotated[
        int, typer.Option(min=64, max=100_000, help="random latents, of which the best are followed")
    ] = 512,
    steps: Annotated[int, typer.Option(min=4, max=100_000, help="steps of the search")] = 200,
    seed: Seed = 1,
    settings: SamplingOptions = None,
    out: OutFolder = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Search the latents whose images are nearest to your own pictures. Writes latents, pictures and a film each."""
    from zeuxis.figures.projection import save_projection
    from zeuxis.files import path_part, require_folder
    from zeuxis.latent import project as search

    opened = open_run(run, runs, trust, settings)
    root = require_folder(out or samples_folder(opened, "projections"))
    names = [path_part(path.stem) for path in pictures]
    if twin := next((name for name in names if names.count(name) > 1), ""):
        raise UserError(f"Several pictures are named '{twin}', and each needs a folder of its own; rename them.")
    for path, name, picture in zip(pictures, names, opened.read_files(pictures), strict=True):
        found = search(opened, picture, label=label, starts=starts, steps=steps, seed=seed)
        of = f", {found.label}" if found.label else ""
        echo(
            f"{path}{of}: MSE {found.mse:.5f} (best start {found.start_mse:.5f}), distance {found.distance:.4g} (best "
            f"start {found.start_distance:.4g}) in features of {found.features}, {found.seconds:.1f} s"
        )
        echo("\n".join(map(str, save_projection(opened, found, root / name))))


@app.command()
def edit(
    run: RunName,
    pictures: Pictures,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", metavar="NAME=STEPS", help="an attribute or class of the images, as Smiling=+1.5"),
    ] = None,
    direction: Annotated[
        list[str] | None,
        typer.Option("--direction", metavar="NUMBER=STEPS", help="a direction of the figure `directions`, as 3=+2"),
    ] = None,
    label: Label = None,
    settings: SamplingOptions = None,
    out: OutFolder = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Change your own pictures along directions in latent space.

    Draws the pictures, how the model shows them, and how it shows them edited, in three rows.
    """
    import numpy as np

    from zeuxis.figures.export import save_images
    from zeuxis.latent import edit as move
    from zeuxis.recipe import together

    attributes = together(
        *({name: steps} for name, steps in (_steps(text, "Smiling=+1.5") for text in attribute or []))
    )
    numbers = together(*({name: steps} for name, steps in (_steps(text, "3=+2") for text in direction or [])))
    along = {_number(name): steps for name, steps in numbers.items()}
    opened = open_run(run, runs, trust, settings)
    images = opened.read_files(pictures)
    shown, edited = move(opened, images, attributes=attributes, along=along, label=label)
    rows = np.concatenate([images, shown, edited])
    folder = out or samples_folder(opened, "-".join(["edit", *(attribute or []), *(direction or [])]))
    echo(save_images(rows, folder, len(images), ("picture", "reconstruction", "edit")))


def _steps(text: str, example: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    with suppress(ValueError):
        if name.strip():
            return name.strip(), float(value)
    raise UserError(f"'{quoted(text)}' should be a name and a number of steps, as {example}.")


def _number(name: str) -> int:
    if not name.isdecimal():
        raise UserError(f"The number of a direction is a whole number from 1 on, as 3=+2, not '{quoted(name)}'.")
    return int(name)
