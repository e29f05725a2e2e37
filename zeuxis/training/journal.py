"""The journal: one JSON object a line with every recorded number.

A line holds `step`, `epoch`, `images` (seen so far), `seconds` (since the start of training) and numbers under
`PHASE/TERM`, each the mean over the steps since the line before; a gradient's norm is that of the line's own step.
Numbers of the held-out images stand under `test/TERM`, costs under `cost/NAME`.

The first line that holds a number also says what it is, in `roles`: what figures, monitors and reports go by.

| role | what the number is |
|---|---|
| loss | what a phase minimises, weights included |
| term | a part of a loss, without its weight |
| accuracy | share of real or fake samples that a discriminator told right |
| distance | a critic's estimate of the distance between real and fake samples |
| kl | KL divergence of the posterior from the prior, in nats an image |
| information | lower bound of the mutual information of images and codes, in nats |
| share | another share, 0..1 |
| diagnostic | anything else that is no loss |
| gradient | norm of a phase's gradient, before clipping |
| rate | a phase's learning rate, where it changes |
| test, error | of the held-out images, and a standard error of one |
| cost | time, memory and threads |
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from zeuxis.errors import UserError
from zeuxis.files import WriteError, why, write_file
from zeuxis.models.base import Role
from zeuxis.progress import TROUBLE, say

__all__ = ["Journal", "Line", "Lines", "read_journal", "read_warnings", "role_of"]

Line = dict[str, Any]
COUNTERS = ("epoch", "images", "seconds")
ROLES: frozenset[str] = frozenset(get_args(Role))


class Lines(list[Line]):
    """Journal lines.

    Attributes:
        roles: of every number in them.
    """

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        super().__init__()
        self.roles: dict[str, Role] = {}
        for line in lines:
            known = line.get("roles", {})
            numbers = {name: value for name, value in line.items() if name != "roles"}
            for name in numbers:
                if "/" in name and name not in self.roles:
                    self.roles[name] = known.get(name) or role_of(name)
            self.append(numbers)


def role_of(name: str) -> Role:
    """The role of a number in a journal that does not say, as of runs of version 0.1 and before."""
    phase, _, term = name.partition("/")
    if phase == "cost":
        return "cost"
    if phase == "test":
        return "error" if term.endswith("_stderr") else "test"
    known: dict[str, Role] = {
        "loss": "loss", "gradient_norm": "gradient", "kl_nats": "kl", "mutual_information": "information",
        "wasserstein_estimate": "distance", "accuracy_real": "accuracy", "accuracy_fake": "accuracy",
        "accuracy_pairs": "accuracy", "accuracy_class": "share",
    }  # fmt: skip
    return known.get(term, "term")


class Journal:
    """Appends lines; every line is on its way to the disk when `write` returns.

    Args:
        path: the journal file.
        keep: drop the lines after this step, which a killed run wrote after its last checkpoint.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        past = read_journal(path, keep) if path.exists() or keep else Lines()
        self.lines = [line for line in past if line["step"] <= keep]
        # Of the names that these lines hold: the others are said again.
        self.roles = {name: role for name, role in past.roles.items() if any(name in line for line in self.lines)}
        roles = dict(self.roles)
        content = []
        for line in self.lines:
            told = {name: roles.pop(name) for name in line if name in roles}
            content.append(json.dumps(line | ({"roles": told} if told else {})) + "\n")
        write_file(path, "".join(content))
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Line, roles: Mapping[str, Role]) -> None:
        """Appends a line.

        Args:
            line: counters and numbers.
            roles: of the numbers.

        Raises:
            WriteError: if it cannot be written, or if the file is no longer where it was.
        """
        self.lines.append(line)
        new = {name: role for name, role in roles.items() if name not in self.roles}
        self.roles |= new
        line = line | ({"roles": new} if new else {})
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            there = self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except OSError as error:
            raise WriteError(f"{self.path} cannot be written: {why(error)}.") from error
        if not there:
            raise WriteError(f"{self.path} was deleted or replaced while its run was training.")

    def close(self) -> None:
        """Closes the file."""
        with suppress(OSError):  # what a full disk did not take was told before
            self._file.close()


def read_journal(path: Path, checkpoint: int = 0) -> Lines:
    """Reads a journal; damaged lines are named and left out, and so is a file that is gone.

    A last line that was cut by a kill is passed over: it belongs to steps after the last checkpoint.

    Args:
        path: the journal file.
        checkpoint: step of the newest checkpoint, which has a line; if it is not there, that is said.

    Raises:
        UserError: if the file cannot be read.
    """
    if not path.exists():
        say(f"{path} is gone: it cannot be told how the training went.", style=TROUBLE)
        return Lines()
    lines = _read(path, _is_record)
    if checkpoint and not any(line["step"] == checkpoint for line in lines):
        last = max((line["step"] for line in lines if line["step"] < checkpoint), default=0)
        say(
            f"{path} is damaged: lines after step {last} are missing, and the checkpoint is of step {checkpoint}.",
            style=TROUBLE,
        )
    return Lines(lines)


def read_warnings(path: Path) -> list[Line]:
    """Reads what the monitors said: lines of `step`, `epoch` and `warning`; damaged lines are named and left out.

    Raises:
        UserError: if the file cannot be read.
    """
    return _read(path, lambda line: isinstance(line.get("warning"), str), rising=False) if path.exists() else []


def _read(path: Path, valid: Callable[[Line], bool], *, rising: bool = True) -> list[Line]:
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {why(error)}.") from error
    found: list[tuple[int, Line]] = []
    damaged = []
    *whole, cut = text.split("\n")
    for number, content in enumerate(whole, 1):
        try:
            line = json.loads(content)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict) and _is_count(line.get("step")) and valid(line):
            found.append((number, line))
        else:
            damaged.append(number)
    if rising:
        kept = _rising([line["step"] for _, line in found])
        damaged += [number for i, (number, _) in enumerate(found) if i not in kept]
        found = [pair for i, pair in enumerate(found) if i in kept]
    if cut.strip() and not whole:
        damaged.append(1)
    if damaged:
        some = ", ".join(map(str, sorted(damaged)[:5])) + (", ..." if len(damaged) > 5 else "")
        plural = len(damaged) > 1
        say(f"{path}: {len(damaged)} damaged line{'s are' if plural else ' is'} left out ({some}).", style=TROUBLE)
    return [line for _, line in found]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_record(line: Line) -> bool:
    roles = line.get("roles", {})
    if not isinstance(roles, dict) or not all(isinstance(role, str) and role in ROLES for role in roles.values()):
        return False
    values = (value for name, value in line.items() if name != "roles")
    numbers = (isinstance(v, int | float) and not isinstance(v, bool) and isfinite(v) for v in values)
    return all(name in line for name in COUNTERS) and all(numbers)


def _rising(steps: Sequence[int]) -> set[int]:
    """Indices of the longest rising sequence of steps: what is out of place is a line from elsewhere."""
    if all(a < b for a, b in pairwise(steps)):
        return set(range(len(steps)))
    ends: list[int] = []  # the smallest step at which a sequence of each length ends
    places: list[int] = []  # its index
    before: list[int] = []
    for i, step in enumerate(steps):
        length = bisect_left(ends, step)
        before.append(places[length - 1] if length else -1)
        if ends[length : length + 1] != [step]:  # of two lines of one step the first counts
            ends[length : length + 1] = [step]
            places[length : length + 1] = [i]
    kept, i = set(), places[-1]
    while i >= 0:
        kept.add(i)
        i = before[i]
    return kept
