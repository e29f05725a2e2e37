"""Sweep: a recipe trained over a range of settings, and the trade-off between two measures.

Settings come from a grid of values, from random sampling, or from Optuna's tree-structured Parzen estimator, which
samples where earlier trainings did well. A search is a function of its seed and of the measured values, so the same
command gives the same settings again and continues where it was stopped.

Source: J. Bergstra, R. Bardenet, Y. Bengio and B. Kegl, Algorithms for Hyper-Parameter Optimization, NeurIPS 2011.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from zeuxis.data import load
from zeuxis.errors import DivergedError, UserError, one_of, require_within
from zeuxis.evaluation.evaluate import applicable, evaluate_cached
from zeuxis.evaluation.measure import Value, by_name
from zeuxis.figures.style import write
from zeuxis.figures.sweep import Setting, sweep_figure
from zeuxis.files import path_part
from zeuxis.models import build_model
from zeuxis.progress import say
from zeuxis.recipe import Recipe, parse_override
from zeuxis.report import Comparison, comparison
from zeuxis.run import Run
from zeuxis.study.plan import Part, train_each, write_results
from zeuxis.training import resolved

__all__ = ["Axis", "Search", "parse_axis", "settings_of", "sweep"]

Search = Literal["grid", "random", "tpe"]
# Largest end of a range: beyond it, a float cannot tell neighbouring whole numbers apart.
FURTHEST, MOST_TRIALS = 1e15, 10_000
# Default measures to draw against each other: the first two that apply.
SHOWN = ("test_mse", "fid", "sharpness", "elbo")


class Axis(NamedTuple):
    """A setting to vary.

    Attributes:
        key: dotted key, such as `model.kl_weight`.
        values: values to try; empty for a range.
        low: lower end of a range.
        high: upper end of a range, which is sampled on a logarithmic scale where both ends are positive.
    """

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def sample(self, generator: np.random.Generator) -> Any:
        """Samples a value."""
        if self.values:
            return self.values[int(generator.integers(len(self.values)))]
        if self.low > 0:
            value = float(np.exp(generator.uniform(np.log(self.low), np.log(self.high))))
        else:
            value = float(generator.uniform(self.low, self.high))
        return round(value) if self.whole else float(f"{value:.3g}")

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def parse_axis(text: str) -> Axis:
    """Parses `KEY=V1,V2,...` or `KEY=LOW..HIGH`.

    Raises:
        UserError: for anything else.
    """
    key, values = parse_override(text)
    text = str(values)
    ends = [parse_override(f"end={end}")[1] for end in text.split("..")]
    if len(ends) == 2 and all(isinstance(end, int | float) for end in ends):
        for end in ends:
            require_within(f"An end of the range of {key}", end, -FURTHEST, FURTHEST)
        if ends[0] >= ends[1]:
            raise UserError(f"'{text}' is not a range for {key}; write LOW..HIGH, such as 0.01..10.")
        return Axis(key, (), *ends)
    listed = [parse_override(f"value={value}")[1] for value in text.split(",") if value.strip()]
    if not listed or len(set(map(str, listed))) < len(listed):
        raise UserError(f"{key} needs different values, such as {key}=1,2,4, not '{text}'.")
    return Axis(key, tuple(listed))


def settings_of(
    axes: Sequence[Axis], search: Search, trials: int, seed: int, minimised: Mapping[int, float | None], jobs: int = 1
) -> Iterator[dict[str, Any]]:
    """Yields settings to train with, one after another.

    Args:
        axes: the settings to vary.
        search: the kind of search.
        trials: number of settings, for a random or tpe search.
        seed: of the search.
        minimised: values to minimise, by the number of their settings, None for a failure; read before the next
            settings are yielded.
        jobs: how many settings are trained at once.

    Raises:
        UserError: for a grid over a range, or if Optuna is not installed.
    """
    keys = [axis.key for axis in axes]
    if search == "grid":
        if ranged := [axis.key for axis in axes if not axis.values]:
            raise UserError(f"A grid needs values, and {ranged[0]} is a range; list values, or use --search random.")
        for values in product(*(axis.values for axis in axes)):
            yield dict(zip(keys, values, strict=True))
    elif search == "random":
        generator = np.random.default_rng(seed)
        for _ in range(trials):
            yield {axis.key: axis.sample(generator) for axis in axes}
    else:
        yield from _estimated(axes, trials, seed, minimised, jobs)


def _estimated(
    axes: Sequence[Axis], trials: int, seed: int, minimised: Mapping[int, float | None], jobs: int
) -> Iterator[dict[str, Any]]:
    try:
        import optuna
    except ImportError as error:
        raise UserError("--search tpe needs Optuna: pip install 'zeuxis[search]'; or use --search random.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # With several at once, a setting that is being trained counts as a bad one: others are tried meanwhile.
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(trials // 3, 3), constant_liar=jobs > 1)
    study = optuna.create_study(sampler=sampler)
    asked: dict[int, Any] = {}
    for number in range(trials):
        for done in [earlier for earlier in asked if earlier in minimised]:
            trial, value = asked.pop(done), minimised[done]
            if value is not None:
                study.tell(trial, value)
            else:  # diverged, or could not be measured
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        asked[number] = study.ask()
        yield {axis.key: _suggested(asked[number], axis) for axis in axes}


def _suggested(trial: Any, axis: Axis) -> Any:
    if axis.values:
        return trial.suggest_categorical(axis.key, axis.values)
    if axis.whole:
        return trial.suggest_int(axis.key, axis.low, axis.high, log=axis.low > 0)
    return float(f"{trial.suggest_float(axis.key, axis.low, axis.high, log=axis.low > 0):.3g}")


def sweep(
    recipe: Recipe,
    axes: Sequence[Axis],
    folder: Path,
    *,
    search: Search = "grid",
    trials: int = 12,
    shown: Sequence[str] = (),
    samples: int = 2000,
    jobs: int = 1,
    progress: bool = True,
) -> Comparison:
    """Trains a recipe over settings, measures each run, and draws two measures against each other.

    Args:
        recipe: the recipe to vary.
        axes: its settings and their values.
        folder: where the runs, `sweep.html`, `sweep.png` and `sweep.json` go; the same call continues where it stopped.
        search: every combination, random samples, or samples where earlier ones did well by the second of `shown`.
        trials: number of trainings, for a random or tpe search.
        shown: two measures; by default the first two of test_mse, fid, sharpness and elbo that apply.
        samples: images that each run generates for the measures.
        jobs: trainings at once. A tpe search knows fewer results when it samples, so its settings depend on `jobs`.
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
    require_within("The number of trials", trials, 1, MOST_TRIALS)
    if not axes:
        raise UserError("A sweep needs a setting to vary: --over KEY=V1,V2,...")
    if repeated := {axis.key for axis in axes if sum(other.key == axis.key for other in axes) > 1}:
        raise UserError(f"{repeated.pop()} is varied twice; list all its values in a single --over.")
    _require_buildable(recipe, axes, folder)
    minimised: dict[int, float | None] = {}
    measured_runs: list[tuple[dict[str, Any], Run, dict[str, Any]]] = []
    tried: list[dict[str, Any]] = []

    def parts() -> Iterator[Part]:
        for settings in settings_of(axes, search, trials, recipe.training.seed, minimised, jobs):
            tried.append(settings)
            name = path_part(",".join(f"{key.rpartition('.')[2]}={value}" for key, value in settings.items()))
            yield Part(name, recipe.updated(settings))

    total = int(np.prod([len(axis.values) for axis in axes])) if search == "grid" else trials
    ahead = jobs if search == "tpe" else None
    with closing(train_each(parts(), folder, total, jobs=jobs, ahead=ahead, progress=progress)) as trainings:
        for number, (part, run) in enumerate(trainings):
            minimised[number] = None
            if isinstance(run, DivergedError):
                say(f"{part.name} is left out: {run}")
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
                say(f"{part.name} is left out: {missing[0]} was not measured, because {reason}.")
                continue
            minimised[number] = (-1.0 if better == "high" else 1.0) * measured[shown[1]]["value"]
            if run.name not in {run.name for _, run, _ in measured_runs}:
                measured_runs.append((tried[number], run, measured))
    if len(measured_runs) < 2:
        raise UserError("A sweep needs at least two settings; give more values.")
    points = [
        Setting(run.name.replace(",", "  "), Value(**measured[shown[0]]), Value(**measured[shown[1]]), run)
        for _, run, measured in measured_runs
    ]
    draw = partial(sweep_figure, points, recipe.name, shown[0], shown[1])
    varied = ", ".join(axis.key for axis in axes)
    runs = [run for _, run, _ in measured_runs]
    compared = comparison(
        runs, folder / "sweep.html", samples=samples, labels=[run.name for run in runs],
        heading=f"{recipe.name} over {varied}", drawn=[draw],
    )  # fmt: skip
    write(draw, folder / "sweep.png")
    # After the comparison, which has measured all that applies.
    write_results([(run, {"settings": settings}) for settings, run, _ in measured_runs], folder / "sweep.json")
    return compared


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
