"""Commands that make images with a run."""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from zeuxis.cli.shared import (
    Label,
    OutFolder,
    Plugins,
    RunName,
    Runs,
    SamplingOptions,
    Seed,
    Trusted,
    app,
    echo,
    names_in,
    open_run,
    samples_folder,
)
from zeuxis.errors import UserError
from zeuxis.files import require_output


class Picture(StrEnum):
    """Formats of figures."""

    png = "png"
    svg = "svg"
    pdf = "pdf"


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
    per_class: Annotated[bool, typer.Option("--per-class", help="write a folder for each class")] = False,
    zip_file: Annotated[
        Path | None, typer.Option("--zip", metavar="FILE", help="pack the images into a zip file as well")
    ] = None,
    settings: SamplingOptions = None,
    out: OutFolder = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Sample new images. Writes a folder of PNG files, and a grid beside it; after a kill, the same call continues."""
    from zeuxis.figures.export import save_samples, write_zip

    if zip_file is not None:
        require_output(zip_file, ".zip")
    opened = open_run(run, runs, trust, settings)
    suffix = f"-label-{label}" if label is not None else ""
    folder = out or samples_folder(opened, f"seed-{seed}{suffix}")
    echo(save_samples(opened, n, folder, seed=seed, label=label, scale=scale, per_class=per_class))
    if zip_file is not None:
        echo(write_zip(folder, zip_file))


@app.command()
def reconstruct(
    run: RunName,
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="image files of your own [default: test images]")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, max=1000, help="how many test images [default: 10]")] = None,
    label: Label = None,
    out: OutFolder = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Draw test images, or pictures of your own, above their reconstructions. Prints the mean squared error."""
    import numpy as np

    from zeuxis.evaluation import mean_squared_error
    from zeuxis.figures.export import save_images
    from zeuxis.progress import say

    if pictures and n is not None:
        raise UserError("-n is the number of test images, and you named pictures of your own; drop -n.")
    opened = open_run(run, runs, trust)
    if pictures:
        images = opened.read_files(pictures)
        again = opened.reconstruct(images, opened.condition_for(images, label))
        errors = np.square(images - again).mean(axis=(1, 2, 3))
        folder = out or samples_folder(opened, "pictures")
        grid = save_images(np.concatenate([images, again]), folder, len(images), ("picture", "reconstruction"))
        echo("\n".join([*(f"{path}: MSE {e:.6f}" for path, e in zip(pictures, errors, strict=True)), str(grid)]))
        return
    if label is not None:
        raise UserError("--label is the class of your own pictures; test images have one. Name pictures, or drop it.")
    all_images, labels = opened.test_images()
    error = mean_squared_error(all_images, opened.reconstruct(all_images, opened.condition_of_labels(labels)))
    images, labels = opened.test_images(n or 10)
    if n is not None and n > len(images):
        say(f"There are only {len(images):,} test images; all of them are drawn.")
    both = np.concatenate([images, opened.reconstruct(images, opened.condition_of_labels(labels))])
    grid = save_images(both, out or samples_folder(opened, "reconstructions"), len(images), ("image", "reconstruction"))
    echo(f"test MSE {error:.6f} over {len(all_images):,} images\n{grid}")


@app.command()
def interpolate(
    run: RunName,
    start: Annotated[
        str, typer.Option("--from", help="first image: a class, the seed of a latent, or latents as 0.5,-1")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="last image, in the same form")] = "",
    through: Annotated[
        str,
        typer.Option(metavar="PLACES", help="several places instead, as 3,8,1; as 0,0;0.5,-1 where they have commas"),
    ] = "",
    steps: Annotated[
        int | None, typer.Option(min=2, max=999, help="images from place to place [default: 10, or 48 in a film]")
    ] = None,
    film: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write a film, .mp4, .gif or .webp, that returns to its start")
    ] = None,
    fps: Annotated[int | None, typer.Option(min=1, max=60, help="a film's frames per second [default: 24]")] = None,
    seed: Annotated[int | None, typer.Option(help="seed of the latents, for classes [default: 1]")] = None,
    settings: SamplingOptions = None,
    out: OutFolder = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Draw rows of images from one latent or class to the next, or a film."""
    import numpy as np

    from zeuxis.figures.export import save_images
    from zeuxis.progress import say

    separator = ";" if ";" in through else ","
    places = [place.strip() for place in through.split(separator)] if through else [start, end]
    if bool(through) == bool(start or end) or not all(places) or len(places) < 2:
        raise UserError("Name two places with --from and --to, or several with --through, such as --through 3,8,1.")
    if film and out:
        raise UserError("--film names the file of the film, so --out has no use; drop it.")
    if fps and not film:
        raise UserError("--fps is the speed of a film; add --film FILE, or drop it.")
    opened = open_run(run, runs, trust, settings)
    if seed is not None and not opened.conditional:
        raise UserError(f"{opened.name} has no classes: its places give the latents, so --seed has no use; drop it.")
    seeds = not opened.conditional and "," not in "".join(places)
    if seeds:
        say(f"{opened.name} has no classes: {', '.join(places[:-1])} and {places[-1]} are the seeds of latents.")
    first = 1 if seed is None else seed
    if film:
        from zeuxis.figures.film import journey_film

        echo(journey_film(opened, places, film, steps=steps or 48, fps=fps or 24, seed=first))
        return
    columns = steps or 10
    rows = [opened.interpolate(*pair, steps=columns, seed=first) for pair in pairwise(places)]
    name = "-to-".join(f"seed-{place}" if seeds else place for place in places)
    echo(save_images(np.concatenate(rows), out or samples_folder(opened, f"from-{name}"), columns=columns))


@app.command()
def film(
    run: RunName,
    fps: Annotated[int, typer.Option(min=1, max=60, help="snapshots per second")] = 12,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the film: .mp4, .gif or .webp [default: RUN/film.gif]")
    ] = None,
    runs: Runs = None,
    trust: Trusted = False,
) -> None:
    """Film a training: how the samples of fixed latents changed."""
    from zeuxis.figures.film import training_film

    opened = open_run(run, runs, trust)
    echo(training_film(opened, out or opened.path / "film.gif", fps=fps))


@app.command()
def figures(
    run: RunName,
    only: Annotated[str, typer.Option(metavar="NAMES", help="draw only these figures, separated by commas")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="an option of a figure, such as points=2621")
    ] = None,
    form: Annotated[Picture, typer.Option("--format", help="format of the files")] = Picture.png,
    runs: Runs = None,
    trust: Trusted = False,
    plugin: Plugins = None,
) -> None:
    """Draw all figures that apply to a run, into its folder."""
    from zeuxis.figures import draw_all
    from zeuxis.recipe import parse_overrides

    options = parse_overrides(settings)
    paths = draw_all(open_run(run, runs, trust), only=names_in(only), options=options, form=form.value)
    echo("\n".join(map(str, paths.values())))
