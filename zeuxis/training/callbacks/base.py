"""Callbacks, which take part in a training beside the engine.

Everything in a training except the updates themselves is a callback: averaging weights, testing, writing the journal,
making snapshots, saving checkpoints, showing progress. All have the same life cycle,

    attached -> begin -> (iterated [-> tested, logged, snapshot])* -> end

and are called in the order of their list (`zeuxis.training.callbacks`). What a callback must remember across an
interruption is its `state`, which is part of every checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zeuxis.recipe import Section
from zeuxis.registry import Registry
from zeuxis.training.checkpoint import Checkpoint
from zeuxis.training.journal import Line

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["CALLBACKS", "Callback"]


class Callback:
    """Base of all callbacks; its methods do nothing.

    Attributes:
        Options: its options in a recipe, which are passed to it as keyword arguments.
        measures: names of the numbers that it adds to a test; `training.best` and `training.until` may name them.
        everywhere: where several processes train together, whether it takes part in all of them; else in the main one.
    """

    Options: ClassVar[type[Section]] = Section
    measures: tuple[str, ...] = ()
    everywhere: ClassVar[bool] = False

    def attached(self, trainer: Trainer) -> None:
        """Called when the trainer is built, before anything is written.

        Raises:
            UserError: if the callback does not work with this training.
        """

    def begin(self, trainer: Trainer) -> None:
        """Called when training starts or resumes."""

    def iterated(self, trainer: Trainer) -> None:
        """Called after an iteration; its numbers are `trainer.numbers`."""

    def tested(self, trainer: Trainer) -> Mapping[str, float]:
        """Called after a test, with the model as it would be used; returns further test numbers."""
        return {}

    def logged(self, trainer: Trainer, line: Line) -> None:
        """Called after a line was written to the journal."""

    def snapshot(self, trainer: Trainer, images: np.ndarray) -> None:
        """Called after a snapshot of images, `(N, H, W, C)` bytes."""

    def warned(self, words: str) -> None:
        """Called with a message for the user."""

    def extended(self, trainer: Trainer) -> None:
        """Called when a training that had ended gets a larger budget."""

    def stopping(self) -> None:
        """Called at once when a signal asks to stop, in the middle of an iteration: it must do very little."""

    def end(self, trainer: Trainer) -> None:
        """Called when training stops, for whatever reason."""

    def used(self, trainer: Trainer) -> AbstractContextManager[object]:
        """Returns a context in which the model is as it would be used after training."""
        return nullcontext()

    def state(self) -> Mapping[str, Any]:
        """Returns what it must remember: tensors, and plain JSON values."""
        return {}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restores its state from a checkpoint, which may come from a version without this callback."""


CALLBACKS: Registry[type[Callback]] = Registry("callback", "zeuxis.training.callbacks", "zeuxis.evaluation.running")
