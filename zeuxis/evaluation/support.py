r"""Support: how many different images a generator makes, by the birthday paradox.

Among n uniform samples of S things, n (n - 1) / (2 S) pairs are expected to be equal. Two images count as equal if
their features are closer than tau, the distance below which `EXPECTED` pairs of as many real images lie, copies of one
image aside. With c such pairs among the samples,

    S = n (n - 1) / (2 (c - EXPECTED)).

With no pairs beyond `EXPECTED`, S is a lower bound: the support at which so few would be seen once in twenty times. A
support larger than n^2 / 6 is beyond what n samples can show.

Source: S. Arora, A. Risteski and Y. Zhang, Do GANs learn the distribution?, ICLR 2018, section 3.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, chosen, has_judge, measure, too_few
from zeuxis.evaluation.neighbourhoods import squared_distances

__all__ = ["support"]

MOST, EXPECTED = 2000, 5
# Two images are copies of one at a squared distance below this share of the mean; it covers rounding in float32.
COPIES = 3e-5
# Upper 95 % bound of an expected number of pairs of which none was observed.
FEWEST = 3
# In 20 images, `EXPECTED` pairs are one in forty; in fewer, they would not be rare.
FEWEST_IMAGES = 20


def close_pairs(x: np.ndarray, threshold: float) -> int:
    """Counts the pairs of `(N, F)` features whose squared distance is at most a threshold."""
    close = sum(int((squared <= threshold).sum()) for _, squared in squared_distances(x, x))
    return (close - len(x)) // 2


def support(samples: np.ndarray, images: np.ndarray) -> float:
    """Estimates the number of different images, from features `(N, F)` of as many samples as images."""
    n = min(len(samples), len(images))
    samples, images = samples[:n], images[:n]
    copies = COPIES * 2 * float(images.var(axis=0).sum())
    nearest = []
    for _, squared in squared_distances(images, images):  # every pair twice
        nearest.append(_smallest(squared[squared > copies], 2 * EXPECTED))
    smallest = _smallest(np.concatenate(nearest), 2 * EXPECTED)
    threshold = float(smallest[-1]) if len(smallest) else copies
    beyond = close_pairs(samples, threshold) - EXPECTED
    return n * (n - 1) / (2 * max(beyond, FEWEST))


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the smallest of `(N,)` values in order, at most `count`."""
    return np.sort(values if len(values) <= count else np.partition(values, count)[:count])


@measure(
    gives={
        "support": "number of different images it makes, by the birthday paradox; n samples can show at most n^2 / 6"
    },
    better="high",
    applies=has_judge,
)
def different(material: Material) -> Figures:
    x, y = material.sample_features[:MOST], chosen(material.reference_features, MOST)
    n = min(len(x), len(y))
    if reason := too_few(FEWEST_IMAGES, n, "images"):
        return {"support": reason}
    estimate = support(x, y)
    return {"support": Value(estimate, None, n, material.space, at_least=estimate >= n * (n - 1) / (2 * FEWEST))}
