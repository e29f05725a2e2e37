"""Nearest training images, by distance in pixels."""

from __future__ import annotations

import numpy as np

from zeuxis.run import Run

__all__ = ["nearest_images"]

CHUNK = 2048


def nearest_images(run: Run, images: np.ndarray, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Finds the training images nearest to other images, by Euclidean distance in pixels.

    Args:
        run: the run whose training images are searched.
        images: `(N, H, W, C)` in 0..1.
        count: neighbours per image.

    Returns:
        Their indices in the data set and their distances, both `(N, count)`, nearest first.
    """
    queries = images.reshape(len(images), -1).astype(np.float32)
    norms = np.square(queries).sum(axis=1, keepdims=True)
    best = np.zeros((len(images), 0), np.int64)
    distances = np.zeros((len(images), 0), np.float32)
    train = run.choose_images("train")
    for start in range(0, len(train), CHUNK):  # a large data set is never in memory as a whole
        part = train[start : start + CHUNK]
        pixels = run.images(part).reshape(len(part), -1)
        squared = norms - 2 * queries @ pixels.T + np.square(pixels).sum(axis=1)
        distances = np.concatenate([distances, np.sqrt(np.maximum(squared, 0))], axis=1)
        best = np.concatenate([best, np.broadcast_to(part, squared.shape)], axis=1)
        if distances.shape[1] > count:  # a selection costs a fraction of a sort
            near = np.argpartition(distances, count - 1, axis=1)[:, :count]
            distances, best = np.take_along_axis(distances, near, 1), np.take_along_axis(best, near, 1)
    order = np.lexsort((best, distances))
    return np.take_along_axis(best, order, 1), np.take_along_axis(distances, order, 1)
