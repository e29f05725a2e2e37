"""The decoded data set: a memory-mapped cache of bytes, its classes, and its split.

Images are decoded once, by as many threads as there are cores, into a cache on disk (`zeuxis.data.cache`). Choosing
classes, an attribute or a split happens afterwards on indices, so one cache serves them all, and a set larger than
memory works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zeuxis.data.arrays import store
from zeuxis.data.cache import Decoded, decoded
from zeuxis.data.files import readable
from zeuxis.data.notes import Note
from zeuxis.data.registry import SOURCES, Collection, lookup
from zeuxis.errors import UserError, nearest, one_of
from zeuxis.recipe import DataOptions

__all__ = ["Dataset", "choose", "choose_classes", "combinations", "load"]


@dataclass(frozen=True)
class Dataset:
    """Images ready for training.

    Attributes:
        images: `(N, H, W, C)` bytes, memory-mapped.
        labels: `(N,)` class indices, or None.
        classes: names of the classes.
        attributes: `(N, A)` zeros and ones, or None.
        attribute_names: A names.
        factors: `(N, F)` indices of the values that each image was drawn by, or None.
        factor_names: F names.
        names: one per image, as the source calls it.
        train: indices of the training images.
        test: indices of the held-out images.
        fingerprint: hash of pixels, labels and split; equal data has equal fingerprints.
        left_out: files that are not read, and why.
        notes: what was left out, cropped and converted on the way.
        source: of the images in their files: `channels`, `sizes`.
    """

    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    attributes: np.ndarray | None
    attribute_names: tuple[str, ...]
    factors: np.ndarray | None
    factor_names: tuple[str, ...]
    names: list[str]
    train: np.ndarray
    test: np.ndarray
    fingerprint: str
    left_out: dict[str, str]
    notes: tuple[Note, ...]
    source: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """What a run records of its data."""
        return {
            "fingerprint": self.fingerprint,
            "train_images": len(self.train),
            "test_images": len(self.test),
            "classes": list(self.classes),
            "attributes": list(self.attribute_names),
            "factors": list(self.factor_names),
            "notes": [str(note) for note in self.notes],
            "sizes": self.source["sizes"],
        }


def choose(data: Any) -> dict[str, str]:
    """Returns the overrides that point a recipe's data at what is given.

    Args:
        data: a source's name; a folder, a zip or a file of arrays, as it is or inside the data directory; an array of
            images, or a pair of images and labels, which is written into the cache.

    Raises:
        UserError: if it is none of these.
    """
    if not isinstance(data, str | Path):
        return {"data.source": "folder", "data.path": str(store(data))}
    given = str(data)
    if given in SOURCES:
        return {"data.source": given, "data.path": ""}
    path = lookup(given) if given.strip() else None  # an empty path would be the folder one is in
    if path is None:
        raise UserError(f"'{given}' is neither a data source nor a folder or zip that exists.{nearest(given, SOURCES)}")
    path = path.resolve()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"The path {readable(str(path))} is not UTF-8, and a recipe cannot hold it; rename it, or link to it."
        ) from None
    return {"data.source": "folder", "data.path": str(path)}


def choose_classes(text: str, options: DataOptions) -> list[str]:
    """Splits class names at commas, but not within a name that the data has, such as `tea, green`.

    Raises:
        UserError: if the data cannot be opened.
    """
    pieces = text.split(",")
    known = set(SOURCES[options.source].open(options).classes) if len(pieces) > 1 else set()
    names, start = [], 0
    while start < len(pieces):
        # The longest run of pieces that is a name; else one piece.
        ends = range(len(pieces), start, -1)
        joined = ((end, readable(",".join(pieces[start:end]).strip())) for end in ends)
        start, name = next((pair for pair in joined if pair[1] in known), (start + 1, pieces[start].strip()))
        names.append(name)
    return [name for name in names if name]


def load(options: DataOptions, *, recipe: str = "", progress: bool = True) -> Dataset:
    """Finds, decodes (once) and splits the images a recipe asks for.

    Args:
        options: the recipe's data section.
        recipe: the recipe's name, for messages.
        progress: show a bar while decoding.

    Raises:
        UserError: if the images cannot be had, or do not fit the recipe.
    """
    origin = SOURCES[options.source]
    if options.flip and not origin.mirrors:
        raise UserError(
            f"data.flip mirrors images, and mirrored images of '{origin.name}' are none of their kind; set it false."
        )
    collection = origin.open(options)
    # What a sample says of colour is certain only if some of it is in colour.
    if not collection.sampled or collection.channels == 3:
        _require_channels(collection.channels, collection.sizes, options, recipe)
    cache = decoded(collection, options, progress)
    _require_channels(cache.channels, cache.sizes, options, recipe)
    kept, notes = cache.kept, [*collection.notes, *cache.notes]
    names = [collection.names[i] for i in kept]
    labels, classes = collection.labels, collection.classes
    if options.attributes:
        labels, classes = _attributes_as_classes(collection, options.attributes)
    labels = None if labels is None else labels[kept]
    selected = np.arange(len(kept))
    if labels is not None:
        selected, labels, classes = _select(labels, classes, options.classes, cache, whole=len(options.attributes) < 2)
    elif options.classes:
        raise UserError(
            f"The images of '{options.path or options.source}' have no classes to choose from; drop --classes."
        )
    if collection.split is not None:
        test = collection.split[kept][selected] == 1
    else:
        digests = cache.digests[selected]
        if len(digests) > 1 and (digests == digests[0]).all():
            # Copies of one image, which can be on one side alone, are no set to be refused.
            digests = np.arange(len(digests))
            notes.append(
                Note("copied", len(selected), "copies of one, on both sides of the split", names[0], len(selected))
            )
        test = _split(digests, None if labels is None else labels[selected], options)
    train_index, test_index = selected[~test], selected[test]
    if not len(train_index) or not len(test_index):
        raise UserError(
            f"{len(selected)} images are too few: {len(train_index)} are left for training and {len(test_index)} for "
            "testing; add images or change data.test_fraction."
        )
    key = hashlib.sha256(cache.digests[train_index].tobytes() + b"|" + cache.digests[test_index].tobytes())
    key.update(b"" if labels is None else labels[selected].tobytes())
    return Dataset(
        images=cache.images,
        labels=labels,
        classes=tuple(classes),
        attributes=None if collection.attributes is None else collection.attributes[kept],
        attribute_names=tuple(collection.attribute_names),
        factors=None if collection.factors is None else collection.factors[kept],
        factor_names=tuple(collection.factor_names),
        names=names,
        train=train_index,
        test=test_index,
        fingerprint=key.hexdigest()[:32],
        left_out=collection.left_out | cache.left_out,
        notes=tuple(notes),
        source={"channels": cache.channels, "sizes": cache.sizes},
    )


def _require_channels(channels: int, sizes: str, options: DataOptions, recipe: str) -> None:
    if channels == options.channels or options.convert:
        return
    kinds = {1: "grey", 3: "colour"}
    have, want = kinds[channels], kinds[options.channels]
    size = options.size
    raise UserError(
        f"The recipe {recipe or 'given'} makes {size}x{size} {want} images, but "
        f"'{options.path or options.source}' holds {have} images of {sizes} pixels. To train on them turned "
        f"{want} at {size}x{size}, add --set data.convert=true; to keep them {have}, use a recipe with "
        f"data.channels = {channels}, data.size as you like, and networks that make "
        f"{channels} channel{'s' * (channels > 1)}."
    )


def combinations(attributes: Sequence[str]) -> list[str]:
    """Names of all combinations of attributes; the k-th attribute is the k-th bit of a combination's index."""
    return [
        ", ".join(name if index >> place & 1 else f"not {name}" for place, name in enumerate(attributes))
        for index in range(2 ** len(attributes))
    ]


