"""Whose code may run.

A recipe can name Python of the user's own: a plugin's file, or a network's module by its dotted path. To import it is
to run it, so a recipe or a run from somebody else must not decide that. Trust belongs to a plugin's content, or to a
call: the module's path with its arguments. It comes from three places alone:

- the user names the recipe file, or the setting, that names the code;
- the user says so: `--trust`, or `trust=True`;
- the run was made here by this user. What it calls is recorded below `state_dir()`, outside the run, where nothing
  that comes with a run can write.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import platformdirs

from zeuxis.errors import UserError, quoted
from zeuxis.files import make_folder, write_file

__all__ = ["NOTHING", "Call", "Code", "Trust", "made_here", "remember", "state_dir"]


class Code(Protocol):
    """What would be run, and says so in words."""

    def digest(self, folder: Path | None = None) -> str:
        """SHA-256 of what it is, and of the run that it belongs to."""
        ...


@dataclass(frozen=True)
class Call:
    """A module that a recipe names.

    Attributes:
        module: `package.module.Class`.
        arguments: its keyword arguments, as TOML has them.
    """

    module: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.module}({arguments})"

    def digest(self, folder: Path | None = None) -> str:
        """SHA-256 of the call, and of the run that it belongs to."""
        place = str(folder.resolve()) if folder else ""
        told = json.dumps([place, self.module, self.arguments], sort_keys=True, default=repr)
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Trust:
    """Which calls may run: all, or those with these digests.

    All are equal: a recipe is the same, whoever trusts it.
    """

    everything: bool = field(default=False, compare=False)
    digests: frozenset[str] = field(default=frozenset(), compare=False)

    @classmethod
    def of(cls, calls: Iterable[Code]) -> Trust:
        """Trust in this code."""
        return cls(digests=frozenset(call.digest() for call in calls))

    def __or__(self, other: Trust) -> Trust:
        return Trust(self.everything or other.everything, self.digests | other.digests)

    def require(self, call: Code, where: str) -> None:
        """Raises a `UserError` unless the call may run.

        Args:
            call: what would run.
            where: what names it, such as `"recipe NAME, network NAME"`.
        """
        if not self.everything and call.digest() not in self.digests:
            raise UserError(
                f"In {where}, {quoted(str(call), 200)} is somebody's code, which would be imported and run: if you "
                "trust where it comes from, add --trust (in Python, trust=True)."
            )


NOTHING = Trust()


def state_dir() -> Path:
    """The folder of what Zeuxis remembers of this user: `ZEUXIS_STATE`, else the system's place for it."""
    return Path(os.environ.get("ZEUXIS_STATE") or platformdirs.user_state_path("zeuxis"))


def remember(folder: Path, calls: Iterable[Code]) -> None:
    """Records that a run was made here with these calls; says so where it cannot."""
    from zeuxis.progress import say

    for call in calls:
        # A file for each: its name says it all, so that nothing must be parsed, and processes do not collide.
        content = json.dumps({"run": str(folder.resolve()), "calls": str(call)}, indent=2) + "\n"
        try:
            record = _record(call, folder)
            make_folder(record.parent)
            write_file(record, content)
        except UserError as error:
            say(f"{error} To open {folder} you will be asked for --trust.")


def made_here(folder: Path, calls: Iterable[Code]) -> Trust:
    """Trust in those of a run's calls that were recorded when it was made."""
    calls = list(calls)
    records = set((state_dir() / "made-here").glob("*.json")) if calls else set()
    return Trust.of(call for call in calls if _record(call, folder) in records)


def _record(call: Code, folder: Path) -> Path:
    return state_dir() / "made-here" / f"{call.digest(folder)}.json"
