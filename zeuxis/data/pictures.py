"""A user's own pictures, prepared for a trained model by the code that prepares the images of training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zeuxis.data.batches import scaled
from zeuxis.data.cache import prepare, reason, tell
from zeuxis.data.files import MAX_BYTES, decode, readable
from zeuxis.data.notes import Note, Tally
from zeuxis.data.registry import SOURCES
from zeuxis.errors import UserError
from zeuxis.recipe import DataOptions

__all__ = ["read_pictures"]


def read_pictures(paths: Sequence[str | Path], options: DataOptions) -> tuple[np.ndarray, list[Note]]:
    """Reads image files: turned upright, cropped, scaled and converted as the images of a training are.

    Args:
        paths: image files.
        options: the data section of the run's recipe.

    Returns:
        `(N, H, W, C)` in 0..1, and notes on what was cropped and converted.

    Raises:
        UserError: if a file cannot be read.
    """
    frame = SOURCES[options.source].frame
    tally, pixels = Tally(), []
    for path in map(Path, paths):
        name = readable(str(path))
        try:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise ValueError(f"it has more than the {MAX_BYTES:,} bytes allowed")
            with warnings.catch_warnings():
                # Pillow warns about large images; `decode` refuses those that are too large.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                # Twice the size, as a frame keeps less than the whole.
                image = decode(content, options.stored_size * (2 if frame else 1))
                prepared = prepare(frame(image) if frame else image, options)
        except Exception as error:  # decoders raise anything
            raise UserError(f"The picture {name} cannot be read: {reason(error)}.") from error
        tell(tally, readable(path.name), prepared, options)
        pixels.append(np.frombuffer(prepared.pixels, np.uint8))
    side = options.stored_size
    stored = torch.from_numpy(np.stack(pixels).reshape(-1, side, side, options.channels))
    images: np.ndarray = scaled(stored, options).permute(0, 2, 3, 1).numpy()
    return images, tally.notes(len(pixels) if len(pixels) > 1 else 0)
