"""Data sources: where images come from, before they are decoded.

A source is a function from `DataOptions` to a `Collection`, registered under its name. It finds the images
and their classes; decoding, resizing, caching and splitting are common to all sources and done elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ValidationError

from zeuxis.data.notes import Note
from zeuxis.data.records import Stream
from zeuxis.errors import UserError, quoted
from zeuxis.recipe import DataOptions, Section, explain
from zeuxis.registry import Registry

__all__ = ["ANY_SIZE", "SOURCES", "Collection", "Source", "data_dir", "require_no_path", "source"]

# The `sizes` of images that are drawn at whatever size is asked for.
ANY_SIZE = "NxN"


@dataclass(frozen=True)
class Collection:
    """Images that can be read one by one, and what is known about them.

    Attributes:
        fingerprint: changes whenever the content may have changed; part of the cache's key.
        names: one per image, for messages and the list of what is left out.
        channels: 1 if all images are grey, else 3.
        sizes: the sizes of the images in words, such as `"28x28"`.
        side: median of the images' shorter sides, in pixels; 0 if they have one size.
        transparent: whether any is transparent somewhere.
        read: decodes image i; called from several threads; raises if the image is unreadable. Its second
            argument is the longer side in pixels that will be kept, so that it may decode at less than full size. The
            image's `info` may have its `SIZE` and `CHANGES` (`zeuxis.data.files`).
        labels: class index of each image, -1 for none.
        classes: names of the classes, in the order of their indices.
        attributes: `(N, A)` zeros and ones.
        attribute_names: A names.
        factors: `(N, F)` indices of the factor values that each image was drawn from, if they are known.
        factor_names: F names.
        numbers: numeric columns by name, `(N,)` each; NaN where an image has no value.
        split: 0 for train and 1 for test, if a split is published.
        sampled: whether channels, sizes and transparency were read from a sample of the images; decoding reads all.
        notes: what the source has left out, in sentences.
        left_out: files that the source has left out, and why.
        content: returns the bytes of image i's file, if the source reads files.
        stream: the training images, if these are a sample of more than are kept in the cache.
    """

    fingerprint: str
    names: list[str]
    channels: int
    sizes: str
    read: Callable[[int, int], Image.Image]
    side: int = 0
    labels: np.ndarray | None = None
    classes: list[str] = field(default_factory=list)
    attributes: np.ndarray | None = None
    attribute_names: list[str] = field(default_factory=list)
    factors: np.ndarray | None = None
    factor_names: list[str] = field(default_factory=list)
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    transparent: bool = False
    split: np.ndarray | None = None
    sampled: bool = False
    notes: list[Note] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    content: Callable[[int], bytes] | None = None
    stream: Stream | None = None

    @property
    def count(self) -> int:
        """Number of images, of the stream if there is one."""
        return int(self.stream.counts.sum()) if self.stream else len(self.names)


@dataclass(frozen=True)
class Source:
    """A registered data source.

    Attributes:
        name: the value of `data.source` that selects it.
        description: one line for `zeuxis data`.
        mirrors: whether a mirrored image is still valid; mirrored digits are not.
        find: finds the images; a source with `Options` takes them as its second argument.
        frame: crops a decoded image as this source does, before it is fitted to the recipe's size.
        Options: schema of `data.options`; None if it has none.
        licence: of its images, in words; empty if it is not known.
        square: whether its images are drawn or published as squares, and stay squares.
    """

    name: str
    description: str
    mirrors: bool
    find: Callable[..., Collection]
    Options: type[Section] | None = None
    frame: Callable[[Image.Image], Image.Image] | None = None
    licence: str = ""
    square: bool = False

    def open(self, options: DataOptions) -> Collection:
        """Finds the images that a recipe describes.

        Raises:
            UserError: if they are not available, or for wrong options.
        """
        if self.square and options.size.width != options.size.height:
            raise UserError(
                f"The images of '{self.name}' are square, and stay square: data.size should be one side, such as "
                f"{min(options.size)}, not {options.size}."
            )
        if self.Options is None:
            if options.options:
                raise UserError(f"The data source '{self.name}' has no options; remove data.options.")
            return self.find(options)
        try:
            own = self.Options.model_validate(options.options)
        except ValidationError as error:
            raise explain(error, "The recipe", self.Options, "data.options") from None
        return self.find(options, own)


SOURCES: Registry[Source] = Registry("data source", "zeuxis.data")
Opener = Callable[..., Collection]


def require_no_path(options: DataOptions) -> None:
    """Raises a `UserError` if a path is given to a source that is part of Zeuxis."""
    if options.path:
        raise UserError(
            f"The data source '{options.source}' takes no path, and data.path is '{quoted(options.path)}'. For images "
            "of your own: --data PATH."
        )


def source(
    name: str,
    description: str,
    *,
    mirrors: bool,
    options: type[Section] | None = None,
    frame: Callable[[Image.Image], Image.Image] | None = None,
    licence: str = "",
    square: bool = False,
) -> Callable[[Opener], Opener]:
    """Registers a function as the data source of this name.

    Args:
        name: the value of `data.source` that selects it.
        description: one line for `zeuxis data`.
        mirrors: whether a mirrored image is still valid.
        options: schema of `data.options`, which become the function's second argument; None if it has none.
        frame: crops a decoded image as this source does, before it is fitted to the recipe's size; a user's own picture
            is cropped by it as well.
        licence: of its images, in words.
        square: whether its images are squares, and stay squares.
    """

    def register(open_: Opener) -> Opener:
        entry = Source(name, description, mirrors, open_, options, frame, licence, square)
        SOURCES.register(name, entry, open_.__module__)
        return open_

    return register


def data_dir() -> Path:
    """Returns the data directory: `ZEUXIS_DATA`, else the platform's directory for a user's data."""
    from platformdirs import user_data_path

    variable = os.environ.get("ZEUXIS_DATA")
    return Path(variable).expanduser() if variable else user_data_path("zeuxis", False)


def locate(path: str) -> Path:
    """Returns a path that exists, as it is or inside the data directory; raises a `UserError` if neither does."""
    existing = lookup(path)
    if existing is None:
        raise UserError(f"There is no file or folder '{path}' here or in the data directory {data_dir()}.")
    return existing


def lookup(path: str) -> Path | None:
    """Returns a path that exists, as it is or inside the data directory; None if neither does."""
    # `expanduser` and `exists` raise for what no path can be: an unknown user, a null character, 5,000 letters.
    with suppress(OSError, ValueError, RuntimeError):
        expanded = Path(path).expanduser()
        return next((candidate for candidate in (expanded, data_dir() / expanded) if candidate.exists()), None)
    return None
