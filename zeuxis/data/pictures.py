"""A user's own pictures, prepared for a trained model by the code that prepares the images of training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zeuxis.data.batches import scaled
from zeuxis.data.cache import Prepared, prepare, reason, tell
from zeuxis.data.files import FORMATS_IN_WORDS, MAX_BYTES, decode, readable
from zeuxis.data.notes import Note, Tally
from zeuxis.data.registry import SOURCES
from zeuxis.errors import UserError
from zeuxis.files import regular
from zeuxis.recipe import DataOptions

__all__ = ["as_arrays", "prepared_picture", "read_pictures", "sent_picture"]


def read_pictures(paths: Sequence[str | Path], options: DataOptions) -> tuple[np.ndarray, list[Note]]:
    """Reads image files: turned upright, fitted, scaled and converted as the images of a training are.

    Args:
        paths: image files.
        options: the data section of the run's recipe.

    Returns:
        `(N, H, W, C)` in 0..1, and notes on what was cropped and converted.

    Raises:
        UserError: if a file cannot be read.
    """
    if not paths:
        raise UserError("No picture was named; name at least one image file.")
    tally, pictures = Tally(), []
    for path in map(Path, paths):
        name = readable(str(path))
        try:
            with regular(path).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise ValueError(f"it has more than the {MAX_BYTES:,} bytes allowed")
            pictures.append(prepared_picture(content, options))
        except Exception as error:  # decoders raise anything
            raise UserError(f"The picture {name} cannot be read: {reason(error)}.") from error
        tell(tally, readable(path.name), pictures[-1], options)
    return as_arrays(pictures, options), tally.notes(len(pictures) if len(pictures) > 1 else 0)


def prepared_picture(content: bytes, options: DataOptions) -> Prepared:
    """Decodes an image file's bytes, and fits, scales and converts the image as its source does in training.

    Raises:
        Exception: of any kind, if the bytes are no image that can be read.
    """
    frame = SOURCES[options.source].frame
    with warnings.catch_warnings():
        # Pillow warns about large images; `decode` refuses those that are too large.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # Twice the size, as a frame keeps less than the whole.
        image = decode(content, max(options.stored_size) * (2 if frame else 1))
        return prepare(frame(image) if frame else image, options)


def sent_picture(content: bytes, options: DataOptions, name: str = "This file") -> Prepared:
    """Returns a picture that was sent over a network, as `prepared_picture`.

    Raises:
        UserError: if the bytes are no image that can be read; the sentence begins with the name.
    """
    try:
        return prepared_picture(content, options)
    except Exception as error:  # decoders raise anything
        raise UserError(f"{name} is not an image that can be read ({FORMATS_IN_WORDS}).") from error


def as_arrays(pictures: Sequence[Prepared], options: DataOptions) -> np.ndarray:
    """Returns prepared pictures as the recipe's images, `(N, H, W, C)` in 0..1."""
    width, height = options.stored_size
    pixels = np.stack([np.frombuffer(picture.pixels, np.uint8) for picture in pictures])
    stored = torch.from_numpy(pixels.reshape(-1, height, width, options.channels))
    images: np.ndarray = scaled(stored, options).permute(0, 2, 3, 1).numpy()
    return images
