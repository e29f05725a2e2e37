"""Measures by name: every module of this package may register one.

A measure looks at a run through a `Material`: its samples, the images they are held against, and the features of
both, each made once and shared by all measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from zeuxis.data import to_bytes
from zeuxis.evaluation.judge import Judge, judge_name
from zeuxis.registry import Registry
from zeuxis.run import Run

__all__ = [
    "Figures",
    "Material",
    "Measure",
    "Value",
    "as_text",
    "by_name",
    "has_classifier",
    "has_judge",
    "jackknife",
    "measure",
    "measures",
    "pieces",
    "too_few",
]

# Held-out images that are enough to hold samples against; where there are fewer, the training images serve.
ENOUGH = 2000
CHUNK = 1000


T = TypeVar("T")


def as_text(value: float) -> str:
    """A figure for people: four digits, or all that a large one has before the point."""
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


class Value(NamedTuple):
    """What a measure found.

    Attributes:
        value: the figure.
        stderr: its standard error, as far as the draw of samples or images goes; None where it is not known.
        n: samples or images it was taken from.
        features: the network in whose features a distance was measured.
        at_least: whether it may be larger, for all that so many samples tell.
        groups: how many parts of them, or repeats, the error comes from; 0 where it comes from each of n.
    """

    value: float
    stderr: float | None = None
    n: int = 0
    features: str | None = None
    at_least: bool = False
    groups: int = 0

    @classmethod
    def mean(cls, each: np.ndarray, features: str | None = None) -> Value:
        """The mean of `(N,)` figures that were found independently, with its standard error; of one, without."""
        n = len(each)
        return cls(float(each.mean()), float(each.std(ddof=1) / np.sqrt(n)) if n > 1 else None, n, features)


class Material:
    """What a run is measured by.

    Args:
        run: the run.
        samples: how many images it makes.
        seed: of their latents.
        judge: in whose features distances are measured, and who names classes if it can.
    """

    def __init__(self, run: Run, *, samples: int = 10_000, seed: int = 0, judge: Judge | None = None) -> None:
        self.run, self.n, self.seed, self.judge = run, samples, seed, judge
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Returns what `make` gives, computed once and shared by measures."""
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made

    def with_judge(self, judge: Judge) -> Material:
        """The same samples and images, with another judge."""
        other = Material(self.run, samples=self.n, seed=self.seed, judge=judge)
        other.samples, other.reference = self.samples, self.reference
        return other

    @cached_property
    def samples(self) -> np.ndarray:
        """New images, `(N, H, W, C)` of bytes, as they would be saved; of all classes in turn."""
        return to_bytes(self.run.sample(self.n, seed=self.seed))

    @cached_property
    def reference(self) -> np.ndarray:
        """Images to hold samples against, `(M, H, W, C)` of bytes: held out if there are enough, else trained on."""
        run = self.run
        part = "test" if len(run.dataset.test) >= ENOUGH else "train"
        chosen = run.choose_images(part, self.n)
        return np.concatenate([to_bytes(run.images(some)) for some in pieces(chosen)])

    @cached_property
    def sample_features(self) -> np.ndarray:
        """Features of the samples, `(N, F)`."""
        return self.features(self.samples)

    @cached_property
    def reference_features(self) -> np.ndarray:
        """Features of the images they are held against, `(M, F)`."""
        return self.features(self.reference)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The judge's class probabilities of the samples, `(N, K)`."""
        return self.classifier.classify(self.samples)

    @cached_property
    def reference_probabilities(self) -> np.ndarray:
        """The same of the images they are held against, `(M, K)`."""
        return self.classifier.classify(self.reference)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features of images, `(N, F)`, in float64."""
        return self._judge.features(images).astype(np.float64)

    @property
    def _judge(self) -> Judge:
        assert self.judge is not None, "a measure that needs a judge asks for one"
        return self.judge

    @property
    def classifier(self) -> Run:
        """The judge, where it tells classes apart."""
        assert isinstance(self.judge, Run), "a measure that needs classes asks for them"
        return self.judge

    @property
    def space(self) -> str:
        """Name of the features."""
        return judge_name(self._judge)


def pieces(array: np.ndarray, size: int = CHUNK) -> Iterator[np.ndarray]:
    """Yields an array in parts of a size that memory bears."""
    for start in range(0, len(array), size):
        yield array[start : start + size]


# What a measure finds, by name: a figure, or the reason why it cannot be had.
Figures = Mapping[str, Value | str]
Take = Callable[[Material], Figures]


def too_few(needed: int, n: int, what: str) -> str:
    """The reason why a figure cannot be had of n images; "" where they are enough."""
    return "" if n >= needed else f"it needs at least {needed} {what}, and there {'is' if n == 1 else 'are'} {n}"


@dataclass(frozen=True)
class Measure:
    """A measure.

    Attributes:
        name: of its first figure; a measure may find several.
        gives: what it finds: name and meaning, with the unit.
        better: which way its figures are better; "" for those that describe.
        applies: whether it can be taken of this material.
        take: takes it.
    """

    name: str
    gives: Mapping[str, str]
    better: Literal["low", "high", ""]
    applies: Callable[[Material], bool]
    take: Take


MEASURES: Registry[Measure] = Registry("measure", "zeuxis.evaluation")


def measure(
    *, gives: Mapping[str, str], better: Literal["low", "high", ""], applies: Callable[[Material], bool]
) -> Callable[[Take], Take]:
    """Registers a function as a measure, under the name of the first figure that it gives."""

    def register(take: Take) -> Take:
        name = next(iter(gives))
        MEASURES.register(name, Measure(name, gives, better, applies, take), take.__module__)
        return take

    return register


def measures() -> list[Measure]:
    """Returns all measures by name."""
    return MEASURES.values()


def by_name() -> dict[str, Measure]:
    """Returns the measure that gives each figure, by the figure's name."""
    return {name: each for each in measures() for name in each.gives}


def has_judge(material: Material) -> bool:
    """Whether samples can be measured in features."""
    return material.run.generates and material.judge is not None


def has_classifier(material: Material) -> bool:
    """Whether the classes of samples can be told."""
    return material.run.generates and isinstance(material.judge, Run)


def jackknife(groups: int, n: int, statistic: Callable[[np.ndarray], float]) -> float:
    """Standard error of a statistic of n samples, by leaving out a group of them at a time.

    Args:
        groups: how many groups.
        n: samples.
        statistic: the figure for a mask `(n,)` of the samples that stay.

    Source: B. Efron and C. Stein, The jackknife estimate of variance, Annals of Statistics 9, 1981.
    """
    # At random: samples of a conditional model come in the order of their classes.
    member = np.random.default_rng(0).permutation(n) % groups
    without = np.array([statistic(member != group) for group in range(groups)])
    return float(np.sqrt((groups - 1) / groups * np.square(without - without.mean()).sum()))
