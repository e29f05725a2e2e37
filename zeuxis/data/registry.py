"""A data source: where images come from, before they are decoded.

A source is a function from `DataOptions` to a `Collection`, registered under its name. It finds the images
and knows their classes; decoding, resizing, caching and splitting are the same for all and live elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ValidationError

from zeuxis.data.notes import Note
from zeuxis.errors import UserError
from zeuxis.recipe import DataOptions, Section, explain
from zeuxis.registry import Registry

__all__ = ["SOURCES", "Collection", "Source", "cache_dir", "data_dir", "source"]


@dataclass(frozen=True)
class Collection:
    """Images that can be read one by one, and what is known of them.

    Attributes:
        fingerprint: changes whenever the content may have; part of the cache's key.
        names: one per image, for messages and the list of what is left out.
        channels: 1 if all images are grey, else 3.
        sizes: the sizes of the images in words, such as `"28x28"`.
        read: decodes image i; called from several threads; raises on an unreadable one. Its second
            argument is the side in pixels that will be kept, so that it may decode at less than full size. The
            image's `info` may hold its `SIZE` and `CHANGES` (`zeuxis.data.files`).
        labels: class index of each image, -1 for none.
        classes: names of the classes, in the order of their indices.
        attributes: `(N, A)` zeros and ones.
        attribute_names: A names.
        factors: `(N, F)` indices of the values that each image was drawn by, where they are known.
        factor_names: F names.
        split: 0 for train and 1 for test where a split is published.
        sampled: whether channels and sizes are those of some images; decoding looks at all.
        notes: what is left out already, in sentences.
        left_out: files that are left out already, and why.
    """

    fingerprint: str
    names: list[str]
    channels: int
    sizes: str
    read: Callable[[int, int], Image.Image]
    labels: np.ndarray | None = None
    classes: list[str] = field(default_factory=list)
    attributes: np.ndarray | None = None
    attribute_names: list[str] = field(default_factory=list)
    factors: np.ndarray | None = None
    factor_names: list[str] = field(default_factory=list)
    split: np.ndarray | None = None
    sampled: bool = False
    notes: list[Note] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A registered way of finding images.

    Attributes:
        name: what `data.source` says.
        description: one line for `zeuxis data`.
        mirrors: whether a mirrored image is still one of its kind; digits are not.
        find: finds the images, given options of its own besides where it has such.
        Options: what `data.options` may hold; None for nothing.
    """

    name: str
    description: str
    mirrors: bool
    find: Callable[..., Collection]
    Options: type[Section] | None = None

    def open(self, options: DataOptions) -> Collection:
        """Finds the images that a recipe asks for.

        Raises:
            UserError: if they cannot be had, or for wrong options.
        """
        if self.Options is None:
            if options.options:
                raise UserError(f"The data source '{self.name}' has no options, and data.options gives some.")
            return self.find(options)
        try:
            own = self.Options.model_validate(options.options)
        except ValidationError as error:
            raise explain(error, "The recipe", self.Options, "data.options") from None
        return self.find(options, own)


SOURCES: Registry[Source] = Registry("data source", "zeuxis.data")
Opener = Callable[..., Collection]


def source(
    name: str, description: str, *, mirrors: bool, options: type[Section] | None = None
) -> Callable[[Opener], Opener]:
    """Registers a function as the data source of this name.

    Args:
        name: what `data.source` says.
        description: one line for `zeuxis data`.
        mirrors: whether a mirrored image is still one of its kind.
        options: of its own, as `data.options` gives them; the function's second argument.
    """

    def register(open_: Opener) -> Opener:
        SOURCES.register(name, Source(name, description, mirrors, open_, options), open_.__module__)
        return open_

    return register


def data_dir() -> Path:
    """The data directory: `ZEUXIS_DATA`, else the platform's place for a user's data."""
    from platformdirs import user_data_path

    given = os.environ.get("ZEUXIS_DATA")
    return Path(given).expanduser() if given else user_data_path("zeuxis", False)


def cache_dir() -> Path:
    """Where decoded images are kept: `ZEUXIS_CACHE`, else the platform's cache directory."""
    from platformdirs import user_cache_path

    given = os.environ.get("ZEUXIS_CACHE")
    return Path(given).expanduser() if given else user_cache_path("zeuxis", False)


def locate(path: str) -> Path:
    """Finds a path as given, else inside the data directory."""
    found = lookup(path)
    if found is None:
        raise UserError(f"There is no file or folder '{path}', neither here nor in the data directory {data_dir()}.")
    return found


def lookup(path: str) -> Path | None:
    """A path as given, else inside the data directory; None if there is neither."""
    # No path can hold what `expanduser` and `exists` refuse: an unknown user, a null character, 5,000 letters.
    with suppress(OSError, ValueError, RuntimeError):
        given = Path(path).expanduser()
        return next((candidate for candidate in (given, data_dir() / given) if candidate.exists()), None)
    return None
