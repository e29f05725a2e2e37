"""Sharpness: the variance of an image's Laplacian, which blur takes away.

Source: J. L. Pech-Pacheco, G. Cristobal, J. Chamorro-Martinez and J. Fernandez-Valdivia, Diatom autofocusing in
brightfield microscopy, ICPR 2000.
"""

from __future__ import annotations

import numpy as np

__all__ = ["sharpness"]


def sharpness(images: np.ndarray) -> float:
    """Mean over images of the variance of the Laplacian of their grey values; `(N, H, W, C)` in 0..1."""
    grey = images.mean(axis=3)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return float(np.mean(np.var(around - 4 * grey[:, 1:-1, 1:-1], axis=(1, 2))))
