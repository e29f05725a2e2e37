"""Images as files: a folder that contains only PNGs, and a grid of them beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from zeuxis.data import to_bytes
from zeuxis.errors import UserError
from zeuxis.figures.style import sheet
from zeuxis.files import make_folder, sweep, write_file
from zeuxis.progress import bar, say

__all__ = ["save_images", "whole_rows"]

# In the grid, images are enlarged by a whole number to at least this many pixels a side.
LEGIBLE = 64
# Without a number of columns, the grid shows the first images, up to this many pixels: about 7,000 small ones.
GRID_PIXELS = 32_000_000
OURS = re.compile(r"\d{4,}\.png")


def whole_rows(count: int) -> int:
    """Returns a number of columns that makes the grid about square, and its last row full where it can."""
    root = math.ceil(math.sqrt(count))
    return next((columns for columns in range(root, 2 * root) if count % columns == 0), root)


def save_images(parts: Iterable[np.ndarray], count: int, folder: Path, columns: int = 0) -> Path:
    """Writes images into a folder that then contains only these, and a grid beside it, which enlarges small images.

    The images are named `0000.png`, ... Leftover images of an earlier, larger call are removed, so that tools which
    read the whole folder see only the images of this call.

    Args:
        parts: the images in batches, `(N, H, W, C)` in 0..1.
        count: total number of images.
        folder: where to write, created if needed. The grid is `FOLDER-grid.png`.
        columns: of the grid; if 0, it is about square, and shows only the first of very many images.

    Returns:
        The path of the grid.

    Raises:
        UserError: if the folder holds anything else, or cannot be written.
    """
    digits = max(len(str(count - 1)), 4)
    _clear(make_folder(folder), {f"{i:0{digits}}.png" for i in range(count)})
    tiles: list[np.ndarray] = []
    number = 0
    with bar("writing images", count) as advance:
        for part in parts:
            pixels = to_bytes(part)
            for image in pixels:
                picture = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)
                write_file(folder / f"{number:0{digits}}.png", picture.save)
                number += 1
            zoom = -(-LEGIBLE // pixels.shape[1])
            limit = count if columns else max(GRID_PIXELS // (zoom * (pixels.shape[1] + 1)) ** 2, 1)
            tiles += list(pixels[: max(limit - len(tiles), 0)])
            advance(len(pixels))
    enlarged = np.stack(tiles).repeat(zoom, axis=1).repeat(zoom, axis=2)
    grid = Image.fromarray(sheet(enlarged, columns or whole_rows(len(tiles)), gap=zoom))
    place = folder if folder.name.strip(".") else folder.resolve()
    return write_file(place.with_name(f"{place.name}-grid.png"), grid.save)


def _clear(folder: Path, names_to_write: set[str]) -> None:
    """Removes images of an earlier call that this call does not overwrite."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    others = [name for name in names if not OURS.fullmatch(name)]
    if others:
        raise UserError(f"{folder} holds other files, such as {others[0]}; choose an empty or a new folder.")
    earlier = [name for name in names if name not in names_to_write]
    for name in earlier:
        (folder / name).unlink()
    if earlier:
        say(f"Removed {len(earlier):,} images of an earlier call from {folder}.")
    sweep(folder)
