r"""Precision, recall, density and coverage: which samples lie among the images, and which images among the samples.

The neighbourhood of a point is the ball around it that reaches its k-th nearest neighbour in its own set.

- precision: share of samples that lie in the neighbourhood of some image;
- recall: share of images that lie in the neighbourhood of some sample;
- density: mean number of image neighbourhoods that a sample lies in, divided by k;
- coverage: share of images whose neighbourhood contains some sample.

An outlier among the images has a wide neighbourhood, which inflates precision and recall; density and coverage are
robust to it.

Sources: T. Kynkaanniemi, T. Karras, S. Laine, J. Lehtinen and T. Aila, Improved Precision and Recall Metric for
Assessing Generative Models, NeurIPS 2019, equation 1; M. F. Naeem, S. J. Oh, Y. Uh, Y. Choi and J. Yoo, Reliable
Fidelity and Diversity Metrics for Generative Models, ICML 2020, equations 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zeuxis.evaluation.agreement import Share
from zeuxis.evaluation.measure import Figures, Material, Value, chosen, has_judge, measure, too_few

__all__ = ["neighbourhoods"]

K, MOST, CHUNK = 5, 10_000, 1000


def squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields, for a slice of `(N, F)` rows at a time, their squared Euclidean distances `(n, M)` to `(M, F)`."""
    x, y = x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)
    norms = np.einsum("ij,ij->i", y, y)
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        squared = np.square(part).sum(axis=1)[:, None] - 2 * part @ y.T + norms
        yield slice(start, start + len(part)), np.maximum(squared, 0)


def radii(x: np.ndarray, k: int) -> np.ndarray:
    """Computes the squared distance `(N,)` of each of `(N, F)` points to its k-th nearest neighbour."""
    return np.concatenate([np.partition(squared, k, axis=1)[:, k] for _, squared in squared_distances(x, x)])


def neighbourhoods(samples: np.ndarray, images: np.ndarray, k: int = K) -> dict[str, np.ndarray]:
    """Computes the contribution of each sample or image to a measure; the measure is their mean.

    Args:
        samples: features `(N, F)`.
        images: features `(M, F)`.
        k: which nearest neighbour a neighbourhood reaches to.

    Returns:
        `precision` and `density`, `(N,)`; `recall` and `coverage`, `(M,)`.
    """
    around_images, around_samples = radii(images, k), radii(samples, k)
    counts, nearest = np.zeros(len(samples)), np.full(len(images), np.inf)
    recalled = np.zeros(len(images), bool)
    for rows, squared in squared_distances(samples, images):
        counts[rows] = (squared <= around_images).sum(axis=1)
        nearest = np.minimum(nearest, squared.min(axis=0))
        recalled |= (squared <= around_samples[rows, None]).any(axis=0)
    return {
        "precision": (counts > 0).astype(float), "recall": recalled.astype(float),
        "density": counts / k, "coverage": (nearest <= around_images).astype(float),
    }  # fmt: skip


@measure(
    gives={
        "precision": "share of samples that lie among the images",
        "recall": "share of images that lie among the samples",
        "density": "how densely samples lie where the images lie",
        "coverage": "share of images with a sample in their neighbourhood",
    },
    better="high",
    applies=has_judge,
)
def prdc(material: Material) -> Figures:
    names = ("precision", "recall", "density", "coverage")
    if reason := too_few(K + 1, len(material.reference_features), "images"):
        return dict.fromkeys(names, reason)
    contributions = neighbourhoods(material.sample_features[:MOST], chosen(material.reference_features, MOST))
    shares = {name: Value(*Share.of(contributions[name] > 0), material.space) for name in names if name != "density"}
    return shares | {"density": Value.mean(contributions["density"], material.space)}
