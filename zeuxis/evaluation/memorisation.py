r"""Memorisation: whether samples lie nearer to the training images than new images do.

For each sample and each held-out image the distance to the nearest training image is taken, in pixels and in features.
The statistic is that of Mann and Whitney: the probability that a sample lies nearer than a held-out image. 0.5 is what
a generator of new images gives; 1 says that samples are copies. A generator that draws blurred or odd images lies
below or above for other reasons; so the share of samples nearer than all but one in a hundred held-out images is given
beside it, and the suspects are drawn. The share of those farther than all but one in a hundred are its very bad images.

Source: C. Meehan, K. Chaudhuri and S. Dasgupta, A Non-Parametric Test to Detect Data-Copying in Generative Models,
AISTATS 2020, section 3.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from zeuxis.data import to_bytes
from zeuxis.evaluation.agreement import Share
from zeuxis.evaluation.measure import Figures, Material, Value, has_judge, measure, too_few
from zeuxis.evaluation.neighbourhoods import squared_distances

__all__ = ["copying", "nearer", "tails"]

MOST, MOST_TRAINED = 2000, 20_000
# Held-out images, of which one in a hundred is spoken of.
FEWEST = 100
# A distance that rounding alone leaves in float32, as a share of a usual one.
NONE = 5e-3


def nearer(samples: np.ndarray, held_out: np.ndarray) -> tuple[float, float]:
    """Probability that one of the first distances `(N,)` is below one of the second `(M,)`, and its standard error."""
    n, m = len(samples), len(held_out)
    ranks = rankdata(np.concatenate([samples, held_out]))
    above = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)
    # Under "no difference"; the normal approximation of the test.
    return float(1 - above), float(np.sqrt((n + m + 1) / (12 * n * m)))


def copying(samples: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of samples and of held-out images, all `(*, F)`, to the nearest training image."""
    found = []
    for each in (samples, held_out):
        nearest = [np.sqrt(squared.min(axis=1)) for _, squared in squared_distances(each, train)]
        found.append(np.concatenate(nearest))
    return found[0], found[1]


def tails(samples: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the distances `(N,)` are below all but one in a hundred of others `(M,)`, and which are above.

    Where as many held-out images stand among the training images themselves, no distance at all is below.
    """
    nearest, farthest = np.quantile(held_out, (0.01, 0.99))
    return samples < max(nearest, NONE * np.median(held_out)), samples > farthest


@measure(
    gives={
        "copying_pixels": "probability that a sample lies nearer to a training image than a new image does, in pixels",
        "copying_features": "the same, in features",
        "suspects": "share of samples nearer to a training image than 99 % of new images are, in features",
        "outliers": "share of samples farther from every training image than 99 % of new images are, in features",
    },
    better="",  # far below 0.5 lie images that are like none
    applies=has_judge,
)
def memorised(material: Material) -> Figures:
    run = material.run
    samples = material.samples[:MOST]
    held_out = to_bytes(run.images(run.choose_images("test", MOST)))
    train = to_bytes(run.images(run.choose_images("train", MOST_TRAINED)))
    flat = [each.reshape(len(each), -1).astype(np.float32) / 255 for each in (samples, held_out, train)]
    pixels = copying(*flat)
    features = copying(material.sample_features[:MOST], material.features(held_out), material.features(train))
    suspects, outliers = tails(*features)
    reason = too_few(FEWEST, len(held_out), "held-out images")
    return {
        "copying_pixels": Value(*nearer(*pixels), len(samples)),
        "copying_features": Value(*nearer(*features), len(samples), material.space),
        "suspects": reason or Value(*Share.of(suspects), material.space),
        "outliers": reason or Value(*Share.of(outliers), material.space),
    }
