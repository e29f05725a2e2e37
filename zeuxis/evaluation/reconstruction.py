r"""How well held-out images are rebuilt from their latents: squared error, signal to noise, structural similarity.

PSNR = -10 log10 MSE, in decibels for pixels in 0..1, of each image; its mean over images is given.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, measure, pieces
from zeuxis.evaluation.similarity import WINDOW, ssim

__all__ = ["mean_squared_error"]


def mean_squared_error(images: np.ndarray, reconstructions: np.ndarray) -> float:
    """Mean over images, pixels and channels of the squared difference; both `(N, H, W, C)` in 0..1."""
    return float(np.mean(np.square(images.astype(np.float64) - reconstructions)))


@measure(
    gives={"test_mse": "squared error of reconstructions of held-out images, pixels in 0..1"},
    better="low",
    applies=lambda material: material.run.encodes and material.run.generates,
)
def errors(material: Material) -> Figures:
    each = np.concatenate([np.square(x - made).mean(axis=(1, 2, 3)) for x, made in _rebuilt(material)])
    return {"test_mse": Value.mean(each)}


@measure(
    gives={
        "psnr": "peak signal to noise of reconstructions, dB",
        "ssim": "structural similarity of reconstructions",
    },
    better="high",
    applies=lambda material: (
        material.run.encodes and material.run.generates and material.run.recipe.data.size >= WINDOW
    ),
)
def fidelity(material: Material) -> Figures:
    signal, similar = [], []
    for x, made in _rebuilt(material):
        signal.append(-10 * np.log10(np.maximum(np.square(x - made).mean(axis=(1, 2, 3)), 1e-10)))
        similar.append(ssim(x, made))
    found = {"psnr": np.concatenate(signal), "ssim": np.concatenate(similar)}
    return {name: Value.mean(each) for name, each in found.items()}


def _rebuilt(material: Material) -> list[tuple[np.ndarray, np.ndarray]]:
    """Held-out images and their reconstructions, in parts; at most as many images as samples are made."""
    run = material.run
    chosen = run.choose_images("test", material.n)
    found = []
    for part in pieces(chosen):
        images = run.images(part)
        found.append((images, run.reconstruct(images, run.condition(run.labels(part)))))
    return found
