"""What takes part in a training beside the engine.

Everything that happens in a training but the updates themselves is a callback: averaging weights, testing, writing the
journal, drawing snapshots, saving checkpoints, showing progress. All have one life cycle,

    attached -> begin -> (iterated [-> tested, logged, snapshot])* -> end

and are told in the order of their list (`zeuxis.training.callbacks`). What one must remember over an interruption it
gives as its state, which is part of every checkpoint.
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
    """Takes part in a training; what is inherited from here does nothing.

    Attributes:
        Options: what a recipe may give it; the keyword arguments that it is made with.
        measures: names of the numbers that it adds to a test, which `training.best` and `training.until` may name.
    """

    Options: ClassVar[type[Section]] = Section
    measures: tuple[str, ...] = ()

    def attached(self, trainer: Trainer) -> None:
        """The trainer stands; nothing is written yet.

        Raises:
            UserError: if this training cannot have it.
        """

    def begin(self, trainer: Trainer) -> None:
        """Training starts, or goes on."""

    def iterated(self, trainer: Trainer) -> None:
        """An iteration is done; its numbers are `trainer.numbers`."""

    def tested(self, trainer: Trainer) -> Mapping[str, float]:
        """The held-out images were measured, and the model is as it would be used; returns more such numbers."""
        return {}

    def logged(self, trainer: Trainer, line: Line) -> None:
        """A line was written to the journal."""

    def snapshot(self, trainer: Trainer, images: np.ndarray) -> None:
        """A snapshot was made: `(N, H, W, C)` bytes."""

    def warned(self, words: str) -> None:
        """The user should know something."""

    def extended(self, trainer: Trainer) -> None:
        """A training that had ended gets a larger budget."""

    def end(self, trainer: Trainer) -> None:
        """Training has stopped, for whatever reason."""

    def used(self, trainer: Trainer) -> AbstractContextManager[object]:
        """While it holds, the model is as it would be used after training."""
        return nullcontext()

    def state(self) -> Mapping[str, Any]:
        """What it must remember: tensors, and plain values as JSON has them."""
        return {}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes its state from a checkpoint, which may be of a version without it."""


CALLBACKS: Registry[type[Callback]] = Registry("callback", "zeuxis.training.callbacks", "zeuxis.evaluation.running")
