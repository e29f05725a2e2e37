"""Mean squared error of reconstructions."""

from __future__ import annotations

import numpy as np

__all__ = ["mean_squared_error"]


def mean_squared_error(images: np.ndarray, reconstructions: np.ndarray) -> float:
    """Mean over images, pixels and channels of the squared difference; both `(N, H, W, C)` in 0..1."""
    return float(np.mean(np.square(images.astype(np.float64) - reconstructions)))
