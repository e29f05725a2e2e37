"""The task's VAE in pythae's trainer, with the same networks."""

from __future__ import annotations

import contextlib
import logging
import time
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from rounds import claim_output, read_task, wanted
from with_torch import network


class NoMoreRoundsError(Exception):
    """Raised inside the trainer, which has no other way to stop early."""


class Rounds(TrainingCallback):
    """Pauses the training after each round until the next is requested."""

    def __init__(self) -> None:
        self.answers = claim_output()

    def on_train_begin(self, training_config: Any, **_: Any) -> None:
        self._hold("ready")

    def on_train_step_end(self, training_config: Any, **_: Any) -> None:
        self.left -= 1
        if not self.left:
            self._hold(time.perf_counter() - self.started)

    def _hold(self, answer: object) -> None:
        self.left = wanted(self.answers, answer)
        if not self.left:
            raise NoMoreRoundsError
        self.started = time.perf_counter()


class Encoder(BaseEncoder):
    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__()
        self.layers = network(described)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        mean, logvar = self.layers(x).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=logvar)


class Decoder(BaseDecoder):
    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__()
        self.layers = network(described)

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


def main() -> None:
    """Trains until no more rounds are requested."""
    rounds, task = Rounds(), read_task()
    logging.disable(logging.WARNING)
    with np.load(task["images"]) as arrays:
        images = torch.from_numpy(arrays["train"]).permute(0, 3, 1, 2).contiguous().float() / 255
    config = VAEConfig(input_dim=tuple(images.shape[1:]), latent_dim=task["latent"], reconstruction_loss="bce")
    encoder, decoder = (Kind(task["networks"][name]) for name, Kind in (("encoder", Encoder), ("decoder", Decoder)))
    model = VAE(config, encoder=encoder, decoder=decoder)
    with TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder, num_epochs=1_000_000, per_device_train_batch_size=task["batch"],
            learning_rate=task["rate"],
        )  # fmt: skip
        data = BaseDataset(images, torch.zeros(len(images)))
        with contextlib.suppress(NoMoreRoundsError):
            BaseTrainer(model, data, training_config=settings, callbacks=[rounds]).train()


if __name__ == "__main__":
    main()
