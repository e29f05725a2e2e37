"""Sharpness: the variance of an image's Laplacian, which blur reduces.

Source: J. L. Pech-Pacheco, G. Cristobal, J. Chamorro-Martinez and J. Fernandez-Valdivia, Diatom autofocusing in
brightfield microscopy, ICPR 2000.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, measure, pieces

__all__ = ["sharpness"]


def laplacian_variance(images: np.ndarray) -> np.ndarray:
    """Computes the variance of the Laplacian of each image's grey values, `(N,)`, for `(N, H, W, C)` in 0..1."""
    grey = images.mean(axis=3)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    variances: np.ndarray = np.var(around - 4 * grey[:, 1:-1, 1:-1], axis=(1, 2))
    return variances


def sharpness(images: np.ndarray) -> float:
    """Computes the mean over images of the variance of their Laplacian; `(N, H, W, C)` in 0..1."""
    return float(np.mean(laplacian_variance(images)))


@measure(
    gives={"sharpness": "sharpness of samples relative to that of images; 1 is equally sharp"},
    better="",
    applies=lambda material: material.run.generates,
)
def sharp(material: Material) -> Figures:
    samples, images = (
        np.concatenate([laplacian_variance(part / np.float32(255)) for part in pieces(batch)])
        for batch in (material.samples, material.reference)
    )
    of_samples, of_images = Value.mean(samples), Value.mean(images)
    if not of_images.value:
        return {"sharpness": "the images are flat: they have no edges to compare with"}
    share, stderr = of_samples.value / of_images.value, None
    if of_samples.stderr is not None and of_images.stderr is not None:  # of a ratio of means, to first order
        stderr = float(np.hypot(of_samples.stderr, share * of_images.stderr) / of_images.value)
    return {"sharpness": Value(share, stderr, len(samples))}
