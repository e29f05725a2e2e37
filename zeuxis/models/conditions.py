"""What a conditional model is told of an image: a vector for each of its classes.

- Of classes: one-hot vectors; what lies between two is a mixture of them.
- Of several attributes at once, `data.attribute = "Smiling,Male"`: a number for each, 1 for an image that has it. A
  class is then a combination, and one that no image shows can be asked for all the same.
- Of two classes, where a model has one number for them: 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

import numpy as np

from zeuxis.data import combinations
from zeuxis.errors import UserError, one_of, quoted

__all__ = ["Condition", "of_attributes", "of_classes", "of_two"]


@dataclass(frozen=True)
class Condition:
    """Vectors of classes.

    Attributes:
        classes: names of the C classes.
        parts: names of the K numbers.
        vectors: `(C, K)` float32.
    """

    classes: tuple[str, ...]
    parts: tuple[str, ...]
    vectors: np.ndarray

    @property
    def size(self) -> int:
        """Numbers in a vector, K."""
        return len(self.parts)

    @property
    def of_attributes(self) -> bool:
        """Whether classes are combinations of attributes."""
        return len(self.parts) > 1 and len(self.classes) == 2 ** len(self.parts)

    def index(self, text: str) -> int:
        """The class that words ask for: `"7"`, or `"Smiling=1,Male=0"` of attributes, where one left out is 0.

        Accents may be typed composed or not.

        Raises:
            UserError: for an unknown class or attribute, or a value that is neither 0 nor 1.
        """
        text = normalize("NFC", text)
        known = [normalize("NFC", name) for name in self.classes]
        if not self.of_attributes or "=" not in text:
            if text not in known:
                raise one_of("class", text, known)
            return known.index(text)
        values = dict.fromkeys(self.parts, 0)
        for piece in text.split(","):
            name, _, value = (part.strip() for part in piece.partition("="))
            if name not in values:
                raise one_of("attribute", name, self.parts)
            if value not in ("0", "1"):
                raise UserError(f"The attribute {name} is 0 or 1, as in {name}=1, not '{quoted(value)}'.")
            values[name] = int(value)
        wanted = np.array(list(values.values()), np.float32)
        return int((self.vectors == wanted).all(axis=1).argmax())


def of_classes(classes: Sequence[str]) -> Condition:
    """One-hot vectors."""
    return Condition(tuple(classes), tuple(classes), np.eye(len(classes), dtype=np.float32))


def of_two(classes: Sequence[str]) -> Condition:
    """One number, 0 for the first class and 1 for the second."""
    return Condition(tuple(classes), (classes[1],), np.array([[0], [1]], np.float32))


def of_attributes(attributes: Sequence[str]) -> Condition:
    """A number for each attribute."""
    places = np.arange(2 ** len(attributes))
    bits = (places[:, None] >> np.arange(len(attributes))) & 1
    return Condition(tuple(combinations(attributes)), tuple(attributes), bits.astype(np.float32))
