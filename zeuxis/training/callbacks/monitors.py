"""Warns the user when the numbers show a problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeuxis.training.callbacks.base import Callback
from zeuxis.training.callbacks.records import note
from zeuxis.training.journal import Line
from zeuxis.training.monitors import Monitors

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["Warnings"]


class Warnings(Callback):
    """Runs the monitors on every journal line and writes their warnings to `warnings.jsonl`."""

    def begin(self, trainer: Trainer) -> None:
        self.monitors = Monitors(
            trainer.journal.lines, trainer.journal.roles, trainer.model.healthy, dict(trainer.model.options)
        )

    def logged(self, trainer: Trainer, line: Line) -> None:
        for words in self.monitors(line):
            note(trainer, words)
            trainer.say(words)
