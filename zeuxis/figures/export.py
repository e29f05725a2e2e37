"""Images as files: one PNG each, and a grid of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from zeuxis.data import to_bytes
from zeuxis.errors import UserError
from zeuxis.figures.style import sheet

__all__ = ["save_images"]

# In the grid, images are enlarged by a whole number until they have as many pixels a side.
LEGIBLE = 64


def save_images(images: np.ndarray, folder: Path, columns: int = 0) -> Path:
    """Writes `(N, H, W, C)` images in 0..1 as `0000.png`, ... and, enlarged where they are small, `grid.png`.

    Args:
        images: what to write.
        folder: where; made if needed, files of the same names are replaced.
        columns: of the grid; else it is about square.

    Returns:
        The path of the grid.

    Raises:
        UserError: if the folder cannot be written.
    """
    pixels = to_bytes(images)
    digits = max(len(str(len(pixels) - 1)), 4)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(pixels):
            Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).save(folder / f"{i:0{digits}}.png")
        grid = folder / "grid.png"
        times = -(-LEGIBLE // pixels.shape[1])
        enlarged = pixels.repeat(times, axis=1).repeat(times, axis=2)
        Image.fromarray(sheet(enlarged, columns or math.ceil(math.sqrt(len(pixels))), gap=times)).save(grid)
    except OSError as error:
        raise UserError(f"Images cannot be written to {folder}: {error.strerror or error}.") from error
    return grid