def _attributes_as_classes(collection: Collection, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Index and names of the combinations of attributes; of one attribute, of those without it and with it."""
    if collection.attributes is None:
        raise UserError(f"These images have no attributes, so data.attribute = '{', '.join(names)}' chooses nothing.")
    labels = np.zeros(len(collection.attributes), np.int64)
    for place, name in enumerate(names):
        if name not in collection.attribute_names:
            raise one_of("attribute", name, collection.attribute_names)
        labels += collection.attributes[:, collection.attribute_names.index(name)].astype(np.int64) << place
    return labels, combinations(names)


def _select(
    labels: np.ndarray, classes: list[str], wanted: list[str], cache: Decoded, *, whole: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Keeps the wanted classes, renumbered in the order asked for; images without a class, at -1, are left out.

    Where classes are `whole`, each must have images.
    """
    for name in wanted:
        if name not in classes:
            raise one_of("class", name, classes)
    chosen = list(dict.fromkeys(wanted)) or classes
    renumber = np.full(len(classes) + 1, -1)
    for new, name in enumerate(chosen):
        renumber[classes.index(name)] = new
    labels = renumber[labels]
    counts = np.bincount(labels[labels >= 0], minlength=len(chosen))
    if whole and not counts.all():
        reason = f" ({len(cache.left_out)} files could not be read)" if cache.left_out else ""
        raise UserError(f"The class '{chosen[int(counts.argmin())]}' has no images{reason}.")
    return np.flatnonzero(labels >= 0), labels, chosen


def _split(digests: np.ndarray, labels: np.ndarray | None, options: DataOptions) -> np.ndarray:
    """Marks a stratified, seeded share of images as test; copies of one image stay on one side."""
    unique, first, copy_of = np.unique(digests, return_index=True, return_inverse=True)
    strata = np.zeros(len(unique), np.int64) if labels is None else labels[first]
    generator = np.random.default_rng(options.split_seed)
    test = np.zeros(len(unique), bool)
    for stratum in np.unique(strata):
        # In the order the source lists them, so that the split does not hang on pixel values.
        members = np.flatnonzero(strata == stratum)
        members = generator.permutation(members[np.argsort(first[members])])
        count = max(round(len(members) * options.test_fraction), int(len(members) > 1))
        test[members[:count]] = True
    return test[copy_of]
