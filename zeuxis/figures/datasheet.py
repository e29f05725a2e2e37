"""A sheet of samples of a data set: a row per class, or a square of images."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

from zeuxis.data import Dataset
from zeuxis.errors import UserError
from zeuxis.figures.style import HEADING, STYLE, heading, new_figure, show_tiles

__all__ = ["datasheet"]

COLUMNS, MOST_CLASSES = 10, 20


def datasheet(dataset: Dataset, path: Path) -> Path:
    """Draws images of every class, drawn at random with a fixed seed, and returns the path.

    Raises:
        UserError: if the file cannot be written.
    """
    generator = np.random.default_rng(0)
    names = list(dataset.classes[:MOST_CLASSES])
    if dataset.labels is None or not names:
        chosen = generator.permutation(len(dataset.images))[: COLUMNS * 6]
        tiles, rows = dataset.images[np.sort(chosen)], []
    else:
        # A class with fewer images than columns leaves the rest of its row white.
        tiles = np.full((len(names), COLUMNS, *dataset.images.shape[1:]), 255, np.uint8)
        for row in range(len(names)):
            mine = generator.permutation(np.flatnonzero(dataset.labels == row))[:COLUMNS]
            tiles[row, : len(mine)] = dataset.images[np.sort(mine)]
        tiles, rows = tiles.reshape(-1, *tiles.shape[2:]), names
    with mpl.rc_context(STYLE):
        drawn = new_figure(0.78 * COLUMNS + 1.2, 0.78 * -(-len(tiles) // COLUMNS) + HEADING)
        show_tiles(drawn.subplots(), tiles, COLUMNS, rows=rows)
        heading(drawn, f"{len(dataset.train) + len(dataset.test):,} images", f"{dataset.source['sizes']} pixels")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn.savefig(path, dpi=160, bbox_inches="tight", pad_inches=0.15)
        except (OSError, ValueError) as error:
            raise UserError(f"The sheet {path} cannot be written: {error}.") from error
    return path
