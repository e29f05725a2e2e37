"""Registries of what is chosen by name: models, layers, losses, optimisers, callbacks and so on.

A registry has the entries that its own packages define, that installed packages offer as entry points of the group
`zeuxis.KIND`, and that plugins add. Modules are imported when a name is first looked up, so that a command that needs
no PyTorch does not wait for its import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from threading import get_ident
from typing import Generic, TypeVar, cast

from zeuxis.errors import UserError, one_of, quoted

__all__ = ["Registry"]

T = TypeVar("T")
E = TypeVar("E")


class Registry(Generic[T]):
    """Entries of one kind, by name.

    Args:
        kind: the kind in words, such as "data source".
        *packages: modules that register entries when they are imported; of a package, all its modules are imported.
    """

    def __init__(self, kind: str, *packages: str) -> None:
        self.kind, self.packages = kind, packages
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._loaded, self._loading = False, set[int]()

    def register(self, name: str, entry: T, origin: str = "") -> None:
        """Adds an entry.

        Args:
            name: its name.
            entry: what the name selects.
            origin: the module that it belongs to; by default the caller's.

        Raises:
            UserError: if another module has registered the name. A module that is loaded again replaces its entries.
        """
        origin = origin or _caller()
        known = self._origins.setdefault(name, origin)
        if known != origin:
            raise UserError(f"Two modules register the {self.kind} '{quoted(name)}': {known} and {origin}.")
        self._entries[name] = entry

    def add(self, name: str) -> Callable[[E], E]:
        """Returns a decorator that registers an object under a name; raises as `register`."""
        origin = _caller()

        def decorate(entry: E) -> E:
            self.register(name, cast("T", entry), origin)
            return entry

        return decorate

    def __getitem__(self, name: str) -> T:
        """Returns the entry with a name; if there is none, raises a `UserError` that suggests the nearest name."""
        if name not in self._entries:
            self.load()
        if name not in self._entries:
            raise one_of(self.kind, name, self)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self.load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Yields all names, sorted."""
        self.load()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self.load()
        return len(self._entries)

    def items(self) -> list[tuple[str, T]]:
        """Returns all names and entries, sorted by name."""
        return [(name, self._entries[name]) for name in self]

    def values(self) -> list[T]:
        """Returns all entries, sorted by name."""
        return [self._entries[name] for name in self]

    def load(self) -> None:
        """Imports all modules that register entries of this kind; a second thread waits until they are there."""
        thread = get_ident()
        if self._loaded or thread in self._loading:  # one of these modules may ask
            return
        self._loading.add(thread)
        try:
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
            self._loaded = True
        finally:
            self._loading.discard(thread)


def _caller() -> str:
    """Returns the name of the module that called the caller."""
    return str(sys._getframe(2).f_globals.get("__name__", ""))
