"""Pictures of runs, as files for the browser."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

import zeuxis.pretrained
from zeuxis.data import to_bytes
from zeuxis.errors import UserError, one_of
from zeuxis.figures.style import on_checks
from zeuxis.files import is_name
from zeuxis.pretrained import cards
from zeuxis.run import Run
from zeuxis.studio.shelf import Shelf
from zeuxis.training.snapshots import COLUMNS, generate, read_tiles, tiled

__all__ = ["png", "pretrained", "snapshot", "snapshots", "strip"]

# Tiles of a card: fewer than a snapshot has, so that each can be seen.
STRIP_COLUMNS, STRIP_TILES = 5, 15


def png(images: np.ndarray, columns: int) -> bytes:
    """Returns `(N, H, W, C)` images, of bytes or in 0..1, as a PNG of tiles with transparent gaps; images on checks."""
    tiles = on_checks(to_bytes(images))
    count, height, width, channels = tiles.shape
    gap = max(height // 28, 1)
    padded = np.zeros((count, height + gap, width + gap, channels + 1), np.uint8)
    padded[:, :height, :width, :channels] = tiles
    padded[:, :height, :width, channels] = 255
    sheet = tiled(padded, columns)[:-gap, :-gap]
    with io.BytesIO() as file:
        Image.fromarray(sheet, "LA" if channels == 1 else "RGBA").save(file, "PNG")
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


def pretrained(name: str) -> bytes:
    """Returns some samples of a pretrained run.

    Raises:
        UserError: if there is none of this name.
    """
    if name not in (known := [card.name for card in cards()]):
        raise one_of("pretrained run", name, known)
    run = Run(Path(zeuxis.pretrained.__file__).parent / name)
    images = generate(run.model, run.device, STRIP_TILES)
    assert images is not None
    return png(images, STRIP_COLUMNS)


def snapshots(shelf: Shelf, name: str) -> list[str]:
    """Returns the file names of a run's snapshots, oldest first."""
    found = (path.name for path in (shelf.folder(name) / "snapshots").glob("step-*.png"))
    return sorted(file for file in found if is_name(file))


def snapshot(shelf: Shelf, name: str, file: str) -> bytes:
    """Returns a snapshot of a run.

    Raises:
        UserError: if there is none of this name, or if it is damaged.
    """
    path = shelf.file(name, "snapshots", file)
    return png(read_tiles(path, shelf.open(name).recipe.data.size), COLUMNS)
