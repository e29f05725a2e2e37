"""A fair comparison in one command: several models on the same images, each for the same time or number of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zeuxis.data import SOURCES, choose, load
from zeuxis.errors import UserError, one_of, require_whole
from zeuxis.evaluation.cost import batches_a_step
from zeuxis.models import MODELS
from zeuxis.recipe import BUDGETS, Recipe, load_recipe, recipe_names, together
from zeuxis.report import Comparison, comparison
from zeuxis.run import Run
from zeuxis.sizing import size_of
from zeuxis.study.plan import Part, repeats, train_all, write_results
from zeuxis.training import finished
from zeuxis.trust import NOTHING, Trust

__all__ = ["benchmark", "compare", "recipe_for", "steps_for"]

# Most images that a training may read.
MOST_IMAGES = 10**12
# Default side of images that no recipe was written for.
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
    size: int | str | None = None,
    settings: Mapping[str, Any] | None = None,
    trust: Trust = NOTHING,
    jobs: int | None = None,
    on: str = "local",
    progress: bool = True,
) -> Comparison:
    """Trains models at one budget, measures them, and writes a report; the same call continues where it was stopped.

    Args:
        names: recipes, by name or TOML file, or models, for which their standard recipes on such images are used.
        data: name of a source, or a folder or zip file of images.
        folder: where the runs, `benchmark.html` and `benchmark.json` go.
        minutes: budget of each training, in time.
        images: budget of each training, in training images read.
        seeds: number of trainings of each, with consecutive seeds.
        samples: images that each run generates for the measures.
        size: of the images, a side in pixels or `"WIDTHxHEIGHT"`, for data that no recipe was written for.
        settings: further recipe settings, for all.
        trust: trust in the modules of runs that they are built on.
        jobs: trainings at once.
        on: where they train, as of `train_all`.
        progress: show progress.

    Returns:
        The path of the report, and its table of measures.

    Raises:
        UserError: for unknown models, two budgets or none; and as in `train_all`.
    """
    if (minutes is None) == (images is None):
        raise UserError("A benchmark needs one budget for all models: give --minutes or --images.")
    if images is not None:
        require_whole("The number of images", images, 1, MOST_IMAGES)
    settings = together(settings or {})
    if given := [name for name in BUDGETS if f"training.{name}" in settings]:
        raise UserError(f"training.{given[0]} is given besides the budget of the benchmark; drop it.")
    recipes = [recipe_for(name, data, size, settings) for name in names]
    recipes = [recipe.trusting(recipe.trust | trust) for recipe in recipes]
    if len({recipe.name for recipe in recipes}) < max(len(names), 2):
        raise UserError(
            f"A benchmark needs at least two different models, not {', '.join(names) or 'none'}. To repeat one: "
            f"zeuxis sweep {recipes[0].name if recipes else 'RECIPE'} --over training.seed=0,1,2."
        )
    if len({recipe.data.shape for recipe in recipes}) > 1:
        sizes = ", ".join(f"{recipe.name} {recipe.data.in_words}" for recipe in recipes)
        raise UserError(f"A benchmark needs images of one shape for all, and these differ: {sizes}.")
    parts = []
    for recipe in recipes:
        steps = None if images is None else steps_for(recipe, images)
        budget = {"training.steps": steps} if steps else {"training.minutes": minutes}
        parts.append(Part(recipe.name, recipe.updated(budget)))
    budget_text = f"{minutes:g} minutes" if minutes else f"{images:,} images"
    heading = f"{', '.join(names)} on {Path(data).name or data}, {budget_text} each"
    groups = [repeats(part, seeds) for part in parts]
    # Seed by seed, so that a benchmark stopped early has all models.
    seed_by_seed = [group[i] for i in range(seeds) for group in groups]
    runs = train_all(seed_by_seed, folder, jobs=jobs, on=on, progress=progress)
    columns, labels = [], []
    for part, group in zip(parts, groups, strict=True):
        if trained := [runs[repeat.name] for repeat in group if repeat.name in runs]:
            columns.append(trained)
            labels.append(part.name)
    compared = comparison(columns, folder / "benchmark.html", samples=samples, labels=labels, heading=heading)
    all_runs = [run for column in columns for run in column]
    write_results(
        [(run, {"recipe": run.recipe.name, "seed": run.recipe.training.seed}) for run in all_runs],
        folder / "benchmark.json",
    )
    return compared


def compare(runs: Sequence[Run], out: Path | None = None, *, seeds: int = 1, samples: int = 2000) -> Comparison:
    """Compares runs side by side; with several seeds, it first trains repeats of each beside them.

    Args:
        runs: at least two.
        out: the HTML file.
        seeds: number of trainings of each, including the run itself; a run `NAME` is repeated in `NAME-seed-N`.
        samples: images that each run generates for the measures.
    """
    groups = []
    for run in runs:
        if seeds > 1 and not finished(run.path, run.trust):
            raise UserError(f"{run.path} has not used up its budget, so it cannot be repeated; resume it first.")
        others = repeats(Part(run.name, run.recipe), seeds)[1:]
        groups.append([run, *train_all(others, run.path.parent).values()])
    return comparison(groups, out, samples=samples)


def steps_for(recipe: Recipe, images: int) -> int:
    """Returns the number of iterations that read at least as many training images."""
    dataset = load(recipe.data, recipe=recipe.name)
    a_step = min(recipe.training.batch_size, dataset.train_count) * batches_a_step(recipe, dataset.classes)
    return math.ceil(images / a_step)


def recipe_for(name: str, data: str, size: int | str | None, settings: Mapping[str, Any]) -> Recipe:
    """Returns a recipe, by name or file, or the standard recipe of a model on such images, with its data set to these.

    Raises:
        UserError: if there is no such recipe or model, or no standard recipe of the model for such images.
    """
    source_settings = choose(data)
    if name in recipe_names() or name.endswith(".toml"):
        return load_recipe(name, {**_data(load_recipe(name), source_settings), **settings})
    if name not in MODELS:
        raise one_of("model or recipe", name, [*MODELS, *recipe_names()])
    standard = [recipe for recipe in map(load_recipe, recipe_names()) if recipe.standard]
    on_this_data = [recipe for recipe in standard if "data.source" not in _data(recipe, source_settings)]
    width, height = size_of(size if size is not None else SIZE)
    shape = on_this_data[0].data.shape if on_this_data and size is None else (3, height, width)
    matching = [
        recipe for recipe in [*on_this_data, *standard] if recipe.data.shape == shape and recipe.model.name == name
    ]
    if not matching:
        others = sorted({recipe.model.name for recipe in standard if recipe.data.shape == shape})
        kind = "grey" if shape[0] == 1 else "colour"
        raise UserError(
            f"The model '{name}' has no standard recipe for {kind} images of {shape[2]}x{shape[1]} pixels; name a "
            f"recipe instead, or one of {', '.join(others) or 'another --size'}."
        )
    return load_recipe(matching[0].name, {**_data(matching[0], source_settings), **settings})


def _data(recipe: Recipe, source_settings: Mapping[str, str]) -> dict[str, Any]:
    """Returns settings that point a recipe at other data; none where it uses this data already."""
    source, path = source_settings["data.source"], Path(source_settings["data.path"]).name
    if recipe.data.source == source and (not path or Path(recipe.data.path).name == path):
        return {"data.path": source_settings["data.path"]} if path else {}
    flip = recipe.data.flip and SOURCES[source].mirrors
    return {**source_settings, "data.classes": [], "data.attribute": "", "data.convert": True, "data.flip": flip}
