"""Decides which code may run.

A recipe can name the user's own Python code: a plugin's file, or a network's module by its dotted path. Importing code
runs it, so a recipe or a run from somebody else must not decide that. Trust is given to the content of a plugin, or to
a call: the module's path with its arguments. It has only three sources:

- the user names the recipe file, or the setting, that names the code;
- the user says so: `--trust`, or `trust=True`;
- this user made the run here. Its calls are recorded in `state_dir()`, outside the run, where nothing that comes with
  a run can write.
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

__all__ = ["NOTHING", "Call", "Code", "Trust", "UntrustedError", "made_here", "remember", "state_dir"]


class UntrustedError(UserError):
    """Code that would be run and that nobody has trusted."""


class Code(Protocol):
    """Code that would be run; its `str` describes it in words."""

    def digest(self, folder: Path | None = None) -> str:
        """Returns the SHA-256 of the code, and of the run that it belongs to."""
        ...


@dataclass(frozen=True)
class Call:
    """A module that a recipe names to be called.

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
        """Returns the SHA-256 of the call, and of the run that it belongs to."""
        place = str(folder.resolve()) if folder else ""
        content = json.dumps([place, self.module, self.arguments], sort_keys=True, default=repr)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Trust:
    """Which code may run: all, or code with one of these digests.

    All instances compare equal, so that a recipe's trust does not affect its equality.
    """

    everything: bool = field(default=False, compare=False)
    digests: frozenset[str] = field(default=frozenset(), compare=False)

    @classmethod
    def of(cls, calls: Iterable[Code]) -> Trust:
        """Returns trust in some code."""
        return cls(digests=frozenset(call.digest() for call in calls))

    def __or__(self, other: Trust) -> Trust:
        return Trust(self.everything or other.everything, self.digests | other.digests)

    def require(self, call: Code, where: str) -> None:
        """Raises an `UntrustedError` unless the code may run.

        Args:
            call: the code.
            where: what names it, such as `"recipe NAME, network NAME"`.
        """
        if not self.everything and call.digest() not in self.digests:
            raise UntrustedError(
                f"In {where}, {quoted(str(call), 200)} is code that would be imported and run: if you trust its "
                "source, add --trust (in Python, trust=True)."
            )


NOTHING = Trust()


def state_dir() -> Path:
    """Returns the folder of Zeuxis's records about this user: `ZEUXIS_STATE`, else the platform's state directory."""
    return Path(os.environ.get("ZEUXIS_STATE") or platformdirs.user_state_path("zeuxis"))


def remember(folder: Path, calls: Iterable[Code]) -> None:
    """Records that a run was made here with these calls; prints a notice if it cannot."""
    from zeuxis.progress import say

    for call in calls:
        # One file per call: its name is the whole record, so nothing needs parsing and processes do not collide.
        content = json.dumps({"run": str(folder.resolve()), "calls": str(call)}, indent=2) + "\n"
        try:
            record = _record(call, folder)
            make_folder(record.parent)
            write_file(record, content)
        except UserError as error:
            say(f"{error} To open {folder} you will be asked for --trust.")


def made_here(folder: Path, calls: Iterable[Code]) -> Trust:
    """Returns trust in those of a run's calls that were recorded when the run was made."""
    calls = list(calls)
    records = set((state_dir() / "made-here").glob("*.json")) if calls else set()
    return Trust.of(call for call in calls if _record(call, folder) in records)


def _record(call: Code, folder: Path) -> Path:
    return state_dir() / "made-here" / f"{call.digest(folder)}.json"
