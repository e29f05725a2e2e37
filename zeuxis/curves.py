"""Curves of a run that may be training now: the journal is read on from where it ended last time, and thinned out."""

from __future__ import annotations

import json
import threading
from array import array
from itertools import pairwise
from math import isfinite
from pathlib import Path

import numpy as np

from zeuxis.files import regular
from zeuxis.training.journal import ROLES, role_of

__all__ = ["Curves", "thinned"]

# Points of a curve that a page gets; more than a screen shows.
POINTS = 600
# Bytes of a journal's beginning by which one is told from another of the same place.
HEAD = 512


class Curves:
    """The numbers of a journal, by name.

    Attributes:
        roles: the role of each number.
        last: the newest value of each counter and number.

    Args:
        path: the journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._offset, self._inode, self._head = 0, 0, b""
        self.roles: dict[str, str] = {}
        self.last: dict[str, float] = {}
        self._steps: dict[str, array[int]] = {}
        self._values: dict[str, array[float]] = {}

    def read(self) -> int:
        """Reads what was added to the journal; returns the bytes read so far."""
        with self._lock:
            try:
                with regular(self.path).open("rb") as file:
                    status = self.path.stat()
                    head = file.read(HEAD)
                    # A resumed run writes it anew; that of another run may have the inode of one that was deleted.
                    same = status.st_ino == self._inode and head.startswith(self._head)
                    if not same or status.st_size < self._offset:
                        self._reset()
                    self._inode, self._head = status.st_ino, head
                    file.seek(self._offset)
                    *lines, rest = file.read().split(b"\n")
                    self._offset = file.tell() - len(rest)
            except OSError:
                return self._offset
            for line in lines:
                self._add(line)
            return self._offset

    def _add(self, text: bytes) -> None:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            return
        if not all(isinstance(line.get(counter), int | float) for counter in ("epoch", "seconds")):
            return
        known = line.pop("roles", {})
        for name, value in line.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                continue
            self.last[name] = value
            if "/" not in name:
                continue
            if name not in self._steps:
                role = known.get(name) if isinstance(known, dict) else None
                self.roles[name] = role if role in ROLES else role_of(name)
                self._steps[name], self._values[name] = array("q"), array("d")
            self._steps[name].append(line["step"])
            self._values[name].append(value)

    def names(self, *roles: str) -> list[str]:
        """Returns the names of the numbers with these roles."""
        return [name for name, role in self.roles.items() if role in roles]

    def curve(self, name: str, points: int = POINTS) -> list[list[float]]:
        """Returns a number's `[step, value]` pairs, thinned out to about as many as `points`."""
        with self._lock:
            steps, values = np.array(self._steps.get(name, ()), np.int64), np.array(self._values.get(name, ()))
        kept = thinned(values, points)
        return [[int(step), float(value)] for step, value in zip(steps[kept], values[kept], strict=True)]


def thinned(values: np.ndarray, points: int) -> np.ndarray:
    """Returns the indices, in order, of a curve's lowest and highest value in each of `points / 2` stretches.

    A curve drawn through these looks like the whole: no peak is lost. Its first and last value stay too.
    """
    count = len(values)
    if count <= points:
        return np.arange(count)
    edges = np.linspace(0, count, points // 2 + 1).astype(np.int64)
    kept = {0, count - 1}
    for start, end in pairwise(edges):
        part = values[start:end]
        kept |= {int(start + part.argmin()), int(start + part.argmax())}
    return np.array(sorted(kept))
