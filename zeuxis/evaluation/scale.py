"""Two distances that give the others a scale: of real images from one another, and of noise from the images.

The floor is the distance between as many training images as there are samples, or all of them, and the held-out images:
what a generator would score whose samples are as good as the training images. Fewer training images than samples make
it too high. Where held-out images are few, samples are compared with the N training images, and the floor comes from
two halves of these: n and N images of one distribution are apart by about c (1/n + 1/N), and two halves by
c (2/N + 2/N). Its error is then the deviation over random halves. Noise has the mean and the deviation of the images in
every pixel and channel, and nothing else of them: samples as far away as noise have learned nothing.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.frechet import distance_value, frechet_distance
from zeuxis.evaluation.general import by_general_judge, general_applies
from zeuxis.evaluation.measure import (
    ENOUGH,
    Figures,
    Material,
    Value,
    has_judge,
    measure,
    too_few,
)

__all__ = ["noise_like"]

FEWEST, SPLITS = 100, 3
# Noise is so far from images that more of it would not change the distance's leading digits.
MOST_NOISE = 2000


def noise_like(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Up to `MOST_NOISE` images `(M, H, W, C)` with the mean and deviation of every number of `(N, H, W, C)` bytes."""
    mean, deviation = images.mean(axis=0), images.std(axis=0)
    noise = np.random.default_rng(seed).normal(size=images[:MOST_NOISE].shape) * deviation + mean
    pixels: np.ndarray = np.rint(noise).clip(0, 255).astype(np.uint8)
    return pixels


def _floor(judged: Material) -> Value | str:
    """The floor, in the features of a judge."""
    if len(judged.run.dataset.test) >= ENOUGH:  # the images that samples are compared with
        return distance_value(judged, judged.features_of("train"))
    features = judged.reference_features
    if reason := too_few(FEWEST, count := len(features), "images"):
        return reason
    numbers, distances = np.random.default_rng(judged.seed), []
    for _ in range(SPLITS):
        shuffled = features[numbers.permutation(count)]
        distances.append(frechet_distance(shuffled[: count // 2], shuffled[count // 2 :]))
    share = (1 / judged.n + 1 / count) / (4 / count)
    return Value(share * float(np.mean(distances)), share * float(np.std(distances, ddof=1)), count, judged.space)


def _noise(judged: Material) -> Value | str:
    """The distance of noise, in the features of a judge."""
    return distance_value(judged, judged.features(noise_like(judged.reference, judged.seed)))


@measure(
    gives={
        "fid_floor": "the Frechet distance of training images from held-out images",
        "fid_noise": "the Frechet distance of noise with the images' means and deviations",
    },
    better="",
    applies=has_judge,
)
def scale(material: Material) -> Figures:
    return {"fid_floor": _floor(material), "fid_noise": _noise(material)}


@measure(
    gives={
        "general_fid_floor": "the same floor in the features of a general network",
        "general_fid_noise": "the same distance of noise in the features of a general network",
    },
    better="",
    applies=general_applies,
)
def general_scale(material: Material) -> Figures:
    judged = by_general_judge(material)
    return {"general_fid_floor": _floor(judged), "general_fid_noise": _noise(judged)}
