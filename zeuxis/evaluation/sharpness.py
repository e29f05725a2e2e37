"""Sharpness: the variance of an image's Laplacian, which blur takes away.

Source: J. L. Pech-Pacheco, G. Cristobal, J. Chamorro-Martinez and J. Fernandez-Valdivia, Diatom autofocusing in
brightfield microscopy, ICPR 2000.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, measure, pieces

__all__ = ["sharpness"]


def laplacian_variance(images: np.ndarray) -> np.ndarray:
    """Variance of the Laplacian of each image's grey values, `(N,)`; `(N, H, W, C)` in 0..1."""
    grey = images.mean(axis=3)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    found: np.ndarray = np.var(around - 4 * grey[:, 1:-1, 1:-1], axis=(1, 2))
    return found


def sharpness(images: np.ndarray) -> float:
    """Mean over images of the variance of the Laplacian of their grey values; `(N, H, W, C)` in 0..1."""
    return float(np.mean(laplacian_variance(images)))


@measure(
    gives={"sharpness": "of samples, as a share of the images'; 1 is as sharp as they are"},
    better="",
    applies=lambda material: material.run.generates,
)
def sharp(material: Material) -> Figures:
    samples, images = (
        np.concatenate([laplacian_variance(part / np.float32(255)) for part in pieces(each)])
        for each in (material.samples, material.reference)
    )
    above, below = Value.mean(samples), Value.mean(images)
    if not below.value:
        return {"sharpness": "the images are flat, without an edge to be as sharp as"}
    share, stderr = above.value / below.value, None
    if above.stderr is not None and below.stderr is not None:  # of a ratio of means, to first order
        stderr = float(np.hypot(above.stderr, share * below.stderr) / below.value)
    return {"sharpness": Value(share, stderr, len(samples))}
