"""Notes, in sentences, on what happened to images while they were loaded: left out, cropped, converted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Note", "Tally", "in_sentences", "of_left_out"]

# Characters of an example that are shown; the name of a file in a zip may have 65,535.
LONGEST = 300


@dataclass(frozen=True)
class Note:
    """One thing that happened to some images.

    Attributes:
        kind: `left out`, `cropped`, `padded`, `stretched`, `converted` or `copied`.
        count: number of images that it happened to.
        what: what happened, in words that follow `are`.
        example: the first of them.
        total: number of all images; 0 if it is not worth saying.
        noun: what they are, `image`, `file` or `row`.
    """

    kind: str
    count: int
    what: str
    example: str
    total: int = 0
    noun: str = "image"

    def __str__(self) -> str:
        return self.in_words()

    def in_words(self, *, example: bool = True) -> str:
        """Returns the note as a sentence, with or without its example."""
        of = f" of {self.total:,}" if self.total else ""
        plural = "s" if (self.total or self.count) != 1 else ""
        verb = "is" if self.count == 1 else "are"
        named = self.example if len(self.example) < LONGEST else f"{self.example[:LONGEST]}..."
        such_as = f", such as {named}" if example else ""
        return f"{self.count:,}{of} {self.noun}{plural} {verb} {self.what}{such_as}."


class Tally:
    """Counts what happens to images; the first image of each kind is its example."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, kind: str, what: str, example: str) -> None:
        """Counts one image; same arguments as `Note`."""
        count, first = self._counts.get((kind, what), (0, example))
        self._counts[kind, what] = (count + 1, first)

    def notes(self, total: int = 0, noun: str = "image") -> list[Note]:
        """Returns a note for each kind, in the order of their first images."""
        return [Note(kind, n, what, first, total, noun) for (kind, what), (n, first) in self._counts.items()]


def in_sentences(notes: Iterable[Note]) -> list[str]:
    """Returns notes as sentences that name an example at the first of its notes, and again where it is the only one."""
    named, sentences = set[str](), []
    for note in notes:
        file = note.example.partition(" (")[0]
        sentences.append(note.in_words(example=note.count == 1 or file not in named))
        named.add(file)
    return sentences


def of_left_out(files: Mapping[str, str], used: Iterable[str] = (), *, noun: str = "file") -> list[Note]:
    """Returns a note for each reason why files are left out; skips the files in `used`."""
    tally, skipped = Tally(), set(used)
    for name, reason in files.items():
        if name not in skipped:
            tally.add("left out", f"left out ({reason})", name)
    return tally.notes(noun=noun)
