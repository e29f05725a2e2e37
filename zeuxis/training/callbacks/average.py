"""Moving average of the networks that generate samples, for `training.ema`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zeuxis.models import Model
from zeuxis.training.callbacks.base import Callback
from zeuxis.training.checkpoint import Checkpoint, load_into

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["MovingAverage"]


class MovingAverage(Callback):
    """Averages the weights and replaces them by the average while the model is used."""

    everywhere = True

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def attached(self, trainer: Trainer) -> None:
        self.average = copy.deepcopy(_generating(trainer.model))

    def iterated(self, trainer: Trainer) -> None:
        # The decay rises from 0 in the first iterations, so that the average forgets the initial weights.
        decay = min(self.decay, trainer.step / (trainer.step + 10))
        source = _generating(trainer.model)
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), source.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
            for copied, buffer in zip(self.average.buffers(), source.buffers(), strict=True):
                copied.copy_(buffer)

    @contextmanager
    def used(self, trainer: Trainer) -> Iterator[None]:
        networks = trainer.model.networks
        trained = dict(_generating(trainer.model).items())
        networks.update(dict(self.average.items()))
        try:
            yield
        finally:
            networks.update(trained)

    def state(self) -> Mapping[str, Any]:
        return {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        load_into(self.average, checkpoint.part("average/"))


def _generating(model: Model) -> nn.ModuleDict:
    return nn.ModuleDict({name: model.net(name) for name in model.generating_networks})
