"""A cheap estimate of the Frechet distance while a model trains: when to stop, and which weights to keep.

It is taken of few samples, so it is larger than an evaluation's figure by about as much every time; what it is good
for is to be compared with itself.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from zeuxis.data import load, to_bytes, to_unit
from zeuxis.data.batches import make_batch
from zeuxis.errors import UserError
from zeuxis.evaluation.frechet import Moments, frechet_between
from zeuxis.evaluation.judge import Judge, find_judge, train_judge
from zeuxis.evaluation.measure import jackknife
from zeuxis.models import Generates, build_model
from zeuxis.recipe import Recipe
from zeuxis.training import Observer, Trainer, draw

__all__ = ["NAME", "RunningEstimate", "watching"]

NAME = "fid"
SAMPLES, IMAGES, GROUPS, CHUNK = 500, 2000, 5, 100
# Of the training time, at most this share goes into estimates.
SHARE = 0.1


def watching(recipe: Recipe, observer: Observer) -> Observer:
    """Returns an observer that also estimates the distance, if the recipe goes by it; else the observer itself.

    Raises:
        UserError: if the model makes no images.
    """
    if recipe.training.watched != NAME:
        return observer
    dataset = load(recipe.data, recipe=recipe.name)
    if not isinstance(build_model(recipe, dataset.classes), Generates):
        raise UserError(
            f"training.{'until' if recipe.training.until else 'best'} = '{NAME}' needs a model that makes images, and "
            f"'{recipe.model.name}' makes none."
        )
    images = recipe.data, dataset.classes, dataset.fingerprint
    return RunningEstimate(observer, find_judge(*images) or train_judge(*images))


class RunningEstimate:
    """Tells another observer all it hears, and adds the distance to every test.

    Args:
        other: told of what happens.
        judge: in whose features it is measured.
    """

    def __init__(self, other: Observer, judge: Judge) -> None:
        self.other, self.judge = other, judge
        self.measures = (*other.measures, NAME)
        self._real: Moments | None = None
        self._spent = 0.0

    def begin(self, trainer: Trainer) -> None:
        self._began = trainer.seconds
        self.other.begin(trainer)

    def stepped(self, trainer: Trainer) -> None:
        self.other.stepped(trainer)

    def recorded(self, line: dict[str, Any]) -> None:
        self.other.recorded(line)

    def say(self, text: str) -> None:
        self.other.say(text)

    def end(self) -> None:
        self.other.end()

    def tested(self, trainer: Trainer) -> dict[str, float]:
        found = self.other.tested(trainer)
        if self._spent > SHARE * (trainer.seconds - self._began) and trainer.progress < 1:
            return found
        began = time.perf_counter()
        if self._real is None:
            self._real = Moments.of(self.judge.features(self._images(trainer)))
        real, features = self._real, self.judge.features(self._samples(trainer)).astype(np.float64)

        def distance(chosen: np.ndarray) -> float:
            return frechet_between(Moments.of(features[chosen]), real)

        value = distance(np.ones(len(features), bool))
        stderr = jackknife(GROUPS, len(features), distance)
        self._spent += time.perf_counter() - began
        return found | {NAME: value, f"{NAME}_stderr": stderr}

    @staticmethod
    def _images(trainer: Trainer) -> np.ndarray:
        train = trainer.dataset.train
        chosen = np.sort(np.random.default_rng(0).choice(train, min(IMAGES, len(train)), replace=False))
        options = trainer.model.recipe.data
        batch = make_batch(trainer.dataset, options, chosen, torch.device("cpu"))
        return to_bytes(to_unit(batch.images, options.range).permute(0, 2, 3, 1).numpy())

    @staticmethod
    def _samples(trainer: Trainer) -> np.ndarray:
        """The same latents at every test, so that what differs is the model."""
        drawn = [draw(trainer.model, trainer.device, CHUNK, seed) for seed in range(SAMPLES // CHUNK)]
        return np.concatenate([images for images in drawn if images is not None])
