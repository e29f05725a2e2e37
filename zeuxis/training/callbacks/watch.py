"""Watches the number that decides which weights are the best and when a training has settled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zeuxis.errors import one_of
from zeuxis.training.callbacks.base import CALLBACKS, Callback
from zeuxis.training.callbacks.testing import held_out_terms
from zeuxis.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["Watch"]


class Watch(Callback):
    """Marks the best checkpoint by `training.best`, and ends a training whose `training.until` no longer falls."""

    def __init__(self) -> None:
        self.best: tuple[float, int] | None = None  # value and step
        # Tests up to this step do not count against the patience.
        self.watched_from = 0

    def attached(self, trainer: Trainer) -> None:
        watched = trainer.options.watched
        if not watched:
            return
        known = [*held_out_terms(trainer, 2), *(name for callback in trainer.callbacks for name in callback.measures)]
        if watched in known:
            return
        # A callback that adds the number to every test joins if the recipe names it.
        others = {name: kind for kind in CALLBACKS.values() for name in kind.measures}
        if watched not in others:
            option = "until" if trainer.options.until else "best"
            raise one_of(f"test term for training.{option}", watched, [*known, *others])
        trainer.callbacks.insert(0, others[watched]())
        trainer.callbacks[0].attached(trainer)

    def iterated(self, trainer: Trainer) -> None:
        name = trainer.options.watched
        if name not in trainer.tests:
            return
        value = trainer.tests[name]
        if self.best is None or value < self.best[0]:
            self.best = (value, trainer.step)
            trainer.saving = True
        if trainer.options.until and self._has_settled(trainer):
            trainer.settle()
            trainer.say(f"{trainer.folder.name} has settled at epoch {trainer.epoch:.3g}: {name} no longer falls.")

    def _has_settled(self, trainer: Trainer) -> bool:
        """Whether the number has not fallen by more than its error during the last `patience` tests."""
        name = trainer.options.until
        previous = [
            (line["step"], line[f"test/{name}"], line.get(f"test/{name}_stderr", 0.0))
            for line in trainer.journal.lines
            if f"test/{name}" in line
        ]
        current = (trainer.step, trainer.tests[name], trainer.tests.get(f"{name}_stderr", 0.0))
        lowest, tests_since = math.inf, 0
        for step, value, stderr in [*previous, current]:
            if value < lowest - stderr:
                lowest, tests_since = value, 0
            elif step > self.watched_from:
                tests_since += 1
        return tests_since >= trainer.options.patience

    def extended(self, trainer: Trainer) -> None:
        self.watched_from = trainer.step

    def state(self) -> Mapping[str, Any]:
        return {"best": self.best, "watched_from": self.watched_from}

    def restore(self, checkpoint: Checkpoint) -> None:
        best = checkpoint.state["best"]
        self.best = (best[0], best[1]) if best else None
        self.watched_from = checkpoint.state.get("watched_from", 0)
