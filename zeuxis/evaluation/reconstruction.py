r"""Quality of reconstructions of held-out images: squared error, signal-to-noise ratio, structural similarity.

PSNR = -10 log10 MSE, in decibels for pixels in 0..1, is computed for each image and averaged over images.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, measure, pieces
from zeuxis.evaluation.similarity import WINDOW, ssim

__all__ = ["mean_squared_error"]


def mean_squared_error(images: np.ndarray, reconstructions: np.ndarray) -> float:
    """Computes the mean squared difference over images, pixels and channels; both `(N, H, W, C)` in 0..1."""
    return float(np.mean(np.square(images.astype(np.float64) - reconstructions)))


@measure(
    gives={"test_mse": "mean squared error of reconstructions of held-out images, pixels in 0..1"},
    better="low",
    applies=lambda material: material.run.encodes and material.run.generates,
)
def errors(material: Material) -> Figures:
    per_image = np.concatenate([np.square(x - rebuilt).mean(axis=(1, 2, 3)) for x, rebuilt in _rebuilt(material)])
    return {"test_mse": Value.mean(per_image)}


@measure(
    gives={
        "psnr": "peak signal-to-noise ratio of reconstructions, dB",
        "ssim": "structural similarity of reconstructions",
    },
    better="high",
    applies=lambda material: (
        material.run.encodes and material.run.generates and min(material.run.recipe.data.size) >= WINDOW
    ),
)
def fidelity(material: Material) -> Figures:
    signal, similar = [], []
    for x, rebuilt in _rebuilt(material):
        signal.append(-10 * np.log10(np.maximum(np.square(x - rebuilt).mean(axis=(1, 2, 3)), 1e-10)))
        similar.append(ssim(x, rebuilt))
    per_image = {"psnr": np.concatenate(signal), "ssim": np.concatenate(similar)}
    return {name: Value.mean(values) for name, values in per_image.items()}


def _rebuilt(material: Material) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns held-out images with their reconstructions, in parts; at most as many images as there are samples."""
    run = material.run
    indices = run.choose_images("test", material.n)

    def pair(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = run.images(part)
        return images, run.reconstruct(images, run.condition_of_labels(run.labels(part)))

    return material.once("reconstructions", lambda: [pair(part) for part in pieces(indices)])
