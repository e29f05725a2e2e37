r"""How many different images a generator makes, by the birthday paradox.

Among n even draws of S things n (n - 1) / (2 S) pairs are expected to be the same. Two images count as the same if
their features are closer than all but a few pairs of as many real images: tau is the distance that `EXPECTED` of their
pairs lie below. With c such pairs among the samples, beyond those that images have too,

    S = n (n - 1) / (2 (c - EXPECTED)),

and with none beyond, at least the S at which as few would be seen once in twenty times: a support larger than n^2 / 6
is more than n samples can tell.

Source: S. Arora, A. Risteski and Y. Zhang, Do GANs learn the distribution?, ICLR 2018, section 3.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, has_judge, measure, too_few
from zeuxis.evaluation.neighbourhoods import squared_distances

__all__ = ["support"]

MOST, EXPECTED = 2000, 5
# Pairs that a rate of none beyond chance stays below 95 times in 100.
FEWEST = 3
# Of 20 images `EXPECTED` pairs are a fortieth; of fewer they would be no rare ones.
FEWEST_IMAGES = 20


def close_pairs(x: np.ndarray, threshold: float) -> int:
    """Pairs among `(N, F)` features whose squared distance is at most a threshold."""
    found = sum(int((squared <= threshold).sum()) for _, squared in squared_distances(x, x))
    return (found - len(x)) // 2


def support(samples: np.ndarray, images: np.ndarray) -> float:
    """Estimated number of different images behind as many samples as there are images, from features `(N, F)`."""
    n = min(len(samples), len(images))
    samples, images = samples[:n], images[:n]
    nearest = [
        np.sort(squared, axis=None)[len(squared) :][: 2 * EXPECTED] for _, squared in squared_distances(images, images)
    ]
    threshold = float(np.sort(np.concatenate(nearest))[2 * EXPECTED - 1])
    beyond = close_pairs(samples, threshold) - EXPECTED
    return n * (n - 1) / (2 * max(beyond, FEWEST))


@measure(
    gives={"support": "different images it makes, by the birthday paradox; n^2 / 6 at most can be told"},
    better="high",
    applies=has_judge,
)
def different(material: Material) -> Figures:
    x, y = material.sample_features[:MOST], material.reference_features[:MOST]
    n = min(len(x), len(y))
    if reason := too_few(FEWEST_IMAGES, n, "images"):
        return {"support": reason}
    found = support(x, y)
    return {"support": Value(found, None, n, material.space, at_least=found >= n * (n - 1) / (2 * FEWEST))}
