"""The models of pythae at its defaults: networks, latents, optimiser, learning rate and batch size; final weights.

Source: C. Chadebec, L. J. Vincent and S. Allassonniere, Pythae, NeurIPS 2022. Runs in an environment of its own
(`pythae.txt`):

    python benchmarks/peers/with_pythae.py MODEL IMAGES.npz OUT.npz --minutes M
"""

from __future__ import annotations

import logging
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from exchange import Budget, Task, read_task, write_made
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEGAN, Adversarial_AE, Adversarial_AE_Config, VAEConfig, VAEGANConfig
from pythae.samplers import NormalSampler
from pythae.trainers import (
    AdversarialTrainer,
    AdversarialTrainerConfig,
    BaseTrainer,
    BaseTrainerConfig,
    CoupledOptimizerAdversarialTrainer,
    CoupledOptimizerAdversarialTrainerConfig,
)
from pythae.trainers.training_callbacks import TrainingCallback

MODELS = {
    "vae": (VAE, VAEConfig, BaseTrainer, BaseTrainerConfig),
    "aae": (Adversarial_AE, Adversarial_AE_Config, AdversarialTrainer, AdversarialTrainerConfig),
    "vaegan": (
        VAEGAN, VAEGANConfig, CoupledOptimizerAdversarialTrainer, CoupledOptimizerAdversarialTrainerConfig,
    ),
}  # fmt: skip


class TimeIsUpError(Exception):
    """Raised inside the trainer, which has no budget of time."""


class Stopwatch(TrainingCallback):
    """Ends training when the time is up."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def on_train_begin(self, training_config: Any, **_: Any) -> None:
        self.budget.start()

    def on_train_step_end(self, training_config: Any, **_: Any) -> None:
        if self.budget.spent(training_config.per_device_train_batch_size):
            raise TimeIsUpError


def train(task: Task) -> None:
    """Builds, trains and writes what was made."""
    logging.disable(logging.WARNING)
    build, describe, trainer, settings = MODELS[task.model]
    torch.manual_seed(task.seed)
    images = torch.from_numpy(task.train).permute(0, 3, 1, 2).float() / 255
    test = torch.from_numpy(task.test).permute(0, 3, 1, 2).float() / 255
    model = build(describe(input_dim=tuple(images.shape[1:])))
    budget = Budget(task.minutes)
    with TemporaryDirectory() as folder:
        wanted = settings(output_dir=folder, num_epochs=1_000_000, seed=task.seed)
        data = BaseDataset(images, torch.zeros(len(images)))
        training = trainer(model, data, training_config=wanted, callbacks=[Stopwatch(budget)])
        try:
            training.train()
        except TimeIsUpError:
            seconds = budget.seconds
    model = training.model.eval()
    sampler = NormalSampler(model)
    with torch.no_grad():
        samples = sampler.sample(num_samples=task.samples, batch_size=256, return_gen=True, save_sampler_config=False)
        # Of the posterior's mean, as all others do; its own `reconstruct` draws from the posterior.
        rebuilt = torch.cat(
            [model.decoder(model.encoder(part).embedding)["reconstruction"] for part in test.split(256)]
        )
    write_made(
        task, _pixels(samples), _pixels(rebuilt), budget, seconds, sum(p.numel() for p in model.parameters())
    )  # fmt: skip


def _pixels(images: torch.Tensor) -> np.ndarray:
    array: np.ndarray = images.permute(0, 2, 3, 1).cpu().numpy()
    return array


if __name__ == "__main__":
    train(read_task())
