"""Sweep: a recipe trained over settings (`zeuxis.study.search`), and the trade-off between two measures."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from zeuxis.data import load
from zeuxis.errors import PrunedError, UserError, one_of, require_within
from zeuxis.evaluation.evaluate import applicable, evaluate_cached
from zeuxis.evaluation.measure import Value, by_name
from zeuxis.figures.style import write
from zeuxis.figures.sweep import Setting, sweep_figure
from zeuxis.files import make_folder, path_part
from zeuxis.models import build_model
from zeuxis.processes import Backend
from zeuxis.progress import say
from zeuxis.recipe import Recipe
from zeuxis.report import Comparison, comparison
from zeuxis.run import Run
from zeuxis.study.plan import Ended, Part, train_each, write_results
from zeuxis.study.pool import backend_on
from zeuxis.study.search import MOST_TRIALS, Axis, Search, Trial, Trials
from zeuxis.training import resolved

__all__ = ["sweep"]

# Optuna's record of a search in its folder.
JOURNAL = "search.journal"
# Default measures to draw against each other: the first two that apply.
SHOWN = ("test_mse", "fid", "sharpness", "elbo")


def sweep(
    recipe: Recipe,
    axes: Sequence[Axis],
    folder: Path,
    *,
    search: Search = "grid",
    trials: int | None = None,
    shown: Sequence[str] = (),
    samples: int = 2000,
    jobs: int | None = None,
    on: str = "local",
    prune: str = "",
    storage: str = "",
    progress: bool = True,
) -> Comparison:
    """Trains a recipe over settings, measures each run, and draws two measures against each other.

    Args:
        recipe: the recipe to vary.
        axes: its settings and their values.
        folder: where the runs, `sweep.html`, `sweep.png` and `sweep.json` go; the same call continues where it stopped.
        search: every combination, random samples, or samples where earlier ones did well by the second of `shown`.
        trials: number of trainings, for a random or tpe search; 12 by default.
        shown: two measures; by default the first two of test_mse, fid, sharpness and elbo that apply.
        samples: images that each run generates for the measures.
        jobs: trainings at once. A tpe search knows fewer results when it samples, so its settings depend on `jobs`.
        on: where they train, as of `train_all`.
        prune: `asha` or `hyperband`, by which trainings end early that do worse than others; none if empty.
        storage: where Optuna keeps a search with `prune` or by tpe: a database's address or a file; by default
            `search.journal` in the folder for `prune`, and in memory without.
        progress: show progress.

    Returns:
        The path of the report, and its table of measures.

    Raises:
        UserError: for unknown keys, values or measures, and as in `train_all`.
    """
    if len(shown) not in (0, 2):
        raise UserError(f"A sweep draws two measures against each other, not {len(shown)}; name two.")
    known = by_name()
    for name in shown:
        if name not in known:
            raise one_of("measure", name, known)
    if trials is not None and search == "grid":
        raise UserError(
            "A grid trains every combination, so a number of trials has no use: drop it, or search by random."
        )
    trials = 12 if trials is None else trials
    require_within("The number of trials", trials, 1, MOST_TRIALS)
    if not axes:
        raise UserError("A sweep needs a setting to vary: --over KEY=V1,V2,...")
    if repeated := {axis.key for axis in axes if sum(other.key == axis.key for other in axes) > 1}:
        raise UserError(f"{repeated.pop()} is varied twice; list all its values in a single --over.")
    _require_buildable(recipe, axes, folder)
    if prune and recipe.training.test_every == "never":
        raise UserError("To prune, trainings must be tested on the way; set training.test_every, now 'never'.")
    if prune and not storage:
        storage = str(make_folder(folder).absolute() / JOURNAL)
    of = f"{recipe.to_toml()} {list(shown)}"
    searched = Trials(axes, search, trials, recipe.training.seed, prune=prune, storage=storage, of=of)
    measured_runs: dict[str, tuple[Trial, Run, dict[str, Any]]] = {}
    pruned_runs: dict[str, tuple[Trial, PrunedError]] = {}
    with (
        backend_on(on, jobs, searched.total) as backend,
        closing(_trained(recipe, searched, folder, backend, progress)) as trainings,
    ):
        for trial, name, run in trainings:
            if isinstance(run, UserError):
                say(f"{name} is left out: {run}")
                if isinstance(run, PrunedError):
                    pruned_runs[name] = (trial, run)
                searched.tell(trial, None, pruned=isinstance(run, PrunedError))
                continue
            shown = shown or _default_measures(run)
            better = known[shown[1]].better
            if search == "tpe" and not better:
                raise UserError(
                    f"A search optimises the second measure, and '{shown[1]}' has no better direction; choose another."
                )
            evaluation = evaluate_cached(run, samples=samples, only=shown, progress=progress)
            measured = evaluation["measures"]
            if missing := [measure for measure in shown if measure not in measured]:
                reason = evaluation["left_out"][missing[0]]
                say(f"{name} is left out: {missing[0]} was not measured, because {reason}.")
                searched.tell(trial, None)
                continue
            searched.tell(trial, (-1.0 if better == "high" else 1.0) * measured[shown[1]]["value"])
            measured_runs.setdefault(name, (trial, run, measured))
    if len(measured_runs) < 2:
        reason = f"; {len(pruned_runs)} were pruned" if pruned_runs else ""
        raise UserError(f"A sweep compares at least two settings, and trained {len(measured_runs)}{reason}. Give more.")
    points = [
        Setting(name.replace(",", "  "), Value(**measured[shown[0]]), Value(**measured[shown[1]]), run)
        for name, (_, run, measured) in measured_runs.items()
    ]
    draw = partial(sweep_figure, points, recipe.name, shown[0], shown[1])
    compared = comparison(
        [run for _, run, _ in measured_runs.values()], folder / "sweep.html", samples=samples,
        labels=list(measured_runs), heading=f"{recipe.name} over {', '.join(axis.key for axis in axes)}",
        notes=[f"{name} was not measured: {reason}" for name, (_, reason) in pruned_runs.items()], drawn=[draw],
    )  # fmt: skip
    write(draw, folder / "sweep.png")
    # After the comparison, which has measured all that applies.
    write_results(
        [(run, {"settings": trial.settings}) for trial, run, _ in measured_runs.values()]
        + [
            (Run(folder / name, trust=recipe.trust), {"settings": trial.settings, "pruned": str(reason)})
            for name, (trial, reason) in pruned_runs.items()
        ],
        folder / "sweep.json",
    )
    return compared


def _trained(
    recipe: Recipe, searched: Trials, folder: Path, backend: Backend | None, progress: bool
) -> Generator[tuple[Trial, str, Run | Ended]]:
    """Trains the trials of a search, and yields each with its name and its run, or why it ended early."""
    searched.jobs = backend.jobs if backend else 1
    tried: list[Trial] = []

    def parts() -> Iterator[Part]:
        for trial in searched:
            tried.append(trial)
            name = path_part(",".join(f"{key.rpartition('.')[2]}={value}" for key, value in trial.settings.items()))
            yield Part(name, recipe.updated(trial.settings), trial.pruning)

    ahead = searched.jobs if searched.search == "tpe" else None
    trainings = train_each(parts(), folder, searched.total, backend=backend, ahead=ahead, progress=progress)
    with closing(trainings):
        for number, (part, run) in enumerate(trainings):
            yield tried[number], part.name, run


def _require_buildable(recipe: Recipe, axes: Sequence[Axis], folder: Path) -> None:
    """Builds the model at each value or end of a range, so that a wrong value is reported before training."""
    first = {axis.key: (axis.values or (axis.low,))[0] for axis in axes}
    for axis in axes:
        for value in axis.values or (axis.low, axis.high):
            candidate = resolved(recipe.updated(first | {axis.key: value}), folder)
            build_model(candidate, load(candidate.data, recipe=candidate.name).classes)


def _default_measures(run: Run) -> list[str]:
    available = applicable(run)
    names = [name for name in SHOWN if name in available][:2]
    if len(names) < 2:
        raise UserError(
            f"A sweep draws two measures, and of the default ones {run.path} has only {', '.join(names) or 'none'}; "
            f"name two with --measures, of {', '.join(available)}."
        )
    return sorted(
        names, key=lambda name: bool(by_name()[name].better)
    )  # the measure that a search optimises comes second
