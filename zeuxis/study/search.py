"""The settings of a sweep, one trial after another: a grid of values, random samples, or Optuna's tree-structured
Parzen estimator, which samples where earlier trainings did well.

A search is a function of its seed and of the measured values, so the same command gives the same settings again and
continues where it was stopped.

Source: J. Bergstra, R. Bardenet, Y. Bengio and B. Kegl, Algorithms for Hyper-Parameter Optimization, NeurIPS 2011.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from zeuxis.errors import UserError, one_of, require_within, shown
from zeuxis.recipe import BUDGETS, parse_override
from zeuxis.study.pruning import PRUNERS, Pruning, optuna_study

__all__ = ["Axis", "Search", "Trial", "Trials", "parse_axis", "require_apart"]

Search = Literal["grid", "random", "tpe"]
SEARCHES: tuple[Search, ...] = get_args(Search)
# Largest end of a range: beyond it, a float cannot tell neighbouring whole numbers apart.
FURTHEST, MOST_TRIALS = 1e15, 10_000


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

    @classmethod
    def of(cls, key: str, values: Sequence[Any]) -> Axis:
        """Returns an axis of values to try, after checking that there are some and that they differ."""
        if isinstance(values, str):
            raise UserError(f"The values of {key} should be a list, such as [1, 2, 4], not {shown(values)}.")
        if not values or len(set(map(str, values))) < len(values):
            listed = ",".join(map(str, values))
            raise UserError(f"{key} needs different values, such as {key}=1,2,4, not '{listed}'.")
        return cls(key, tuple(values))

    def sample(self, generator: np.random.Generator) -> Any:
        """Samples a value."""
        if self.values:
            return self.values[int(generator.integers(len(self.values)))]
        # Of whole numbers, each has the values that are rounded to it, the ends as well.
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        if self.low > 0:
            value = float(np.exp(generator.uniform(np.log(low), np.log(high))))
        else:
            value = float(generator.uniform(low, high))
        return self.rounded(value)

    def rounded(self, value: float) -> float:
        """Returns a value of the range with the digits that are tried: whole, or three."""
        return min(max(round(value) if self.whole else float(f"{value:.3g}"), self.low), self.high)

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
    return Axis.of(key, [parse_override(f"value={value}")[1] for value in text.split(",") if value.strip()])


def require_apart(axes: Sequence[Axis], settings: Mapping[str, Any]) -> None:
    """Raises a `UserError` if a setting that is varied has a value already, as an option or otherwise."""
    budgets = {f"training.{name}" for name in BUDGETS}
    for axis in axes:
        same = budgets & settings.keys() if axis.key in budgets else {axis.key} & settings.keys()
        if same:
            raise UserError(f"{axis.key} is varied, and {min(same)} is given as well. Give one of them.")


class Trial(NamedTuple):
    """Settings to train with.

    Attributes:
        number: of the trial, from 0.
        settings: values by dotted key.
        pruning: what the training needs to be pruned, if it may be.
    """

    number: int
    settings: dict[str, Any]
    pruning: Pruning | None = None


class Trials:
    """The trials of a search, which are yielded one after another; those that have ended are told to it.

    Args:
        axes: the settings to vary.
        search: the kind of search.
        most: number of trials, for a random or tpe search.
        seed: of the search.
        prune: one of `PRUNERS`, by which trials end early; none if empty.
        storage: where Optuna keeps the search, as of `optuna_study`.
        of: what is searched for, in words; a storage may keep several searches.

    Attributes:
        jobs: how many trials are trained at once.

    Raises:
        UserError: for a grid over a range, an unknown kind or pruner, and as in `optuna_study`.
    """

    def __init__(
        self,
        axes: Sequence[Axis],
        search: Search = "grid",
        most: int = 12,
        seed: int = 0,
        *,
        prune: str = "",
        storage: str = "",
        of: str = "",
    ) -> None:
        self.axes, self.search, self.most, self.seed, self.jobs = axes, search, most, seed, 1
        if search not in SEARCHES:
            raise one_of("search", search, SEARCHES)
        if prune and prune not in PRUNERS:
            raise one_of("pruner", prune, PRUNERS)
        if search == "grid" and (ranged := [axis.key for axis in axes if not axis.values]):
            raise UserError(f"A grid needs values, and {ranged[0]} is a range; list values, or use --search random.")
        if storage and not prune and search != "tpe":
            raise UserError("--storage keeps a search by tpe, or one with --prune; a grid or random samples need none.")
        if storage and "://" not in storage:
            storage = str(Path(storage).absolute())  # for processes that work elsewhere
        digest = hashlib.sha256(repr((of, search, seed, list(axes))).encode()).hexdigest()[:12]
        self._pruning = Pruning(storage, f"zeuxis-{digest}", 0, prune)
        self._study: Any = optuna_study(self._pruning.study, storage, prune) if prune or search == "tpe" else None

    @property
    def total(self) -> int:
        """Number of trials."""
        return math.prod(len(axis.values) for axis in self.axes) if self.search == "grid" else self.most

    def __iter__(self) -> Iterator[Trial]:
        listed = self._listed()
        for number in range(self.total):
            trial = self._trial(number) if self._study else None
            if self.search == "tpe":
                settings = {axis.key: _suggested(trial, axis) for axis in self.axes}
            else:
                settings = next(listed)
            pruning = self._pruning._replace(number=number) if self._pruning.pruner else None
            yield Trial(number, settings, pruning)

    def _listed(self) -> Iterator[dict[str, Any]]:
        """Yields the settings of a grid or of random samples."""
        if self.search == "grid":
            for values in product(*(axis.values for axis in self.axes)):
                yield dict(zip((axis.key for axis in self.axes), values, strict=True))
        generator = np.random.default_rng(self.seed)
        while True:
            yield {axis.key: axis.sample(generator) for axis in self.axes}

    def _trial(self, number: int) -> Any:
        """Returns Optuna's trial of a number: a known one of an earlier command, or a new one."""
        import optuna

        study = self._study
        known = study.get_trials(deepcopy=False)
        if number < len(known):
            trial = known[number]
            return trial if trial.state.is_finished() else optuna.trial.Trial(study, trial._trial_id)
        # A seed for each trial: the same samples after a stop. With several at once, a setting that is being trained
        # counts as a bad one: others are tried meanwhile.
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=max(self.most // 3, 3), constant_liar=self.jobs > 1
        )
        return study.ask()

    def tell(self, trial: Trial, value: float | None, *, pruned: bool = False) -> None:
        """Takes the value of a trial, which is minimised; None if it was pruned, diverged or could not be measured."""
        if self._study is None:
            return
        from optuna.trial import TrialState

        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.tell(trial.number, value, state, skip_if_finished=True)


def _suggested(trial: Any, axis: Axis) -> Any:
    if axis.values:
        return trial.suggest_categorical(axis.key, axis.values)
    if axis.whole:
        return trial.suggest_int(axis.key, axis.low, axis.high, log=axis.low > 0)
    return axis.rounded(trial.suggest_float(axis.key, axis.low, axis.high, log=axis.low > 0))
