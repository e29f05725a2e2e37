"""A run for TensorBoard: `zeuxis train RECIPE --track tensorboard`, then `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from zeuxis.files import subfolder
from zeuxis.recipe import Section
from zeuxis.training.callbacks.base import CALLBACKS
from zeuxis.training.callbacks.tracking import Tracker

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["TensorBoard"]


class TensorBoardOptions(Section):
    """Options of the writer."""

    images: bool = Field(True, description="also write snapshots")


@CALLBACKS.add("tensorboard")
class TensorBoard(Tracker):
    """Writes into the run's `tensorboard` folder.

    Args:
        images: also write snapshots.
    """

    name, title, Options = "tensorboard", "TensorBoard", TensorBoardOptions

    def load(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make: Any = SummaryWriter

    def open(self, trainer: Trainer, settings: Mapping[str, Any]) -> None:
        # Hides what a killed run wrote after its last checkpoint.
        purged = trainer.step + 1 if trainer.step else None
        self._writer = self._make(str(subfolder(trainer.folder, "tensorboard")), purge_step=purged)
        rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
        self._writer.add_text("settings", f"| key | value |\n|---|---|\n{rows}", trainer.step)
        self._settings = settings

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def draw(self, step: int, grid: np.ndarray) -> None:
        self._writer.add_image("samples", grid, step, dataformats="HWC")

    def close(self, final: Mapping[str, float], complete: bool) -> None:
        # The table of all runs, by settings and final numbers, under "HPARAMS".
        plain = {key: v if isinstance(v, bool | int | float | str) else str(v) for key, v in self._settings.items()}
        self._writer.add_hparams(plain, {f"final/{name}": v for name, v in final.items()}, run_name=".")
        self._writer.close()
