r"""Whether two sets of vectors come from one distribution: the energy distance and its permutation test.

    E(X, Y) = 2 E|x - y| - E|x - x'| - E|y - y'|  >= 0,

and 0 only for equal distributions. Its distribution under "they are equal" is had by shuffling which vector
belongs to which set.

Source: G. J. Szekely and M. L. Rizzo, Energy statistics, Journal of Statistical Planning and Inference 143, 2013.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

__all__ = ["TwoSample", "energy_test"]


class TwoSample(NamedTuple):
    """Energy distance, and the share of shuffles with one as large: small where the sets differ."""

    distance: float
    p_value: float


def energy_test(x: np.ndarray, y: np.ndarray, *, permutations: int = 200, seed: int = 0) -> TwoSample:
    """Compares two sets of vectors, `(N, Z)` and `(M, Z)`."""
    together = np.concatenate([x, y]).astype(np.float64)
    between = cdist(together, together)
    generator = np.random.default_rng(seed)
    member = np.arange(len(together)) < len(x)

    def distance(chosen: np.ndarray) -> float:
        a, b = chosen / chosen.sum(), ~chosen / (~chosen).sum()
        return float(2 * a @ between @ b - a @ between @ a - b @ between @ b)

    found = distance(member)
    shuffled = [distance(generator.permutation(member)) for _ in range(permutations)]
    return TwoSample(found, (1 + sum(each >= found for each in shuffled)) / (1 + permutations))
