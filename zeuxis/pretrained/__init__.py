"""Trained runs that come with the package, to try everything before anything is trained.

`pretrained/NAME` stands for a run wherever a command or a function takes one. The first use copies it to the folder of
runs, where it is a run like any other: `zeuxis sample pretrained/digits-flow -n 16`. Each holds its recipe, its
numbers, its weights in half precision, and a card with its data and their licence. `benchmarks/assets/pretrained.py`
makes them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from shutil import copytree
from typing import NamedTuple

from zeuxis.errors import one_of
from zeuxis.files import make_folder, unfinished
from zeuxis.progress import say

__all__ = ["PREFIX", "Card", "cards", "unpack"]

PREFIX = "pretrained/"


class Card(NamedTuple):
    """What is known of a pretrained run.

    Attributes:
        name: behind `pretrained/`.
        description: what it generates, in a sentence.
        images: what it was trained on.
        licence: of these images.
        measured: its most telling numbers, in words.
    """

    name: str
    description: str
    images: str
    licence: str
    measured: str


def cards() -> list[Card]:
    """Returns the cards of all pretrained runs, by name."""
    paths = sorted(Path(__file__).parent.glob("*/card.toml"))
    return [Card(path.parent.name, **tomllib.loads(path.read_text("utf-8"))) for path in paths]


def unpack(name: str, runs: Path, *, copies: bool = True) -> Path:
    """Returns the folder of a pretrained run below `runs`; copies it there on first use, or returns the package's own.

    Args:
        name: behind `pretrained/`.
        runs: the folder of runs.
        copies: whether it is copied; the package's own folder is only to be read.

    Raises:
        UserError: for an unknown name, and if the folder of runs cannot be written.
    """
    known = [card.name for card in cards()]
    if name not in known:
        raise one_of("pretrained run", name, known)
    folder = runs / f"pretrained-{name}"
    packaged = Path(__file__).parent / name
    if not folder.is_dir():
        if not copies:
            return packaged
        make_folder(runs)
        with unfinished(runs) as aside:
            copytree(packaged, aside / name)
            try:
                (aside / name).rename(folder)
            except OSError:
                if not folder.is_dir():  # another process made it just now
                    raise
        say(f"{PREFIX}{name} is now the run {folder}.")
    return folder
