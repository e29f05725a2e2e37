r"""Kernel distance (KID): the squared maximum mean discrepancy of features under a cubic kernel.

    k(x, y) = (x . y / F + 1)^3,
    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),

estimated without bias (x and x' are never the same sample) on blocks of samples. The distance is the mean over blocks,
and their spread gives its standard error. Unlike for the Frechet distance, its expectation does not depend on the
number of samples. It can be negative where the two sets do not differ.

Source: M. Binkowski, D. J. Sutherland, M. Arbel and A. Gretton, Demystifying MMD GANs, ICLR 2018, section 4.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, has_judge, measure, too_few

__all__ = ["kernel_distance", "squared_discrepancy"]

BLOCKS = 10


def squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """Estimates MMD^2 between features `(N, F)` and `(M, F)` without bias."""
    n, m, size = len(x), len(y), x.shape[1]
    xx, yy, xy = ((a @ b.T / size + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def kernel_distance(x: np.ndarray, y: np.ndarray, *, blocks: int = BLOCKS, seed: int = 0) -> tuple[float, float | None]:
    """Computes the KID and its standard error over disjoint blocks of both sets; one block gives no error."""
    generator = np.random.default_rng(seed)
    pairs = zip(
        *(np.array_split(features[generator.permutation(len(features))], blocks) for features in (x, y)), strict=True
    )
    distances = np.array([squared_discrepancy(a, b) for a, b in pairs])
    return float(distances.mean()), float(distances.std(ddof=1) / np.sqrt(blocks)) if blocks > 1 else None


@measure(
    gives={"kid": "kernel distance between the features of samples and of images"}, better="low", applies=has_judge
)
def kid(material: Material) -> Figures:
    x, y = material.sample_features, material.reference_features
    if reason := too_few(2, len(y), "images"):
        return {"kid": reason}
    blocks = min(BLOCKS, len(x) // 2, len(y) // 2)  # of at least two images each
    return {"kid": Value(*kernel_distance(x, y, blocks=blocks), len(x), material.space, groups=blocks)}
