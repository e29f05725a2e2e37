"""Things chosen by name: models, layers, losses, optimisers, callbacks and the rest.

A registry knows what its own packages define, what installed packages offer as entry points of the group
`zeuxis.KIND`, and what plugins add. Modules are imported when a name is first asked for, so that a command that needs
no PyTorch does not wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Generic, TypeVar, cast

from zeuxis.errors import UserError, one_of, quoted

__all__ = ["Registry"]

T = TypeVar("T")
E = TypeVar("E")


class Registry(Generic[T]):
    """Entries of one kind by name.

    Args:
        kind: what they are, in words, such as "data source".
        *packages: modules that register some when they are imported; of a package, all that it holds.
    """

    def __init__(self, kind: str, *packages: str) -> None:
        self.kind, self.packages = kind, packages
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._loaded = False

    def register(self, name: str, entry: T, origin: str = "") -> None:
        """Adds an entry.

        Args:
            name: to choose it by.
            entry: what is chosen.
            origin: the module that it is of; else the one that calls.

        Raises:
            UserError: if another module has registered the name. A module that is loaded again replaces what it had.
        """
        origin = origin or _caller()
        known = self._origins.setdefault(name, origin)
        if known != origin:
            raise UserError(f"Two modules register the {self.kind} '{quoted(name)}': {known} and {origin}.")
        self._entries[name] = entry

    def add(self, name: str) -> Callable[[E], E]:
        """Registers what it decorates under a name; raises as `register`."""
        origin = _caller()

        def decorate(entry: E) -> E:
            self.register(name, cast("T", entry), origin)
            return entry

        return decorate

    def __getitem__(self, name: str) -> T:
        """Returns the entry of a name; raises a `UserError` with the nearest name if there is none."""
        if name not in self._entries:
            self.load()
        if name not in self._entries:
            raise one_of(self.kind, name, self)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self.load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """All names, sorted."""
        self.load()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self.load()
        return len(self._entries)

    def items(self) -> list[tuple[str, T]]:
        """All names and entries, sorted by name."""
        return [(name, self._entries[name]) for name in self]

    def values(self) -> list[T]:
        """All entries, sorted by name."""
        return [self._entries[name] for name in self]

    def load(self) -> None:
        """Imports everything that registers entries of this kind."""
        if self._loaded:
            return
        self._loaded = True
        for package in self.packages:
            module = import_module(package)
            for inner in iter_modules(getattr(module, "__path__", [])):
                import_module(f"{package}.{inner.name}")
        for point in entry_points(group=f"zeuxis.{self.kind.replace(' ', '_')}"):
            try:
                point.load()
            except Exception as error:
                raise UserError(
                    f"The {self.kind} '{point.name}' of {point.value} cannot be loaded: {error}."
                ) from error


def _caller() -> str:
    """The module that called the caller."""
    return str(sys._getframe(2).f_globals.get("__name__", ""))
