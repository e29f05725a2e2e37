"""Callbacks of a training, and their order."""

from __future__ import annotations

from collections.abc import Sequence

from zeuxis.models import Model
from zeuxis.training.callbacks.average import MovingAverage
from zeuxis.training.callbacks.base import CALLBACKS, Callback
from zeuxis.training.callbacks.display import Display
from zeuxis.training.callbacks.live import LiveDisplay, in_notebook
from zeuxis.training.callbacks.mirroring import Mirror
from zeuxis.training.callbacks.monitors import Warnings
from zeuxis.training.callbacks.rates import Rates
from zeuxis.training.callbacks.records import Records
from zeuxis.training.callbacks.saving import Checkpoints, Snapshots
from zeuxis.training.callbacks.testing import Testing
from zeuxis.training.callbacks.watch import Watch
from zeuxis.training.distributed import share
from zeuxis.training.schedules import schedule_of

__all__ = ["CALLBACKS", "Callback", "Display", "standard_callbacks"]


def standard_callbacks(model: Model, *, visible: bool = True, more: Sequence[Callback] = ()) -> list[Callback]:
    """Returns all callbacks of a training of this model, in their order.

    Weights are averaged first, so that tests see the average. Tests come before checkpoints, because they decide what
    is saved. A line is in the journal before the checkpoint of its step, which holds the state of all callbacks.

    Args:
        model: the model, with the run's recipe.
        visible: show progress.
        more: callbacks of the user, which come after those of the recipe.
    """
    recipe = model.recipe
    named: list[Callback] = []
    for i, choice in enumerate(recipe.training.callbacks):
        kind = CALLBACKS[choice.name]
        options = choice.read(kind.Options, f"Recipe {recipe.name}", f"training.callbacks.{i}")
        named.append(kind(**options.model_dump()))
    callbacks: list[Callback] = [
        *([MovingAverage(recipe.training.ema)] if recipe.training.ema else []),
        Testing(),
        Watch(),
        Records(),
        Warnings(),
        Snapshots(),
        Rates(schedule_of(recipe)),
        *named,
        *more,
        Checkpoints(),
        Mirror(),
        LiveDisplay() if visible and in_notebook() else Display(visible=visible),
    ]
    return [callback for callback in callbacks if callback.everywhere or share().main]
