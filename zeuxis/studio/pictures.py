"""Pictures of runs, as files for the browser."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from zeuxis.data import to_bytes
from zeuxis.errors import UserError
from zeuxis.files import is_name
from zeuxis.studio.shelf import Shelf
from zeuxis.training.snapshots import generate, read_tiles

__all__ = ["png", "snapshot", "snapshots", "strip"]

# Tiles of a card: fewer than a snapshot has, so that each can be seen.
STRIP_COLUMNS, STRIP_TILES = 5, 15


def png(images: np.ndarray, columns: int) -> bytes:
    """Returns `(N, H, W, C)` images, of bytes or in 0..1, as a PNG of tiles without gaps."""
    tiles = to_bytes(images) if images.dtype != np.uint8 else images
    count, height, width, channels = tiles.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:count] = tiles
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    with io.BytesIO() as file:
        Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet).save(file, "PNG")
        return file.getvalue()


def strip(shelf: Shelf, name: str) -> bytes:
    """Returns some of a run's samples: of its newest snapshot, else made now by its weights.

    Raises:
        UserError: if the run makes no images.
    """
    steps = snapshots(shelf, name)
    if steps:
        try:
            tiles = read_tiles(shelf.file(name, "snapshots", steps[-1]), shelf.open(name).recipe.data.size)
            return png(tiles[:STRIP_TILES], STRIP_COLUMNS)
        except UserError:  # damaged: samples are made instead
            pass
    run = shelf.open(name)
    images = generate(run.model, run.device, STRIP_TILES)
    if images is None:
        images = to_bytes(run.test_images(STRIP_TILES)[0])
    return png(images, STRIP_COLUMNS)


def snapshots(shelf: Shelf, name: str) -> list[str]:
    """Returns the file names of a run's snapshots, oldest first."""
    found = (path.name for path in (shelf.folder(name) / "snapshots").glob("step-*.png"))
    return sorted(file for file in found if is_name(file))


def snapshot(shelf: Shelf, name: str, file: str) -> bytes:
    """Returns a snapshot's file.

    Raises:
        UserError: if there is none of this name.
    """
    return shelf.file(name, "snapshots", file).read_bytes()
