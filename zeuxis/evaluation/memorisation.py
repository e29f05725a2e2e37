r"""Memorisation: whether samples lie nearer to the training images than new images do.

For each sample and each held-out image, the distance to the nearest training image is computed, in pixels and in
features. The statistic is that of Mann and Whitney: the probability that a sample lies nearer than a held-out image. A
generator of new images gives 0.5; samples that are copies give 1. Blurred or odd images move the statistic up or down
for other reasons. So two more shares are given: the suspects, which lie nearer than 99 % of the held-out images (a
figure draws them), and the outliers, which lie farther than 99 %: very bad images.

Source: C. Meehan, K. Chaudhuri and S. Dasgupta, A Non-Parametric Test to Detect Data-Copying in Generative Models,
AISTATS 2020, section 3.
"""

from __future__ import annotations

import numpy as np
import scipy

from zeuxis.evaluation.agreement import Share
from zeuxis.evaluation.measure import Figures, Material, Value, has_judge, measure, too_few
from zeuxis.evaluation.neighbourhoods import squared_distances

__all__ = ["copying", "nearer", "tails"]

MOST, MOST_TRAINED = 2000, 20_000
# Held-out images needed for a quantile of one in a hundred.
FEWEST = 100
# Distance left by rounding in float32, as a share of the median distance.
NONE = 5e-3


def nearer(samples: np.ndarray, held_out: np.ndarray) -> tuple[float, float]:
    """Returns the probability that a distance of `(N,)` is below one of `(M,)`, and its standard error."""
    n, m = len(samples), len(held_out)
    ranks = scipy.stats.rankdata(np.concatenate([samples, held_out]))
    above = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)
    # Under the null hypothesis, by the normal approximation of the test.
    return float(1 - above), float(np.sqrt((n + m + 1) / (12 * n * m)))


def copying(samples: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distances of samples and of held-out images to the nearest training image; all are `(*, F)`."""
    distances = []
    for features in (samples, held_out):
        nearest = [np.sqrt(squared.min(axis=1)) for _, squared in squared_distances(features, train)]
        distances.append(np.concatenate(nearest))
    return distances[0], distances[1]


def tails(samples: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns masks of the distances `(N,)` below the 1 % quantile and above the 99 % quantile of others `(M,)`.

    Where 1 % of the held-out images are themselves among the training images, only exact copies count as below.
    """
    nearest, farthest = np.quantile(held_out, (0.01, 0.99))
    return samples < max(nearest, NONE * np.median(held_out)), samples > farthest


@measure(
    gives={
        "copying_pixels": "probability that a sample lies nearer to the training images than a new image, in pixels",
        "copying_features": "the same, in features",
        "suspects": "share of samples nearer to the training images than 99 % of new images, in features",
        "outliers": "share of samples farther from the training images than 99 % of new images, in features",
    },
    better="",  # far below 0.5, samples resemble no training image
    applies=has_judge,
)
def memorised(material: Material) -> Figures:
    samples, held_out = material.samples[:MOST], material.images_of("test", MOST)
    train = material.images_of("train", MOST_TRAINED)
    flat = [images.reshape(len(images), -1).astype(np.float32) / 255 for images in (samples, held_out, train)]
    pixels = copying(*flat)
    features = copying(
        material.sample_features[:MOST],
        material.features_of("test", MOST),
        material.features_of("train", MOST_TRAINED),
    )
    suspects, outliers = tails(*features)
    reason = too_few(FEWEST, len(held_out), "held-out images")
    return {
        "copying_pixels": Value(*nearer(*pixels), len(samples)),
        "copying_features": Value(*nearer(*features), len(samples), material.space),
        "suspects": reason or Value(*Share.of(suspects), material.space),
        "outliers": reason or Value(*Share.of(outliers), material.space),
    }
