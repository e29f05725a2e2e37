"""Models by name: every module of this package may register one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from zeuxis.errors import one_of
from zeuxis.models.base import Model
from zeuxis.recipe import Recipe

__all__ = ["build_model", "models", "register"]

_MODELS: dict[str, type[Model]] = {}
M = TypeVar("M", bound=type[Model])


def register(name: str) -> Callable[[M], M]:
    """Registers a class as the model of this name."""

    def add(cls: M) -> M:
        _MODELS[name] = cls
        return cls

    return add


def models() -> dict[str, type[Model]]:
    """Returns all models by name."""
    package = import_module("zeuxis.models")
    for module in iter_modules(package.__path__):
        import_module(f"zeuxis.models.{module.name}")
    return dict(sorted(_MODELS.items()))


def build_model(recipe: Recipe, classes: tuple[str, ...] | None = None) -> Model:
    """Builds the model of a recipe with its networks, weights drawn from the recipe's seed.

    Args:
        recipe: what to build.
        classes: names of the data's classes, or None where no data is at hand.

    Raises:
        UserError: for an unknown model, wrong options, or networks that do not fit.
    """
    known = models()
    if recipe.model.name not in known:
        raise one_of("model", recipe.model.name, known)
    return known[recipe.model.name](recipe, classes)
