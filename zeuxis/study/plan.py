"""Several trainings as one: finished ones are kept, interrupted ones continue, and several run at once if asked to."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from zeuxis.data import load
from zeuxis.errors import DivergedError, PrunedError, UserError, require_within
from zeuxis.evaluation.evaluate import read_evaluation
from zeuxis.files import make_folder, write_file
from zeuxis.models import build_model
from zeuxis.processes import Backend, stopped
from zeuxis.progress import say
from zeuxis.recipe import Recipe
from zeuxis.run import Run
from zeuxis.stores import list_below
from zeuxis.study.pool import Pool, backend_on
from zeuxis.study.pruning import Pruner, Pruning, pruned
from zeuxis.training import completed, finished, resolved, resume, start, trained_run

__all__ = ["Part", "repeats", "train_all", "train_each", "train_part", "write_results"]

# Largest number of trainings of one recipe that differ in their seed.
MOST_SEEDS = 1000


# A training that ended early, whose run is left out.
Ended = DivergedError | PrunedError


class Part(NamedTuple):
    """One training of several.

    Attributes:
        name: name of its folder.
        recipe: the recipe to train.
        pruning: what it needs to end early where others do better; None if it may not.
    """

    name: str
    recipe: Recipe
    pruning: Pruning | None = None


def repeats(part: Part, seeds: int) -> list[Part]:
    """Returns the same training with that many seeds, beginning with the recipe's own."""
    require_within("The number of seeds", seeds, 1, MOST_SEEDS)
    first = part.recipe.training.seed
    return [
        Part(f"{part.name}-seed-{seed}", part.recipe.updated({"training.seed": seed}))
        for seed in range(first, first + seeds)
    ]


def train_all(
    parts: Sequence[Part], folder: Path, *, jobs: int | None = None, on: str = "local", progress: bool = True
) -> dict[str, Run]:
    """Trains all parts into a folder; the same call continues where it was stopped.

    Args:
        parts: the trainings.
        folder: where their runs go.
        jobs: trainings at once, each in a process of its own with an equal share of the cores; by default one, or as
            many as the cluster holds.
        on: where they train: `local`, this machine; `ray` or `ray:HOST:PORT`, a Ray cluster (`zeuxis.cluster`).
        progress: show progress.

    Returns:
        Runs by the names of the parts, without those whose training diverged.

    Raises:
        UserError: if it is stopped, or if a part's folder holds a run with other settings.
    """
    runs: dict[str, Run] = {}
    with backend_on(on, jobs, len(parts)) as backend:
        for part, trained in train_each(parts, folder, len(parts), backend=backend, progress=progress):
            if isinstance(trained, UserError):
                say(f"{part.name} is left out: {trained}")
            else:
                runs[part.name] = trained
    return runs


def train_each(
    parts: Iterable[Part],
    folder: Path,
    total: int,
    *,
    backend: Backend | None = None,
    ahead: int | None = None,
    progress: bool = True,
) -> Generator[tuple[Part, Run | Ended]]:
    """Trains parts and yields each in order, with its run, or the error if it diverged or was pruned.

    Args:
        parts: the trainings; the next are asked for while earlier ones run.
        folder: where their runs go.
        total: their number.
        backend: where they train, several at once; in this process and one after another if None.
        ahead: how many are asked for before the first of them is yielded; all by default. In this process, it is one.
        progress: show progress.

    Raises:
        UserError: as in `train_all`.
    """
    list_below(folder)
    if backend is None:
        for number, part in enumerate(parts, 1):
            _tell(number, total, part, progress)
            trained: Run | Ended
            try:
                trained = train_part(part, folder, progress=progress)
            except (DivergedError, PrunedError) as error:
                trained = error
            yield part, trained
        return
    make_folder(folder)
    futures: dict[str, Future[None]] = {}
    waiting: deque[Part] = deque()
    with Pool(folder, backend, progress=progress) as pool:

        def first() -> tuple[Part, Run | Ended]:
            part = waiting.popleft()
            error = pool.outcome(futures[part.name]) if part.name in futures else _pruned(part, folder)
            return part, error or Run(folder / part.name, trust=part.recipe.trust)

        for number, part in enumerate(parts, 1):
            _tell(number, total, part, progress)
            waiting.append(part)
            if part.name not in futures and not _is_trained(part, folder) and not _pruned(part, folder):
                after = futures.get(trained_run(part.recipe))
                if after is None:
                    load(resolved(part.recipe, folder).data, recipe=part.recipe.name)  # decoded once, by no process
                futures[part.name] = pool.submit(part, after)
            if len(waiting) == ahead:
                yield first()
        while waiting:
            yield first()


def _tell(number: int, total: int, part: Part, progress: bool) -> None:
    if progress:
        say(part.name, lead=f"{number} of {total}  ")


def train_part(part: Part, folder: Path, *, progress: bool = True) -> Run:
    """Trains one part, resumes it, or returns its finished run; arguments as in `train_all`."""
    path, trust = folder / part.name, part.recipe.trust
    if _is_trained(part, folder):
        return Run(path, trust=trust)
    if early := _pruned(part, folder):
        raise early
    callbacks = [Pruner(part.pruning)] if part.pruning else []
    if path.is_dir():
        completed_budget = resume(path, trust=trust, visible=progress, callbacks=callbacks)
    else:
        completed_budget = start(part.recipe, folder, name=part.name, visible=progress, callbacks=callbacks)[1]
    if not completed_budget:
        raise _pruned(part, folder) or stopped(folder)
    return Run(path, trust=trust)


def _pruned(part: Part, folder: Path) -> PrunedError | None:
    """Returns the error of a part that was pruned and is not finished; None if it was not, or may not be pruned."""
    early = pruned(folder / part.name) if part.pruning else None
    return early if early and not finished(folder / part.name, part.recipe.trust) else None


def _is_trained(part: Part, folder: Path) -> bool:
    """Whether a part's run is finished.

    Raises:
        UserError: if its folder holds a run with other settings.
    """
    path = folder / part.name
    if not path.is_dir():
        return False
    trust = part.recipe.trust
    _require_same(part, Run(path, trust=trust), folder)
    return finished(path, trust)


def _require_same(part: Part, run: Run, folder: Path) -> None:
    recipe, trained = part.recipe, completed(run.recipe)
    if recipe.training.precision == "auto":  # chosen by the machine that trained it
        recipe = recipe.updated({"training.precision": trained.training.precision})
    expected = build_model(resolved(recipe, folder), run.classes).recipe
    if expected != trained:
        differing = _differing(expected.model_dump(), trained.model_dump())
        raise UserError(
            f"{run.path} was trained with other settings ({', '.join(differing)}): choose another folder (--out, or "
            "out= in Python), or remove this one."
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
