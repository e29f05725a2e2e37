"""Numbers and snapshots for TensorBoard: `training.callbacks = ["tensorboard"]`, then `tensorboard --logdir runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from zeuxis.errors import UserError
from zeuxis.files import subfolder
from zeuxis.recipe import Section
from zeuxis.training.callbacks.base import CALLBACKS, Callback
from zeuxis.training.journal import COUNTERS, Line

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["TensorBoard"]


class TensorBoardOptions(Section):
    """Options of the writer."""

    images: bool = Field(True, description="also write snapshots")


@CALLBACKS.add("tensorboard")
class TensorBoard(Callback):
    """Writes every journal line and the snapshots into the run's `tensorboard` folder.

    Args:
        images: also write snapshots.
    """

    Options = TensorBoardOptions

    def __init__(self, images: bool = True) -> None:
        self.images = images

    def attached(self, trainer: Trainer) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                f"The callback tensorboard needs TensorBoard ({error}); install it with: pip install "
                '"zeuxis[tensorboard]"'
            ) from error
        self._make: Any = SummaryWriter

    def begin(self, trainer: Trainer) -> None:
        # Hides what a killed run wrote after its last checkpoint.
        self._writer = self._make(str(subfolder(trainer.folder, "tensorboard")), purge_step=trainer.step or None)

    def logged(self, trainer: Trainer, line: Line) -> None:
        for name, value in line.items():
            if name not in ("step", *COUNTERS):
                self._writer.add_scalar(name, value, line["step"])

    def snapshot(self, trainer: Trainer, images: np.ndarray) -> None:
        if self.images:
            self._writer.add_images("snapshot", images, trainer.step, dataformats="NHWC")

    def end(self, trainer: Trainer) -> None:
        self._writer.close()
