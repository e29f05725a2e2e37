"""Snapshots: images generated from the same latents at several steps of the training.

A snapshot is a PNG of tiles without gaps, named after its step. The latents are sampled once from the recipe's
seed; conditional models generate their classes in turn.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zeuxis.data import to_bytes, to_unit
from zeuxis.errors import UserError
from zeuxis.files import write_file
from zeuxis.models import Generates, Model
from zeuxis.progress import TROUBLE, say
from zeuxis.recipe import Size

__all__ = ["generate", "read_snapshots", "read_tiles", "save_tiles", "tiled"]

TILES = 16
COLUMNS = 8


def generate(
    model: Model,
    device: torch.device,
    count: int = TILES,
    seed: int | None = None,
    labels: np.ndarray | None = None,
) -> np.ndarray | None:
    """Generates `(count, H, W, C)` bytes from the latents of a seed, by default the recipe's.

    A conditional model generates what the labels `(count,)` or `(count, K)` ask for, or its classes in turn. Returns
    None if the model generates no images.
    """
    if not isinstance(model, Generates):
        return None
    # Always on the CPU: the same seed gives the same latents on every device.
    generator = torch.Generator().manual_seed(model.recipe.training.seed if seed is None else seed)
    latents = model.sample_latents(count, generator).to(device)
    condition = None
    if model.conditional:
        vectors = (
            model.conditions.in_turn(count) if labels is None else model.condition_of_labels(torch.from_numpy(labels))
        )
        condition = torch.as_tensor(vectors, device=device)
    with torch.no_grad():
        images = to_unit(model.generate(latents, condition), model.recipe.data.range)
    return to_bytes(images.permute(0, 2, 3, 1).float().cpu().numpy())


def save_tiles(path: Path, images: np.ndarray, columns: int = COLUMNS) -> None:
    """Writes `(N, H, W, C)` bytes as one PNG with `columns` tiles per row; the rest of the last row is zero."""
    sheet = tiled(images, columns)
    write_file(path, lambda p: Image.fromarray(sheet.squeeze(-1) if sheet.shape[2] == 1 else sheet).save(p))


def tiled(images: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Arranges `(N, H, W, C)` bytes without gaps; returns `(rows * H, columns * W, C)`, zeros after the last image."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:count] = images
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return sheet.reshape(rows * height, columns * width, channels)


def read_tiles(path: Path, size: Size) -> np.ndarray:
    """Reads back `(N, H, W, C)` bytes from a PNG of tiles.

    Raises:
        UserError: if the file is damaged or does not hold such tiles.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()  # verifies checksums, which decoding ignores
        with Image.open(path, formats=["PNG"]) as image:
            sheet = np.asarray(image)
    except (OSError, ValueError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is damaged or not a picture of tiles ({error}).") from error
    sheet = sheet.reshape(*sheet.shape[:2], -1)
    width, height = size
    if not sheet.size or sheet.shape[0] % height or sheet.shape[1] % width or sheet.dtype != np.uint8:
        raise UserError(f"{path} is damaged: it holds no tiles of {size} pixels.")
    rows, columns = sheet.shape[0] // height, sheet.shape[1] // width
    tiles = sheet.reshape(rows, height, columns, width, -1).swapaxes(1, 2)
    return tiles.reshape(rows * columns, height, width, -1)


def read_snapshots(folder: Path, size: Size) -> list[tuple[int, np.ndarray]]:
    """Returns step and `(N, H, W, C)` bytes of every snapshot of a run, oldest first.

    Files that are damaged, or whose shape differs from the most common one, are reported and left out.
    """
    snapshots = []
    for path in sorted(folder.glob("step-*.png")):
        step = path.stem.removeprefix("step-")
        try:
            if not step.isdecimal():
                raise UserError(f"{path} is not a snapshot: its name holds no step.")
            snapshots.append((path, int(step), read_tiles(path, size)))
        except UserError as error:
            say(f"{error} It is left out.", style=TROUBLE)
    shapes = Counter(tiles.shape for _, _, tiles in snapshots)
    for path, _, tiles in snapshots:
        if tiles.shape != shapes.most_common(1)[0][0]:
            say(f"{path} is left out: its tiles have another shape than the rest, {tiles.shape}.", style=TROUBLE)
    return [(step, tiles) for _, step, tiles in snapshots if tiles.shape == shapes.most_common(1)[0][0]]
