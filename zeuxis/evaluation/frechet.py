r"""Frechet distance of two sets of features, each taken as a normal distribution.

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

It is the FID where the features are those of the Inception network; the number means nothing without the name of
its features.

Source: M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler and S. Hochreiter, GANs Trained by a Two Time-Scale
Update Rule Converge to a Local Nash Equilibrium, NeurIPS 2017, equation 6.
"""

from __future__ import annotations

import numpy as np

__all__ = ["frechet_distance"]


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Squared Frechet distance of features `(N, F)` and `(M, F)`, in float64."""
    means = [each.mean(axis=0, dtype=np.float64) for each in (x, y)]
    covariances = [np.atleast_2d(np.cov(each.astype(np.float64), rowvar=False)) for each in (x, y)]
    # The trace of the root of a product of covariances: its eigenvalues are real and not negative.
    root = np.sqrt(np.maximum(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0)).sum()
    spread = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
    return float(max(np.square(means[0] - means[1]).sum() + spread, 0.0))
