"""Several trainings as one job: finished ones are kept, and interrupted ones continue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zeuxis.errors import DivergedError, StoppedError, UserError, require_within
from zeuxis.evaluation.evaluate import read_evaluation
from zeuxis.files import write_file
from zeuxis.models import build_model
from zeuxis.progress import say
from zeuxis.recipe import Recipe
from zeuxis.run import Run
from zeuxis.training import completed, finished, resolved, resume, start

__all__ = ["Part", "repeats", "train_all", "train_part", "write_results"]


# Largest number of trainings of one recipe that differ in their seed.
MOST_SEEDS = 1000


class Part(NamedTuple):
    """One training of several.

    Attributes:
        name: name of its folder.
        recipe: the recipe to train.
    """

    name: str
    recipe: Recipe


def repeats(part: Part, seeds: int) -> list[Part]:
    """Returns the same training with that many seeds, beginning with the recipe's own."""
    require_within("The number of seeds", seeds, 1, MOST_SEEDS)
    first = part.recipe.training.seed
    return [
        Part(f"{part.name}-seed-{seed}", part.recipe.updated({"training.seed": seed}))
        for seed in range(first, first + seeds)
    ]


def train_all(parts: Sequence[Part], folder: Path, *, progress: bool = True) -> dict[str, Run]:
    """Trains all parts into a folder, one after another; the same call continues where it was stopped.

    Returns:
        Runs by the names of the parts, without those whose training diverged.

    Raises:
        UserError: if it is stopped, or if a part's folder holds a run with other settings.
    """
    runs: dict[str, Run] = {}
    for number, part in enumerate(parts, 1):
        if progress:
            say(part.name, lead=f"{number} of {len(parts)}  ")
        try:
            runs[part.name] = train_part(part, folder, progress=progress)
        except DivergedError as error:
            say(f"{part.name} is left out: {error}")
    return runs


def train_part(part: Part, folder: Path, *, progress: bool = True) -> Run:
    """Trains one part, resumes it, or returns its finished run; arguments as in `train_all`."""
    path, trust = folder / part.name, part.recipe.trust
    if path.is_dir():
        _require_same(part, Run(path), folder)
        if finished(path):
            return Run(path, trust=trust)
    if path.is_dir():
        completed_budget = resume(path, trust=trust, visible=progress)
    else:
        completed_budget = start(part.recipe, folder, name=part.name, visible=progress)[1]
    if not completed_budget:
        raise StoppedError(f"Stopped. Run the same command again to continue with the runs in {folder}.")
    return Run(path, trust=trust)


def _require_same(part: Part, run: Run, folder: Path) -> None:
    expected, trained = build_model(resolved(part.recipe, folder), run.classes).recipe, completed(run.recipe)
    if expected != trained:
        differing = _differing(expected.model_dump(), trained.model_dump())
        raise UserError(
            f"{run.path} was trained with other settings ({', '.join(differing)}); choose another folder with --out, "
            "or remove it."
        )


def _differing(first: Mapping[str, object], second: Mapping[str, object], prefix: str = "") -> list[str]:
    """Returns the dotted keys in which two trees differ."""
    keys = []
    for key in sorted({*first, *second}):
        a, b = first.get(key), second.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            keys += _differing(a, b, f"{prefix}{key}.")
        elif a != b:
            keys.append(prefix + key)
    return keys


def write_results(runs: Sequence[tuple[Run, dict[str, Any]]], path: Path) -> None:
    """Writes a list with what is known of each run, its name, and its measures."""
    rows = [
        {**known, "run": run.name, "measures": (read_evaluation(run) or {}).get("measures", {})} for run, known in runs
    ]
    write_file(path, json.dumps(rows, indent=1) + "\n")
