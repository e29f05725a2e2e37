"""The runs that the studio shows: a list that is read again only where a folder changed, and models that are kept open.

Every name that comes from a page passes `Shelf.folder`, which accepts names of runs in the folder of runs and nothing
else: no path, no link that leads out.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from zeuxis.errors import UserError, quoted
from zeuxis.files import LOCK, is_locked, is_name
from zeuxis.listing import Entry, entry
from zeuxis.recipe import run_recipe
from zeuxis.run import Run
from zeuxis.training.checkpoint import best_checkpoint
from zeuxis.trust import NOTHING, Trust

__all__ = ["Shelf"]

# Models that stay in memory.
OPEN = 4
# Files of a run whose change changes what a list shows of it.
WATCHED = ("recipe.toml", "journal.jsonl", "evaluation.json", "notes.json", "blind.jsonl", "checkpoints", "snapshots")
T = TypeVar("T")


class _Lock(NamedTuple):
    """Whether a run was being trained when its lock was last asked for, and the times of its files at that moment."""

    running: bool
    times: tuple[int, ...]


class Shelf:
    """The runs in one folder.

    Args:
        runs: the folder; it may not exist yet.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._entries: dict[str, tuple[tuple[int, ...], Entry]] = {}
        self._open: OrderedDict[str, tuple[Any, Run]] = OrderedDict()
        self._trusted: dict[str, Trust] = {}
        self._facts: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._locks: dict[str, _Lock] = {}
        self._lock = threading.RLock()

    def folder(self, name: str) -> Path:
        """Returns the folder of a run by its name.

        Raises:
            UserError: if there is none, or if it is a link that leads out of the folder of runs.
        """
        folder = self.runs / name if is_name(name) else None
        if folder is None or not (folder / "recipe.toml").is_file():
            raise UserError(f"There is no run '{quoted(name)}'.")
        if folder.resolve().parent != self.runs.resolve():
            raise UserError(f"The run '{quoted(name)}' is a link out of the folder of runs, so it is not opened here.")
        return folder

    def file(self, name: str, *parts: str) -> Path:
        """Returns a file inside a run.

        Raises:
            UserError: if there is no such file, or if it lies outside the run.
        """
        folder = self.folder(name)
        path = folder.joinpath(*parts)
        if not all(map(is_name, parts)) or not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"The run '{quoted(name)}' has no file '{quoted('/'.join(parts))}'.")
        return path

    def names(self) -> list[str]:
        """Returns the names of all runs."""
        found = self.runs.glob("*/recipe.toml") if self.runs.is_dir() else iter(())
        return sorted(path.parent.name for path in found if is_name(path.parent.name) and not path.parent.is_symlink())

    def entries(self) -> list[Entry]:
        """Returns what a list shows of every run; reads those again whose folders changed."""
        with self._lock:
            names = self.names()
            for name in self._entries.keys() - set(names):
                del self._entries[name]
            for name in names:
                stamp = self.stamp(name)
                if name not in self._entries or self._entries[name][0] != stamp:
                    self._entries[name] = (stamp, entry(self.runs / name))
            return [self._entries[name][1] for name in names]

    def known(self) -> list[Entry]:
        """Returns the entries as they were last read."""
        with self._lock:
            return [self._entries[name][1] for name in sorted(self._entries)]

    def version(self, name: str) -> str:
        """Returns text that changes when a run's pictures may have: for addresses that a browser may keep."""
        folder = self.runs / name
        return f"{max(_changed(folder / file) for file in ('recipe.toml', 'checkpoints', 'snapshots')):x}"

    def entry(self, name: str) -> Entry:
        """Returns what a list shows of one run."""
        folder = self.folder(name)
        with self._lock:
            stamp = self.stamp(name)
            if name not in self._entries or self._entries[name][0] != stamp:
                self._entries[name] = (stamp, entry(folder))
            return self._entries[name][1]

    def stamp(self, name: str) -> tuple[int, ...]:
        """Returns numbers that change when a list would show another thing of a run."""
        folder = self.runs / name
        times = tuple(_changed(folder / file) for file in WATCHED)
        # Asking for a lock takes it for a moment, so it is asked for only where it may have been taken or freed:
        # whoever takes it touches its file.
        with self._lock:
            before = self._locks.get(name)
            if before is None or before.running or before.times != (*times, _changed(folder / LOCK)):
                running = is_locked(folder)
                self._locks[name] = _Lock(running, (*times, _changed(folder / LOCK)))
            return (*times, int(self._locks[name].running))

    def open(self, name: str) -> Run:
        """Opens a run; a run whose weights have changed since is opened anew.

        Raises:
            UserError: if there is none.
            UntrustedError: if it names code that nobody has trusted.
        """
        folder = self.folder(name)
        best = best_checkpoint(folder / "checkpoints")
        stamp = (str(best), best.stat().st_mtime_ns if best else 0, (folder / "recipe.toml").stat().st_mtime_ns)
        with self._lock:
            if name in self._open and self._open[name][0] == stamp:
                self._open.move_to_end(name)
                return self._open[name][1]
            run = Run(folder, trust=self.trust_of(name))
            _ = run.recipe
            self._open[name] = (stamp, run)
            while len(self._open) > OPEN:
                self._open.popitem(last=False)
            return run

    def trust(self, name: str) -> None:
        """Trusts the code that a run names as it is now, until the studio ends."""
        recipe = run_recipe(self.folder(name), trust=Trust(True))
        with self._lock:
            self._trusted[name] = Trust.of(recipe.calls)

    def trust_of(self, name: str) -> Trust:
        """Returns what the user has trusted of a run's code here."""
        return self._trusted.get(name, NOTHING)

    def trusted(self, name: str) -> bool:
        """Whether the user has trusted a run's code here."""
        return name in self._trusted

    def once(self, key: tuple[Any, ...], make: Callable[[], T], most: int = 256) -> T:
        """Returns what `make` returns, kept under a key that names everything that it depends on."""
        with self._lock:
            if key in self._facts:
                self._facts.move_to_end(key)
                value: T = self._facts[key]
                return value
        value = make()
        with self._lock:
            self._facts[key] = value
            while len(self._facts) > most:
                self._facts.popitem(last=False)
        return value


def _changed(path: Path) -> int:
    """When a file was last changed; 0 if there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
