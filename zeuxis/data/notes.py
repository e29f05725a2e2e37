"""What happened to images on their way from files to pixels, in sentences: left out, cropped, converted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Note", "Tally", "of_left_out"]

# Letters of an example that are shown; the name of a file in a zip may have 65,535.
LONGEST = 300


@dataclass(frozen=True)
class Note:
    """One thing that happened to some images.

    Attributes:
        kind: `left out`, `cropped` or `converted`.
        count: to how many.
        what: what happened, as it follows `are`.
        example: the first of them.
        total: of how many; 0 where that says nothing.
        noun: what they are, `image` or `file`.
    """

    kind: str
    count: int
    what: str
    example: str
    total: int = 0
    noun: str = "image"

    def __str__(self) -> str:
        of = f" of {self.total:,}" if self.total else ""
        plural = "s" if (self.total or self.count) != 1 else ""
        verb = "is" if self.count == 1 else "are"
        example = self.example if len(self.example) < LONGEST else f"{self.example[:LONGEST]}..."
        return f"{self.count:,}{of} {self.noun}{plural} {verb} {self.what}, such as {example}."


class Tally:
    """Counts what happens to images; the first of a kind is its example."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, kind: str, what: str, example: str) -> None:
        """Counts one image; arguments as of `Note`."""
        count, first = self._found.get((kind, what), (0, example))
        self._found[kind, what] = (count + 1, first)

    def notes(self, total: int = 0, noun: str = "image") -> list[Note]:
        """A note for each kind, in the order in which they were met."""
        return [Note(kind, n, what, first, total, noun) for (kind, what), (n, first) in self._found.items()]


def of_left_out(files: Mapping[str, str], used: Iterable[str] = ()) -> list[Note]:
    """Notes of files that are left out, by their reason; those that are used after all are passed over."""
    tally, passed = Tally(), set(used)
    for name, reason in files.items():
        if name not in passed:
            tally.add("left out", f"left out ({reason})", name)
    return tally.notes(noun="file")
