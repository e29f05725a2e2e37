r"""Frechet distance of two sets of features, each modelled as a normal distribution.

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

With the features of the Inception network it is the FID; the number means nothing without the name of its features.
With N samples it is too large by about c / N, where c depends on the model. So it is also computed for smaller N, and a
line fitted to d^2 against 1 / N is extrapolated to 1 / N = 0.

Sources: M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler and S. Hochreiter, GANs Trained by a Two Time-Scale
Update Rule Converge to a Local Nash Equilibrium, NeurIPS 2017, equation 6; M. J. Chong and D. Forsyth, Effectively
Unbiased FID and Inception Score, CVPR 2020, section 4 (the line).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, has_judge, jackknife, measure, too_few

__all__ = ["Moments", "distance_value", "extrapolated", "frechet_between", "frechet_distance"]

GROUPS = 10
POINTS, SMALLEST = 8, 0.25


@dataclass(frozen=True)
class Moments:
    """Mean `(F,)` and covariance `(F, F)` of features."""

    mean: np.ndarray
    covariance: np.ndarray

    @cached_property
    def root(self) -> np.ndarray:
        """The symmetric root of the covariance, `(F, F)`."""
        values, vectors = np.linalg.eigh(self.covariance)
        root: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        return root

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """Computes the moments of `(N, F)` features, in float64."""
        doubles = features.astype(np.float64)
        return cls(doubles.mean(axis=0), np.atleast_2d(np.cov(doubles, rowvar=False)))


def frechet_between(one: Moments, two: Moments) -> float:
    """Computes the squared Frechet distance of two normal distributions; keeps the root of the second."""
    # C_1 C_2 has the eigenvalues of R C_1 R with R^2 = C_2, which is symmetric: faster, and never complex.
    eigenvalues = np.linalg.eigvalsh(two.root @ one.covariance @ two.root)
    spread = np.trace(one.covariance) + np.trace(two.covariance) - 2 * np.sqrt(np.maximum(eigenvalues, 0)).sum()
    return float(max(np.square(one.mean - two.mean).sum() + spread, 0.0))


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Computes the squared Frechet distance of features `(N, F)` and `(M, F)`, in float64."""
    return frechet_between(Moments.of(x), Moments.of(y))


def extrapolated(x: np.ndarray, real: Moments, seed: int = 0) -> float:
    """Extrapolates the distance to infinitely many samples, from `(N, F)` features."""
    shuffled = x[np.random.default_rng(seed).permutation(len(x))]
    sizes = np.linspace(SMALLEST, 1, POINTS) * len(x)
    distances = [frechet_between(Moments.of(shuffled[: int(size)]), real) for size in sizes]
    return float(np.polyfit(1 / sizes, distances, 1)[1])


def distance_value(material: Material, features: np.ndarray | None = None) -> Value | str:
    """The distance of a material's samples, or of other images, from the images that it compares with.

    Args:
        material: gives the samples, the images and their features.
        features: `(N, F)` of images to measure in place of the samples.

    Returns:
        The distance with its jackknife error, or the reason why it cannot be computed.
    """
    x = material.sample_features if features is None else features
    if reason := too_few(4, min(len(material.reference_features), len(x)), "images"):
        return reason
    real = material.once("reference moments", lambda: Moments.of(material.reference_features))

    def distance(mask: np.ndarray) -> float:
        return frechet_between(Moments.of(x[mask]), real)

    groups = min(GROUPS, len(x) // 2)
    error = jackknife(groups, len(x), distance)
    return Value(distance(np.ones(len(x), bool)), error, len(x), material.space, groups=groups)


@measure(
    gives={
        "fid": "Frechet distance between the features of samples and of images",
        "fid_infinity": "the same, extrapolated to infinitely many samples",
    },
    better="low",
    applies=has_judge,
)
def fid(material: Material) -> Figures:
    distance, x = distance_value(material), material.sample_features
    if isinstance(distance, str):
        return {"fid": distance, "fid_infinity": distance}
    real = material.once("reference moments", lambda: Moments.of(material.reference_features))

    def limit(mask: np.ndarray) -> float:
        return extrapolated(x[mask], real)

    error = jackknife(GROUPS, len(x), limit)
    infinite = Value(limit(np.ones(len(x), bool)), error, len(x), material.space, groups=GROUPS)
    return {"fid": distance, "fid_infinity": infinite}
