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

from typing import NamedTuple

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, has_judge, jackknife, measure, too_few

__all__ = ["Moments", "frechet_between", "frechet_distance"]

GROUPS = 10
POINTS, SMALLEST = 8, 0.25


class Moments(NamedTuple):
    """Mean `(F,)` and covariance `(F, F)` of features."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """Computes the moments of `(N, F)` features, in float64."""
        doubles = features.astype(np.float64)
        return cls(doubles.mean(axis=0), np.atleast_2d(np.cov(doubles, rowvar=False)))


def frechet_between(one: Moments, two: Moments) -> float:
    """Computes the squared Frechet distance of two normal distributions."""
    # Trace of the root of the product of covariances, whose eigenvalues are real and not negative.
    root = np.sqrt(np.maximum(np.linalg.eigvals(one.covariance @ two.covariance).real, 0)).sum()
    spread = np.trace(one.covariance) + np.trace(two.covariance) - 2 * root
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


@measure(
    gives={
        "fid": "Frechet distance between the features of samples and of images",
        "fid_infinity": "the same, extrapolated to infinitely many samples",
    },
    better="low",
    applies=has_judge,
)
def fid(material: Material) -> Figures:
    if reason := too_few(2, len(material.reference_features), "images"):
        return {"fid": reason, "fid_infinity": reason}
    x, real = material.sample_features, Moments.of(material.reference_features)

    def distance(mask: np.ndarray) -> float:
        return frechet_between(Moments.of(x[mask]), real)

    def limit(mask: np.ndarray) -> float:
        return extrapolated(x[mask], real)

    all_samples = np.ones(len(x), bool)
    return {
        name: Value(statistic(all_samples), jackknife(GROUPS, len(x), statistic), len(x), material.space, groups=GROUPS)
        for name, statistic in (("fid", distance), ("fid_infinity", limit))
    }
