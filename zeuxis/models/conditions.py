"""The condition of a conditional model: a vector for each class, or numbers of each image.

- Classes: one-hot vectors, which can be mixed.
- Several attributes, `data.attribute = "Smiling,Male"`: one number each, 1 for an image that has the attribute. A class
  is a combination of attributes; combinations that no training image has can be generated too.
- Numbers, `data.numbers = ["angle", "scale"]`: the numbers themselves, scaled to mean 0 and deviation 1 over the
  training images. There are no classes.
- Two classes, for a model that takes one number: 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unicodedata import normalize

import numpy as np

from zeuxis.data import combinations
from zeuxis.errors import UserError, one_of, quoted

__all__ = ["Condition", "of_attributes", "of_classes", "of_numbers", "of_two"]


@dataclass(frozen=True)
class Condition:
    """Vectors of classes.

    Attributes:
        classes: names of the C classes.
        parts: names of the K numbers.
        vectors: `(C, K)` float32.
        scales: mean and deviation of each number of `data.numbers`; empty for classes and attributes.
    """

    classes: tuple[str, ...]
    parts: tuple[str, ...]
    vectors: np.ndarray
    scales: tuple[tuple[float, float], ...] = ()

    @property
    def size(self) -> int:
        """Length of a vector, K."""
        return len(self.parts)

    @property
    def of_attributes(self) -> bool:
        """Whether classes are combinations of attributes."""
        return len(self.parts) > 1 and len(self.classes) == 2 ** len(self.parts)

    def index(self, text: str) -> int:
        """Returns the index of a class from its name, or from attributes, `"Smiling=1,Male=0"`, which default to 0.

        Accents may be composed or decomposed.

        Raises:
            UserError: for an unknown class or attribute, or a value that is neither 0 nor 1.
        """
        text = normalize("NFC", text)
        known = _composed(self.classes)
        if text in known:
            return known.index(text)
        if not self.of_attributes or "=" not in text:
            raise one_of("class", text, known)
        values = dict.fromkeys(_composed(self.parts), 0)
        for name, value in _settings("attribute", text, list(values)):
            if value not in ("0", "1"):
                raise UserError(f"The attribute {name} is 0 or 1, as in {name}=1, not '{quoted(value)}'.")
            values[name] = int(value)
        vector = np.array(list(values.values()), np.float32)
        return int((self.vectors == vector).all(axis=1).argmax())

    def vectors_of(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the vectors `(N, K)` for names of classes, or for numbers as in `"angle=0.5,scale=1"`.

        A number that is not given takes its mean.

        Raises:
            UserError: as for `index`, and for a value that is not a number.
        """
        if not self.scales:
            return np.asarray(self.vectors[[self.index(text) for text in texts]])
        return np.array([self._scaled(text) for text in texts], np.float32)

    def _scaled(self, text: str) -> list[float]:
        scales = dict(zip(_composed(self.parts), self.scales, strict=True))
        values = dict.fromkeys(scales, 0.0)
        for name, value in _settings("number", normalize("NFC", text), list(values)):
            mean, deviation = scales[name]
            try:
                values[name] = (float(value) - mean) / deviation
            except ValueError:
                raise UserError(f"{name} is a number, as in {name}={mean:.3g}, not '{quoted(value)}'.") from None
            if not math.isfinite(values[name]):
                raise UserError(f"{name} is a finite number, as in {name}={mean:.3g}, not '{quoted(value)}'.")
        return list(values.values())

    def name_of(self, vector: np.ndarray) -> str:
        """Returns the class nearest to a condition `(K,)`, or its numbers, as `vectors_of` takes them."""
        if not self.scales:
            return self.classes[int(np.square(self.vectors - vector).sum(axis=1).argmin())]
        values = [mean + deviation * x for x, (mean, deviation) in zip(vector, self.scales, strict=True)]
        return ",".join(f"{name}={value:.7g}" for name, value in zip(self.parts, values, strict=True))

    def in_turn(self, count: int) -> np.ndarray:
        """Returns vectors `(count, K)`: of the classes in turn, or random numbers on the training images' scale."""
        if not self.scales:
            return np.asarray(self.vectors[np.arange(count) % len(self.classes)])
        # A fixed seed: the first vectors are the same for every count.
        return np.random.default_rng(0).normal(size=(count, self.size)).clip(-2, 2).astype(np.float32)


def _composed(names: Sequence[str]) -> list[str]:
    return [normalize("NFC", name) for name in names]


def _settings(kind: str, text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields names and values of `"Smiling=1,Male=0"`; a name may hold an equals sign itself.

    Raises:
        UserError: for a name that is none of `names`.
    """
    for piece in text.split(","):
        name, equals, value = piece.rpartition("=")
        name, value = (name.strip(), value.strip()) if equals else (value.strip(), "")
        if name not in names:
            raise one_of(kind, name, names)
        yield name, value


def of_classes(classes: Sequence[str]) -> Condition:
    """Returns the condition of classes: one-hot vectors."""
    return Condition(tuple(classes), tuple(classes), np.eye(len(classes), dtype=np.float32))


def of_two(classes: Sequence[str]) -> Condition:
    """Returns the condition of two classes: one number, 0 for the first and 1 for the second."""
    return Condition(tuple(classes), (classes[1],), np.array([[0], [1]], np.float32))


def of_numbers(names: Sequence[str], scales: Sequence[tuple[float, float]] = ()) -> Condition:
    """Returns the condition of numbers; without scales, they are taken as scaled already."""
    known = tuple(scales) or ((0.0, 1.0),) * len(names)
    return Condition((), tuple(names), np.empty((0, len(names)), np.float32), known)


def of_attributes(attributes: Sequence[str]) -> Condition:
    """Returns the condition of attributes: one number, 0 or 1, for each."""
    combination = np.arange(2 ** len(attributes))
    bits = (combination[:, None] >> np.arange(len(attributes))) & 1
    return Condition(tuple(combinations(attributes)), tuple(attributes), bits.astype(np.float32))
