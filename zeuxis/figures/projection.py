"""A projection as files: the latent, the picture beside what was found, and a film of the search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from zeuxis.data import to_bytes
from zeuxis.figures.style import sheet
from zeuxis.files import make_folder, write_file
from zeuxis.latent import Projection

__all__ = ["save_projection"]

# Images are enlarged by a whole number to at least this many pixels a side.
SIDE = 192
# Milliseconds of a frame, and of the last one.
FRAME, LAST = 80, 2000


def save_projection(projection: Projection, folder: Path) -> list[Path]:
    """Writes a projection into a folder, which is made if needed.

    Returns:
        The paths of `projection.png` (the picture, the best start, what was found), `search.webp` (the picture beside
        each step of the search), `latent.npy` and `projection.json` (condition and errors).
    """
    make_folder(folder)
    target = to_bytes(projection.target)
    three = [target, to_bytes(projection.start), to_bytes(projection.image)]
    frames = [_tiles([target, frame]) for frame in projection.film]
    lengths = [FRAME] * (len(frames) - 1) + [LAST]
    names = ("condition", "start_mse", "mse", "start_distance", "distance", "features", "seconds")
    numbers = {name: getattr(projection, name) for name in names} | {
        "condition": projection.label, "latent": projection.latent.tolist(),
    }  # fmt: skip

    def film(path: Path) -> None:
        frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:], duration=lengths, loop=0, lossless=True)

    return [
        write_file(folder / "projection.png", _tiles(three).save),
        write_file(folder / "search.webp", film),
        write_file(folder / "latent.npy", lambda path: np.save(path, projection.latent)),
        write_file(folder / "projection.json", json.dumps(numbers, indent=1)),
    ]


def _tiles(images: list[np.ndarray]) -> Image.Image:
    """Returns `(H, W, C)` bytes in a row, enlarged."""
    zoom = -(-SIDE // min(images[0].shape[:2]))
    return Image.fromarray(sheet(np.stack(images).repeat(zoom, axis=1).repeat(zoom, axis=2), len(images), gap=zoom))
