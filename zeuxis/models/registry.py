"""The registry of models by name."""

from __future__ import annotations

from zeuxis.models.base import Model
from zeuxis.recipe import Recipe
from zeuxis.registry import Registry

__all__ = ["MODELS", "build_model", "register"]

MODELS: Registry[type[Model]] = Registry("model", "zeuxis.models")
register = MODELS.add


def build_model(recipe: Recipe, classes: tuple[str, ...] | None = None) -> Model:
    """Builds the model of a recipe with its networks; weights are sampled with the recipe's seed.

    Args:
        recipe: the recipe.
        classes: names of the data's classes; None if no data is loaded.

    Raises:
        UserError: for an unknown model, wrong options, or networks that do not fit.
    """
    return MODELS[recipe.model.name](recipe, classes)
