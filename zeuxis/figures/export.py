"""Images as files: a folder of PNGs and nothing else, and a grid of them beside it."""

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

__all__ = ["save_images"]

# In the grid, images are enlarged by a whole number until they have as many pixels a side.
LEGIBLE = 64
# A grid without given columns shows the first images, up to this many pixels: about 7,000 small ones.
GRID_PIXELS = 32_000_000
OURS = re.compile(r"\d{4,}\.png")


def save_images(parts: Iterable[np.ndarray], count: int, folder: Path, columns: int = 0) -> Path:
    """Writes images into a folder that then holds these alone, and a grid beside it, enlarged where they are small.

    The images are `0000.png`, ... Those of an earlier, larger call are removed, so that tools which read a folder of
    images read what was asked for.

    Args:
        parts: the images, `(N, H, W, C)` in 0..1, some at a time.
        count: how many they are together.
        folder: where; made if needed. The grid is `FOLDER-grid.png`.
        columns: of the grid; else it is about square, and shows the first images where there are very many.

    Returns:
        The path of the grid.

    Raises:
        UserError: if the folder holds anything else, or cannot be written.
    """
    digits = max(len(str(count - 1)), 4)
    _clear(make_folder(folder), {f"{i:0{digits}}.png" for i in range(count)})
    tiles: list[np.ndarray] = []
    written = 0
    with bar("writing images", count) as advance:
        for part in parts:
            pixels = to_bytes(part)
            for image in pixels:
                picture = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)
                write_file(folder / f"{written:0{digits}}.png", picture.save)
                written += 1
            times = -(-LEGIBLE // pixels.shape[1])
            most = count if columns else max(GRID_PIXELS // (times * (pixels.shape[1] + 1)) ** 2, 1)
            tiles += list(pixels[: max(most - len(tiles), 0)])
            advance(len(pixels))
    enlarged = np.stack(tiles).repeat(times, axis=1).repeat(times, axis=2)
    grid = Image.fromarray(sheet(enlarged, columns or math.ceil(math.sqrt(len(tiles))), gap=times))
    place = folder if folder.name.strip(".") else folder.resolve()
    return write_file(place.with_name(f"{place.name}-grid.png"), grid.save)


def _clear(folder: Path, wanted: set[str]) -> None:
    """Removes images of an earlier call that would stand among those wanted."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    others = [name for name in names if not OURS.fullmatch(name)]
    if others:
        raise UserError(f"{folder} holds other files, such as {others[0]}; choose a folder for these images alone.")
    earlier = [name for name in names if name not in wanted]
    for name in earlier:
        (folder / name).unlink()
    if earlier:
        say(f"Removed {len(earlier):,} images of an earlier call from {folder}.")
    sweep(folder)
