"""A fair comparison in one command: several models on the same images, each for the same time or as many images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zeuxis.data import SOURCES, choose, load
from zeuxis.errors import UserError, one_of
from zeuxis.models import MODELS, build_model
from zeuxis.recipe import Recipe, load_recipe, recipe_names
from zeuxis.report import comparison
from zeuxis.run import Run
from zeuxis.study.plan import Part, repeats, train_all, write_results
from zeuxis.training import finished
from zeuxis.trust import NOTHING, Trust

__all__ = ["benchmark", "compare", "recipe_for", "steps_for"]

# Side of images that no recipe was written for, where none is asked for.
SIZE = 64


def benchmark(
    names: Sequence[str],
    data: str,
    folder: Path,
    *,
    minutes: float | None = None,
    images: int | None = None,
    seeds: int = 1,
    samples: int = 2000,
    size: int | None = None,
    settings: Mapping[str, Any] | None = None,
    trust: Trust = NOTHING,
    progress: bool = True,
) -> Path:
    """Trains models at one budget, measures them, and writes a report; the same call goes on where it was stopped.

    Args:
        names: models, each in the recipe that stands for it on such images, or recipes.
        data: a source's name, or a folder or zip of images.
        folder: for the runs, `benchmark.html` and `benchmark.json`.
        minutes: budget of each training, in time.
        images: budget of each training, in training images read.
        seeds: trainings of each, from seed to seed.
        samples: images that each makes to be measured.
        size: side of the images, for data that no recipe was written for.
        settings: further recipe settings of all.
        trust: in modules of runs that they are built on.
        progress: show what happens.

    Returns:
        The path of the report.

    Raises:
        UserError: for unknown models, two budgets or none; and as `train_all`.
    """
    if (minutes is None) == (images is None):
        raise UserError("A benchmark needs one budget for all: --minutes or --images.")
    recipes = [recipe_for(name, data, size, settings or {}) for name in names]
    recipes = [recipe.trusting(recipe.trust | trust) for recipe in recipes]
    if len({recipe.name for recipe in recipes}) < max(len(names), 2):
        raise UserError(f"A benchmark needs at least two different models, not {', '.join(names) or 'none'}.")
    if len({recipe.data.shape for recipe in recipes}) > 1:
        sizes = ", ".join(f"{recipe.name} {'x'.join(map(str, recipe.data.shape))}" for recipe in recipes)
        raise UserError(f"A benchmark needs images of one shape for all, and these differ (channels x size): {sizes}.")
    parts = []
    for recipe in recipes:
        steps = None if images is None else steps_for(recipe, images)
        budget = {"training.steps": steps} if steps else {"training.minutes": minutes}
        parts.append(Part(recipe.name, recipe.updated(budget)))
    spent = f"{minutes:g} minutes" if minutes else f"{images:,} images"
    heading = f"{', '.join(names)} on {Path(data).name or data}, {spent} each"
    groups = [repeats(part, seeds) for part in parts]
    # Seed by seed, so that whoever stops early has every model.
    runs = train_all([group[i] for i in range(seeds) for group in groups], folder, progress=progress)
    columns, labels = [], []
    for part, group in zip(parts, groups, strict=True):
        if trained := [runs[each.name] for each in group if each.name in runs]:
            columns.append(trained)
            labels.append(part.name)
    path = comparison(columns, folder / "benchmark.html", samples=samples, labels=labels, heading=heading)
    everyone = [run for column in columns for run in column]
    write_results(
        [(run, {"recipe": run.recipe.name, "seed": run.recipe.training.seed}) for run in everyone],
        folder / "benchmark.json",
    )
    return path


def compare(runs: Sequence[Run], out: Path | None = None, *, seeds: int = 1, samples: int = 2000) -> Path:
    """Puts runs side by side; with several seeds, trains repeats of each beside them first.

    Args:
        runs: at least two.
        out: the HTML file.
        seeds: trainings of each, the run itself among them; a run `NAME` is repeated in `NAME-seed-N` beside it.
        samples: images that each makes to be measured.
    """
    groups = []
    for run in runs:
        if not finished(run.path) and seeds > 1:
            raise UserError(f"{run.path} has not used up its budget, so it cannot be repeated; resume it first.")
        others = repeats(Part(run.name, run.recipe), seeds)[1:]
        groups.append([run, *train_all(others, run.path.parent).values()])
    return comparison(groups, out, samples=samples)


def steps_for(recipe: Recipe, images: int) -> int:
    """Iterations that read at least as many training images."""
    dataset = load(recipe.data, recipe=recipe.name)
    repeat = max(phase.repeat for phase in build_model(recipe, dataset.classes).phases)
    return math.ceil(images / (min(recipe.training.batch_size, len(dataset.train)) * repeat))


def recipe_for(name: str, data: str, size: int | None, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of this name, or that which stands for a model on such images; with its data set to these.

    Raises:
        UserError: if there is neither, or none of that model for such images.
    """
    chosen = choose(data)
    if name in recipe_names():
        return load_recipe(name, {**_data(load_recipe(name), chosen), **settings})
    if name not in MODELS:
        raise one_of("model or recipe", name, [*MODELS, *recipe_names()])
    standard = [recipe for recipe in map(load_recipe, recipe_names()) if recipe.standard]
    theirs = [recipe for recipe in standard if "data.source" not in _data(recipe, chosen)]
    shape = theirs[0].data.shape if theirs and size is None else (3, size or SIZE, size or SIZE)
    alike = [recipe for recipe in [*theirs, *standard] if recipe.data.shape == shape and recipe.model.name == name]
    if not alike:
        others = sorted({recipe.model.name for recipe in standard if recipe.data.shape == shape})
        kind = "grey" if shape[0] == 1 else "colour"
        raise UserError(
            f"No recipe stands for the model '{name}' on {kind} images of {shape[1]}x{shape[2]} pixels; name a recipe "
            f"instead, or one of {', '.join(others) or 'another --size'}."
        )
    return load_recipe(alike[0].name, {**_data(alike[0], chosen), **settings})


def _data(recipe: Recipe, chosen: Mapping[str, str]) -> dict[str, Any]:
    """Settings that point a recipe at other data; none where it is of these already."""
    source, path = chosen["data.source"], Path(chosen["data.path"]).name
    if recipe.data.source == source and (not path or Path(recipe.data.path).name == path):
        return {"data.path": chosen["data.path"]} if path else {}
    flip = recipe.data.flip and SOURCES[source].mirrors
    return {**chosen, "data.classes": [], "data.attribute": "", "data.convert": True, "data.flip": flip}
