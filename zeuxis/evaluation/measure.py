"""The registry of measures; every module of this package may register some.

A measure sees a run through a `Material`: its samples, the reference images with which they are compared, and the
features of both. Each is computed once and shared by all measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from zeuxis.data import to_bytes
from zeuxis.evaluation.feature_cache import judge_images, judge_images_once
from zeuxis.evaluation.judge import Judge, judge_name
from zeuxis.registry import Registry
from zeuxis.run import Run

__all__ = [
    "ARROWS",
    "ROUNDING",
    "Figures",
    "Material",
    "Measure",
    "Value",
    "as_text",
    "by_name",
    "chosen",
    "error_as_text",
    "figure_as_text",
    "has_classifier",
    "has_classifier_of_its_classes",
    "has_judge",
    "jackknife",
    "measure",
    "measures",
    "pieces",
    "too_few",
    "with_error",
]

# Fewest held-out images that serve as reference; if there are fewer, training images do.
ENOUGH = 2000
CHUNK = 1000


T = TypeVar("T")


# Behind a name: which way is good.
ARROWS = {"low": " ↓", "high": " ↑", "": ""}


# A spread below this share of the value comes from rounding, not from what was measured.
ROUNDING = 1e-9
# Decimal places from which a figure is written with an exponent.
DECIMALS = 6


def with_error(value: Value) -> str:
    """Returns a measured value as text, with its standard error if that is known."""
    error = f" ± {error_as_text(value.stderr)}" if value.stderr is not None else ""
    return ("≥ " if value.at_least else "") + figure_as_text(value) + error


def figure_as_text(value: Value) -> str:
    """Returns a figure as text, to the last digit that its standard error is written with; else as `as_text`."""
    places = _places(value.stderr) if value.stderr else None
    if places is None or places > DECIMALS:
        return as_text(value.value)
    return _fixed(value.value, places)


def as_text(value: float) -> str:
    """Returns a figure as text with four significant digits, or as an integer from 10,000 on."""
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def error_as_text(error: float) -> str:
    """Returns a standard error as text with two significant digits."""
    return "0" if error == 0 else f"{error:.2g}" if _places(error) > DECIMALS else _fixed(error, _places(error))


def _places(error: float) -> int:
    """Returns the decimal places of an error's second significant digit; negative from 100 on."""
    return 1 - int(f"{error:.1e}".partition("e")[2])


def _fixed(value: float, places: int) -> str:
    """Returns a number rounded to decimal places, without a sign where it becomes 0."""
    return f"{round(value, places) + 0.0:,.{max(places, 0)}f}"


class Value(NamedTuple):
    """A figure computed by a measure.

    Attributes:
        value: the figure.
        stderr: its standard error due to the choice of samples or images; None if it is not known.
        n: number of samples or images that it was computed from.
        features: name of the features in which a distance was measured.
        at_least: whether it is a lower bound: with so few samples, the true figure may be larger.
        groups: number of groups of samples, or of repeats, that the error was estimated from; 0 if it was estimated
            from n individual values.
    """

    value: float
    stderr: float | None = None
    n: int = 0
    features: str | None = None
    at_least: bool = False
    groups: int = 0

    @classmethod
    def mean(cls, values: np.ndarray, features: str | None = None) -> Value:
        """Returns the mean of `(N,)` independent values with its standard error, which is None for one value."""
        n = len(values)
        return cls(float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None, n, features)


