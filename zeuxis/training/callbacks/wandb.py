"""A run for Weights & Biases: `zeuxis train RECIPE --track wandb`.

`WANDB_MODE=offline` keeps everything in the run's `wandb` folder, which `wandb sync` uploads later.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np
from pydantic import Field

from zeuxis.files import subfolder
from zeuxis.recipe import Section
from zeuxis.training.callbacks.base import CALLBACKS
from zeuxis.training.callbacks.tracking import Tracker
from zeuxis.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["WeightsAndBiases"]

KEY = "tracking/wandb"


class WandbOptions(Section):
    """Options of Weights & Biases."""

    project: str = Field("zeuxis", min_length=1, description="the project that the run belongs to")
    entity: str = Field("", description="user or team; your default one if empty")
    mode: Literal["", "online", "offline"] = Field("", description="else what WANDB_MODE says, else online")
    images: bool = Field(True, description="also send snapshots")


@CALLBACKS.add("wandb")
class WeightsAndBiases(Tracker):
    """Writes to Weights & Biases.

    Args:
        project: the project that the run belongs to.
        entity: user or team; your default one if empty.
        mode: online or offline; as WANDB_MODE says if empty, else online.
        images: also send snapshots.
    """

    name, title, Options = "wandb", "Weights & Biases", WandbOptions

    def __init__(self, project: str = "zeuxis", entity: str = "", mode: str = "", images: bool = True) -> None:
        super().__init__(images)
        self.project, self.entity, self.mode, self._id = project, entity, mode, ""

    def load(self) -> None:
        # A training reports to its tracker and to nobody else; some of its parts look for the mode here alone.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if self.mode:
            os.environ["WANDB_MODE"] = self.mode
        import wandb

        self._wandb: Any = wandb

    def open(self, trainer: Trainer, settings: Mapping[str, Any]) -> None:
        continues, self._id = bool(self._id), self._id or uuid4().hex
        subfolder(trainer.folder, "wandb")
        self._run = self._wandb.init(
            project=self.project, entity=self.entity or None, dir=str(trainer.folder),
            id=self._id, resume="allow" if continues else None, name=trainer.folder.name, config=dict(settings),
            reinit="create_new", settings=self._wandb.Settings(console="off", quiet=True),
        )  # fmt: skip
        # Its own steps only rise; a resumed run writes those after its checkpoint again.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log({"step": step, **numbers})

    def draw(self, step: int, grid: np.ndarray) -> None:
        picture = grid.squeeze(-1) if grid.shape[2] == 1 else grid
        self._run.log({"step": step, "samples": self._wandb.Image(picture)})

    def close(self, final: Mapping[str, float], complete: bool) -> None:
        self._run.summary.update({f"final/{name}": value for name, value in final.items()})
        self._run.finish(exit_code=0 if complete else 1)

    def state(self) -> Mapping[str, Any]:
        return {KEY: self._id} if self._id else {}

    def restore(self, checkpoint: Checkpoint) -> None:
        self._id = checkpoint.state.get(KEY, "")
