"""Commands that take a user's own pictures into latent space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from zeuxis.cli.shared import (
    Label,
    Out,
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
from zeuxis.errors import UserError


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

    from zeuxis.files import write_file

    if out is not None and out.suffix.lower() not in (".npy", ".json"):
        raise UserError(f"{out} should end in .npy or .json.")
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
    out: Out = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Search the latents whose images are nearest to your own pictures. Writes latents, pictures and a film each."""
    from zeuxis.figures.film import save_projection
    from zeuxis.files import make_folder, path_part
    from zeuxis.latent import project as search

    opened = open_run(run, runs, trust, settings)
    root = make_folder(out) if out else samples_folder(opened, "projections")
    for path, picture in zip(pictures, opened.read_files(pictures), strict=True):
        found = search(opened, picture, label=label, starts=starts, steps=steps, seed=seed)
        of = f", {found.label}" if found.label else ""
        echo(
            f"{path}{of}: MSE {found.mse:.5f} (best start {found.start_mse:.5f}), distance {found.distance:.4g} (best "
            f"start {found.start_distance:.4g}) in features of {found.features}, {found.seconds:.1f} s"
        )
        echo("\n".join(map(str, save_projection(found, root / path_part(path.stem)))))
