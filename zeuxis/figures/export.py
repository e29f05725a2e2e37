"""Images as files: one PNG each, and a grid of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from zeuxis.data import to_bytes
from zeuxis.figures.style import sheet
from zeuxis.files import make_folder, write_file

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
    make_folder(folder)
    for i, image in enumerate(pixels):
        picture = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)
        write_file(folder / f"{i:0{digits}}.png", picture.save)
    times = -(-LEGIBLE // pixels.shape[1])
    enlarged = pixels.repeat(times, axis=1).repeat(times, axis=2)
    grid = Image.fromarray(sheet(enlarged, columns or math.ceil(math.sqrt(len(pixels))), gap=times))
    return write_file(folder / "grid.png", grid.save)
