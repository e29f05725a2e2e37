r"""Energy distance, and the permutation test of whether two sets of vectors come from one distribution.

    E(X, Y) = 2 E|x - y| - E|x - x'| - E|y - y'|  >= 0,

and 0 only for equal distributions. Its null distribution comes from shuffling which vector belongs to which set.

Source: G. J. Szekely and M. L. Rizzo, Energy statistics, Journal of Statistical Planning and Inference 143, 2013.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

__all__ = ["TwoSample", "energy_test"]


class TwoSample(NamedTuple):
    """Energy distance, and the share of shuffles with a distance as large: small where the sets differ."""

    distance: float
    p_value: float


def energy_test(x: np.ndarray, y: np.ndarray, *, permutations: int = 200, seed: int = 0) -> TwoSample:
    """Compares two sets of vectors, `(N, Z)` and `(M, Z)`."""
    together = np.concatenate([x, y]).astype(np.float64)
    pairwise = scipy.spatial.distance.cdist(together, together)
    generator = np.random.default_rng(seed)
    member = np.arange(len(together)) < len(x)

    def distance(mask: np.ndarray) -> float:
        a, b = mask / mask.sum(), ~mask / (~mask).sum()
        return float(2 * a @ pairwise @ b - a @ pairwise @ a - b @ pairwise @ b)

    observed = distance(member)
    shuffled = [distance(generator.permutation(member)) for _ in range(permutations)]
    return TwoSample(observed, (1 + sum(value >= observed for value in shuffled)) / (1 + permutations))