class Material:
    """The input of measures: a run's samples, the reference images, and the features of both.

    Args:
        run: the run.
        samples: number of images to generate.
        seed: of their latents.
        judge: in whose features distances are measured, and which predicts classes if it is a classifier.
    """

    def __init__(self, run: Run, *, samples: int = 2000, seed: int = 0, judge: Judge | None = None) -> None:
        self.run, self.n, self.seed, self.judge = run, samples, seed, judge
        self._computed: dict[str, Any] = {}
        self._images: dict[tuple[str, int], np.ndarray] = {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Returns what `make` returns, computed once and shared by all measures."""
        if name not in self._computed:
            self._computed[name] = make()
        value: T = self._computed[name]
        return value

    def with_judge(self, judge: Judge) -> Material:
        """Returns a material with the same samples and images, but another judge."""
        other = Material(self.run, samples=self.n, seed=self.seed, judge=judge)
        other.samples, other.labels, other._images = self.samples, self.labels, self._images
        return other

    @cached_property
    def labels(self) -> np.ndarray | None:
        """What a conditional model's samples are asked for: classes `(N,)` or numbers `(N, K)` of training images.

        So the classes are as frequent among the samples as among the images that they are compared with.
        """
        if not self.run.conditional:
            return None
        train = self.run.dataset.train
        return self.run.labels(np.random.default_rng(self.seed).choice(train, self.n, replace=self.n > len(train)))

    @cached_property
    def latents(self) -> np.ndarray:
        """Latents of the samples, `(N, Z)`."""
        return self.run.latents_of_samples(self.n, self.seed, condition=self.run.condition_of_labels(self.labels))

    @cached_property
    def samples(self) -> np.ndarray:
        """Generated images, `(N, H, W, C)` of bytes, as saved to files; of a conditional model, with these `labels`."""
        return to_bytes(self.run.decode(self.latents, self.run.condition_of_labels(self.labels)))

    @property
    def reference(self) -> np.ndarray:
        """Reference images, `(M, H, W, C)` of bytes: held-out images if there are enough, else training images."""
        return self.images_of(self._reference)

    @property
    def _reference(self) -> str:
        return "test" if len(self.run.dataset.test) >= ENOUGH else "train"

    def images_of(self, part: str, most: int | None = None) -> np.ndarray:
        """Returns the same images of a part at every call, `(M, H, W, C)` of bytes.

        Args:
            part: "train" or "test".
            most: number of images, or all there are if these are fewer; None for as many as there are samples.
        """
        indices = self.run.choose_images(part, self.n if most is None else most)
        key = part, len(indices)
        if key not in self._images:
            self._images[key] = np.concatenate([to_bytes(self.run.images(piece)) for piece in pieces(indices)])
        return self._images[key]

    @property
    def sample_features(self) -> np.ndarray:
        """Features of the samples, `(N, F)`."""
        return self._judged_samples[0]

    @property
    def reference_features(self) -> np.ndarray:
        """Features of the reference images, `(M, F)`."""
        return self.features_of(self._reference)

    @property
    def probabilities(self) -> np.ndarray:
        """The judge's class probabilities of the samples, `(N, K)`."""
        assert self.classifier
        return self._judged_samples[1]

    @property
    def reference_probabilities(self) -> np.ndarray:
        """The judge's class probabilities of the reference images, `(M, K)`."""
        return self.probabilities_of(self._reference)

    def probabilities_of(self, part: str, most: int | None = None) -> np.ndarray:
        """Returns the judge's class probabilities of what `images_of` returns, `(M, K)`."""
        assert self.classifier
        return self._judged_part(part, most)[1]

    def features_of(self, part: str, most: int | None = None) -> np.ndarray:
        """Returns the features of what `images_of` returns, `(M, F)`."""
        return self._judged_part(part, most)[0]

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns the judge's features of images, `(N, F)`, in float64."""
        return _in_float64(judge_images(self._judge, images))[0]

    @cached_property
    def _judged_samples(self) -> tuple[np.ndarray, np.ndarray]:
        return _in_float64(judge_images(self._judge, self.samples))

    def _judged_part(self, part: str, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        images = self.images_of(part, most)
        return self.once(
            f"{len(images)} judged {part} images", lambda: _in_float64(judge_images_once(self._judge, images))
        )

    @property
    def _judge(self) -> Judge:
        assert self.judge is not None, "a measure that uses the judge applies only if there is one (`has_judge`)"
        return self.judge

    @property
    def classifier(self) -> Run:
        """The judge, if it is a classifier."""
        assert isinstance(self.judge, Run), "a measure that uses classes applies only if there are some"
        return self.judge

    @property
    def space(self) -> str:
        """Name of the judge's features."""
        return judge_name(self._judge)


def _in_float64(judged: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    features, probabilities = judged
    return features.astype(np.float64), probabilities


def chosen(array: np.ndarray, most: int) -> np.ndarray:
    """Returns the same `most` entries of an array at every call, or all; not the first, which may be of one class."""
    if len(array) <= most:
        return array
    return array[np.sort(np.random.default_rng(0).choice(len(array), most, replace=False))]


def pieces(array: np.ndarray, size: int = CHUNK) -> Iterator[np.ndarray]:
    """Yields an array in consecutive pieces of at most `size` entries, to limit memory."""
    for start in range(0, len(array), size):
        yield array[start : start + size]


# Results of a measure by name: a figure, or the reason why it cannot be computed.
Figures = Mapping[str, Value | str]
Take = Callable[[Material], Figures]


def too_few(needed: int, n: int, what: str) -> str:
    """Returns the reason why a figure cannot be computed from n images; "" if they are enough."""
    return "" if n >= needed else f"it needs at least {needed} {what}, and there {'is' if n == 1 else 'are'} {n}"


@dataclass(frozen=True)
class Measure:
    """A measure, which computes one or more figures of a run.

    Attributes:
        name: of its first figure.
        gives: names of its figures, with their meaning and unit.
        better: whether low or high figures are better; "" for figures that only describe.
        applies: returns whether it can be computed for a material.
        take: computes its figures.
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
    """Registers a function as a measure, under the name of its first figure."""

    def register(take: Take) -> Take:
        name = next(iter(gives))
        MEASURES.register(name, Measure(name, gives, better, applies, take), take.__module__)
        return take

    return register


def measures() -> list[Measure]:
    """Returns all measures, sorted by name."""
    return MEASURES.values()


def by_name() -> dict[str, Measure]:
    """Returns, by the name of each figure, the measure that computes it."""
    return {name: entry for entry in measures() for name in entry.gives}


def has_judge(material: Material) -> bool:
    """Returns whether samples can be measured in a judge's features."""
    return material.run.generates and material.judge is not None


def has_classifier(material: Material) -> bool:
    """Returns whether the judge can predict the classes of samples."""
    return material.run.generates and isinstance(material.judge, Run)


def has_classifier_of_its_classes(material: Material) -> bool:
    """Returns whether the judge knows the classes of the run's images, and no others."""
    return has_classifier(material) and set(material.run.classes) == set(material.classifier.model.class_names)


def jackknife(groups: int, n: int, statistic: Callable[[np.ndarray], float]) -> float:
    """Returns the standard error of a statistic of n samples by the jackknife: one group is left out at a time.

    Args:
        groups: number of groups.
        n: number of samples.
        statistic: computes the figure from a mask `(n,)` of the samples that remain.

    Source: B. Efron and C. Stein, The jackknife estimate of variance, Annals of Statistics 9, 1981.
    """
    # Random groups, because samples of a conditional model are ordered by class.
    member = np.random.default_rng(0).permutation(n) % groups
    without = np.array([statistic(member != group) for group in range(groups)])
    return float(np.sqrt((groups - 1) / groups * np.square(without - without.mean()).sum()))
