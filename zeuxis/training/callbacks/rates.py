"""Sets the learning rates according to the recipe's schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeuxis.training.callbacks.base import Callback
from zeuxis.training.schedules import Schedule

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["Rates"]


class Rates(Callback):
    """Sets the rate of every phase for the next iteration, from the used share of the budget."""

    everywhere = True

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def begin(self, trainer: Trainer) -> None:
        self.iterated(trainer)

    def iterated(self, trainer: Trainer) -> None:
        for update in trainer.updates.values():
            update.set_rate(self.schedule.rate(trainer.progress))
