"""Makes snapshots and saves checkpoints when they are due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeuxis.files import subfolder
from zeuxis.training.callbacks.base import Callback
from zeuxis.training.snapshots import generate, save_tiles

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["Checkpoints", "Snapshots"]


class Snapshots(Callback):
    """Makes snapshots of the same latents at the start, when they are due, and at the end."""

    def begin(self, trainer: Trainer) -> None:
        if trainer.step == 0:
            self._draw(trainer)

    def iterated(self, trainer: Trainer) -> None:
        if trainer.is_due(trainer.options.snapshot_every) or trainer.complete:
            self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        with trainer.as_used():
            images = generate(trainer.model, trainer.device)
        if images is None:
            return
        save_tiles(subfolder(trainer.folder, "snapshots") / f"step-{trainer.step:08d}.png", images)
        for callback in trainer.callbacks:
            callback.snapshot(trainer, images)


class Checkpoints(Callback):
    """Saves checkpoints when they are due, at the end, and when the weights are the best so far.

    A training that starts from another run's weights saves them first, so that it can be resumed from its first step.
    """

    def begin(self, trainer: Trainer) -> None:
        if trainer.warm and trainer.step == 0:
            self._save(trainer)

    def iterated(self, trainer: Trainer) -> None:
        if trainer.saves:
            self._save(trainer)

    @staticmethod
    def _save(trainer: Trainer) -> None:
        trainer.checkpoint().save(subfolder(trainer.folder, "checkpoints"))
