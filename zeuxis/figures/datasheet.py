"""A sheet of images of a data set: a row per class, or a grid where there are no classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from zeuxis.data import Dataset
from zeuxis.figures.style import HEADING, heading, new_figure, show_tiles, write
from zeuxis.files import make_folder

__all__ = ["datasheet"]

COLUMNS, MOST_CLASSES = 10, 20


def datasheet(dataset: Dataset, path: Path) -> Path:
    """Draws images of every class, selected at random with a fixed seed, and returns the path.

    Raises:
        UserError: if the file cannot be written.
    """
    generator = np.random.default_rng(0)
    names = list(dataset.classes[:MOST_CLASSES])
    if dataset.labels is None or not names:
        indices = generator.permutation(len(dataset.images))[: COLUMNS * 6]
        tiles, rows = dataset.images[np.sort(indices)], []
    else:
        # A class with fewer images than columns leaves the rest of its row white.
        tiles = np.full((len(names), COLUMNS, *dataset.images.shape[1:]), 255, np.uint8)
        for row in range(len(names)):
            of_class = generator.permutation(np.flatnonzero(dataset.labels == row))[:COLUMNS]
            tiles[row, : len(of_class)] = dataset.images[np.sort(of_class)]
        tiles, rows = tiles.reshape(-1, *tiles.shape[2:]), names

    def draw() -> Figure:
        fig = new_figure(0.78 * COLUMNS + 1.2, 0.78 * -(-len(tiles) // COLUMNS) + HEADING)
        show_tiles(fig.subplots(), tiles, COLUMNS, rows=rows)
        heading(fig, f"{dataset.train_count + len(dataset.test):,} images", f"{dataset.source['sizes']} pixels")
        return fig

    make_folder(path.parent)
    write(draw, path)
    return path
