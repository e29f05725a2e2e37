"""A cheap estimate of the Frechet distance during training: it decides when to stop and which weights to keep.

It uses few samples, so it exceeds the figure of an evaluation by about the same amount every time. Compare it only with
itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch

from zeuxis.data import to_bytes, to_unit
from zeuxis.data.batches import make_batch
from zeuxis.errors import UserError
from zeuxis.evaluation.feature_cache import judge_images_once
from zeuxis.evaluation.frechet import Moments, frechet_between
from zeuxis.evaluation.judge import find_judge, train_judge
from zeuxis.evaluation.measure import jackknife
from zeuxis.models import Generates
from zeuxis.training import CALLBACKS, Callback, Trainer, generate

__all__ = ["NAME", "RunningDistance"]

NAME = "fid"
SAMPLES, IMAGES, GROUPS, CHUNK = 500, 2000, 5, 100
# Estimates take at most this share of the training time.
SHARE = 0.1


@CALLBACKS.add(NAME)
class RunningDistance(Callback):
    """Adds the distance between training images and samples to every test."""

    measures = (NAME,)

    def __init__(self) -> None:
        self._real: Moments | None = None
        self._spent = 0.0

    def attached(self, trainer: Trainer) -> None:
        recipe = trainer.model.recipe
        if not isinstance(trainer.model, Generates):
            raise UserError(
                f"training.{'until' if recipe.training.until else 'best'} = '{NAME}' needs a model that generates "
                f"images, and '{recipe.model.name}' does not. Choose another measure."
            )
        if len(trainer.dataset.train) < 2:
            raise UserError("The distance in training needs at least 2 training images, and there is 1.")
        images = recipe.data, trainer.dataset.classes, trainer.dataset.fingerprint
        self.judge = find_judge(*images) or train_judge(*images)

    def begin(self, trainer: Trainer) -> None:
        self._began = trainer.seconds

    def tested(self, trainer: Trainer) -> Mapping[str, float]:
        if self._spent > SHARE * (trainer.seconds - self._began) and not trainer.complete:
            return {}
        began = time.perf_counter()
        if self._real is None:
            self._real = Moments.of(judge_images_once(self.judge, self._images(trainer))[0])
        real, features = self._real, self.judge.features(self._samples(trainer)).astype(np.float64)

        def distance(mask: np.ndarray) -> float:
            return frechet_between(Moments.of(features[mask]), real)

        value = distance(np.ones(len(features), bool))
        stderr = jackknife(GROUPS, len(features), distance)
        self._spent += time.perf_counter() - began
        return {NAME: value, f"{NAME}_stderr": stderr}

    @staticmethod
    def _images(trainer: Trainer) -> np.ndarray:
        train = trainer.dataset.train
        indices = np.sort(np.random.default_rng(0).choice(train, min(IMAGES, len(train)), replace=False))
        options = trainer.model.recipe.data
        batch = make_batch(trainer.dataset, options, indices, torch.device("cpu"))
        return to_bytes(to_unit(batch.images, options.range).permute(0, 2, 3, 1).numpy())

    @staticmethod
    def _samples(trainer: Trainer) -> np.ndarray:
        """Generates from the same latents at every test, so that only the model differs; classes as in the images."""
        data, chunks = trainer.dataset, []
        for seed in range(SAMPLES // CHUNK):
            train = np.random.default_rng(seed).choice(data.train, CHUNK)
            labels = None if data.labels is None else data.labels[train]
            chunks.append(generate(trainer.model, trainer.device, CHUNK, seed, labels))
        return np.concatenate([images for images in chunks if images is not None])
