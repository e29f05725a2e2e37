"""The journal: a file of JSON lines with every number logged in training.

A line holds `step`, `epoch`, `images` (seen so far), `seconds` (since the start of training) and numbers under
`PHASE/TERM`. Each is the mean over the steps since the previous line, except that a gradient's norm is that of the
line's own step. Numbers of the held-out images are under `test/TERM`, costs under `cost/NAME`.

The first line that holds a number also gives its role, in `roles`, which figures, monitors and reports use.

| role | what the number is |
|---|---|
| loss | the loss that a phase minimises, weights included |
| term | a part of a loss, without its weight |
| accuracy | share of real or fake samples that a discriminator classified correctly |
| distance | a critic's estimate of the distance between real and fake samples |
| kl | KL divergence of the posterior from the prior, in nats per image |
| information | lower bound of the mutual information of images and codes, in nats |
| share | another share, 0..1 |
| diagnostic | any other number that is not a loss |
| gradient | norm of a phase's gradient, before clipping |
| rate | a phase's learning rate, where it changes |
| test, error | number of the held-out images, and its standard error |
| cost | time, memory and threads |
"""

from __future__ import annotations

import csv
import json
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from io import StringIO
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from zeuxis.errors import UserError
from zeuxis.files import WriteError, regular, why, write_file
from zeuxis.models.base import Role
from zeuxis.progress import TROUBLE, say

__all__ = ["Journal", "Line", "Lines", "read_changes", "read_journal", "read_warnings", "role_of"]

Line = dict[str, Any]
COUNTERS = ("epoch", "images", "seconds")
ROLES: frozenset[str] = frozenset(get_args(Role))


class Lines(list[Line]):
    """Journal lines.

    Attributes:
        roles: the role of every number in them.
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

    def to_csv(self) -> str:
        """Returns them as CSV: one row per line and one column per number; empty where a line does not have it."""
        columns = ["step", *COUNTERS, *self.roles]
        text = StringIO()
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self)
        return text.getvalue()


def role_of(name: str) -> Role:
    """Returns the role of a number in a journal without roles, as in runs of version 0.1 and before."""
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
    """Appends lines to a journal; each is passed to the operating system before `write` returns.

    Args:
        path: the journal file.
        keep: last step to keep; later lines, which a killed run wrote after its last checkpoint, are dropped.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        previous = read_journal(path, keep) if path.exists() or keep else Lines()
        self.lines = [line for line in previous if line["step"] <= keep]
        # Only roles of names in these lines: those of other names are written again.
        self.roles = {name: role for name, role in previous.roles.items() if any(name in line for line in self.lines)}
        roles = dict(self.roles)
        content = []
        for line in self.lines:
            new_roles = {name: roles.pop(name) for name in line if name in roles}
            content.append(json.dumps(line | ({"roles": new_roles} if new_roles else {})) + "\n")
        write_file(path, "".join(content))
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Line, roles: Mapping[str, Role]) -> None:
        """Appends a line.

        Args:
            line: counters and numbers.
            roles: the roles of the numbers.

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
            in_place = self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except OSError as error:
            raise WriteError(f"{self.path} cannot be written: {why(error)}.") from error
        if not in_place:
            raise WriteError(f"{self.path} was deleted or replaced while its run was training.")

    def close(self) -> None:
        """Closes the file."""
        with suppress(OSError):  # a write error was reported before
            self._file.close()


def read_journal(path: Path, checkpoint: int = 0) -> Lines:
    """Reads a journal; damaged lines and a missing file are reported and left out.

    A last line that was cut off by a kill is ignored: it belongs to steps after the last checkpoint.

    Args:
        path: the journal file.
        checkpoint: step of the newest checkpoint, which should have a line; if it is missing, that is reported.

    Raises:
        UserError: if the file cannot be read.
    """
    if not path.exists():
        say(f"{path} is missing: the course of the training cannot be shown.", style=TROUBLE)
        return Lines()
    lines = _read(path, _is_record)
    if checkpoint and not any(line["step"] == checkpoint for line in lines):
        last = max((line["step"] for line in lines if line["step"] < checkpoint), default=0)
        say(
            f"{path} is damaged: lines after step {last} are missing, but the checkpoint is of step {checkpoint}.",
            style=TROUBLE,
        )
    return Lines(lines)


def read_warnings(path: Path) -> list[Line]:
    """Reads the monitors' warnings: lines of `step`, `epoch` and `warning`; damaged lines are reported and left out.

    Raises:
        UserError: if the file cannot be read.
    """
    return _read(path, lambda line: isinstance(line.get("warning"), str), rising=False) if path.exists() else []


def read_changes(path: Path) -> list[Line]:
    """Reads what was changed when a run was resumed: lines of `step`, `epoch` and `changes`, `{KEY: [OLD, NEW]}`.

    Damaged lines are reported and left out.

    Raises:
        UserError: if the file cannot be read.
    """

    def valid(line: Line) -> bool:
        changes = line.get("changes")
        return isinstance(changes, dict) and all(isinstance(v, list) and len(v) == 2 for v in changes.values())

    return _read(path, valid, rising=False) if path.exists() else []


def _read(path: Path, valid: Callable[[Line], bool], *, rising: bool = True) -> list[Line]:
    try:
        text = regular(path).read_text("utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {why(error)}.") from error
    numbered_lines: list[tuple[int, Line]] = []
    damaged = []
    *complete_lines, last = text.split("\n")
    for number, content in enumerate(complete_lines, 1):
        try:
            line = json.loads(content)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict) and _is_count(line.get("step")) and valid(line):
            numbered_lines.append((number, line))
        else:
            damaged.append(number)
    if rising:
        in_order = _rising([line["step"] for _, line in numbered_lines])
        damaged += [number for i, (number, _) in enumerate(numbered_lines) if i not in in_order]
        numbered_lines = [pair for i, pair in enumerate(numbered_lines) if i in in_order]
    if last.strip() and not complete_lines:
        damaged.append(1)
    if damaged:
        examples = ", ".join(map(str, sorted(damaged)[:5])) + (", ..." if len(damaged) > 5 else "")
        plural = len(damaged) > 1
        say(f"{path}: {len(damaged)} damaged line{'s are' if plural else ' is'} left out ({examples}).", style=TROUBLE)
    return [line for _, line in numbered_lines]


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
    """Returns the indices of the longest rising sequence of steps; lines outside it are out of place."""
    if all(a < b for a, b in pairwise(steps)):
        return set(range(len(steps)))
    ends: list[int] = []  # smallest final step of a sequence of each length
    places: list[int] = []  # index of that step
    before: list[int] = []
    for i, step in enumerate(steps):
        length = bisect_left(ends, step)
        before.append(places[length - 1] if length else -1)
        if ends[length : length + 1] != [step]:  # of two lines with the same step, the first counts
            ends[length : length + 1] = [step]
            places[length : length + 1] = [i]
    indices, i = set(), places[-1]
    while i >= 0:
        indices.add(i)
        i = before[i]
    return indices
