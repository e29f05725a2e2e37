"""The decoded data set: a memory-mapped cache of bytes, its classes, and its split.

Images are decoded once, by one thread per core, into a cache on disk (`zeuxis.data.cache`). Classes, attributes and
splits are then chosen by index, so they share one cache, and a set may be larger than memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zeuxis.data.arrays import store
from zeuxis.data.cache import Decoded, decoded
from zeuxis.data.files import readable
from zeuxis.data.notes import Note, in_sentences
from zeuxis.data.records import Stream
from zeuxis.data.registry import ANY_SIZE, SOURCES, Collection, lookup
from zeuxis.data.shards import are_shards
from zeuxis.errors import UserError, closest, nearest, one_of, quoted
from zeuxis.files import PACKED
from zeuxis.progress import counted
from zeuxis.recipe import DataOptions
from zeuxis.stores import is_address

__all__ = ["Dataset", "choose", "choose_classes", "combinations", "load"]


# A column of numbers whose deviation is below this share of its mean has one value, up to rounding.
EQUAL = 1e-9
# Sources that are nothing without a path, so that their bare names may be those of folders.
NEED_A_PATH = ("folder", "hf", "shards")


@dataclass(frozen=True)
class Dataset:
    """Images ready for training.

    Attributes:
        images: `(N, H, W, C)` bytes, memory-mapped.
        labels: `(N,)` class indices, or `(N, K)` float32 numbers that stand in their place, or None.
        stream: all training images, if `train` is a sample of them.
        scales: name, mean and standard deviation of each of the K numbers, which the labels have been scaled by.
        classes: names of the classes.
        attributes: `(N, A)` zeros and ones, or None.
        attribute_names: A names.
        factors: `(N, F)` indices of the factor values that each image was drawn from, or None.
        factor_names: F names.
        names: one per image, as the source names it.
        train: indices of the training images.
        test: indices of the held-out images.
        fingerprint: hash of pixels, labels and split; equal data has equal fingerprints.
        left_out: files that are not used, and why.
        notes: what was left out, cropped and converted.
        source: `channels` and `sizes` of the images in their files.
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
    scales: tuple[tuple[str, float, float], ...] = ()
    stream: Stream | None = None

    @property
    def train_count(self) -> int:
        """Number of training images."""
        return self.stream.total if self.stream else len(self.train)

    def describe(self) -> dict[str, Any]:
        """Returns what a run records about its data."""
        return {
            "fingerprint": self.fingerprint,
            "train_images": self.train_count,
            "test_images": len(self.test),
            "classes": list(self.classes),
            "attributes": list(self.attribute_names),
            "factors": list(self.factor_names),
            "numbers": [list(scale) for scale in self.scales],
            "notes": in_sentences(self.notes),
            "sizes": self.source["sizes"],
        }


def choose(data: Any) -> dict[str, str]:
    """Returns the recipe overrides that select some data.

    Args:
        data: a source's name; a folder, a zip or a file of arrays, by its path or by its name in the data directory;
            tar or parquet shards, in a folder or at an address such as `s3://BUCKET/PATH`;
            `hf:USER/NAME`, a data set of the Hugging Face hub; an array of images, or a pair of images and labels,
            which is saved to the cache. A folder may have the name of a source that needs a path, such as `shards`.

    Raises:
        UserError: if it is none of these.
    """
    if not isinstance(data, str | Path):
        return {"data.source": "folder", "data.path": str(store(data))}
    text = str(data)
    if text in SOURCES and not (text in NEED_A_PATH and lookup(text)):
        return {"data.source": text, "data.path": ""}
    if is_address(text):
        return {"data.source": "shards", "data.path": text}
    if text.startswith("hf:"):
        return {"data.source": "hf", "data.path": text.removeprefix("hf:")}
    path = lookup(text) if text.strip() else None  # an empty path would be the current folder
    if path is None:
        meant = closest(text, SOURCES) or _closest_path(text)
        hint = f" Did you mean '{meant}'?" if meant else nearest(text, SOURCES)
        raise UserError(f"'{text}' is neither a data source nor a folder or zip that exists.{hint}")
    path = path.resolve()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"The path {readable(str(path))} is not UTF-8, so a recipe cannot contain it; rename it, or link to it."
        ) from None
    return {"data.source": "shards" if are_shards(path) else "folder", "data.path": str(path)}


def _closest_path(text: str) -> str | None:
    """Returns the path of the folder, zip or file of arrays that a wrong path is closest to; None if none is close."""
    with suppress(OSError, ValueError, RuntimeError):  # as in `lookup`
        path = Path(text).expanduser()
        beside = [
            entry.name
            for entry in os.scandir(path.parent)
            if not entry.name.startswith(".") and (entry.is_dir() or Path(entry.name).suffix in PACKED)
        ]
        name = closest(path.name, beside)
        return str(path.with_name(name)) if name else None
    return None


def choose_classes(text: str, options: DataOptions) -> list[str]:
    """Splits class names at commas, except inside a name that the data has, such as `tea, green`.

    Raises:
        UserError: if the data cannot be opened.
    """
    pieces = text.split(",")
    known = set(SOURCES[options.source].open(options).classes) if len(pieces) > 1 else set()
    names, start = [], 0
    while start < len(pieces):
        # The longest run of pieces that is a class name; else one piece.
        ends = range(len(pieces), start, -1)
        joined = ((end, readable(",".join(pieces[start:end]).strip())) for end in ends)
        start, name = next((pair for pair in joined if pair[1] in known), (start + 1, pieces[start].strip()))
        names.append(name)
    if "" in names:
        raise UserError(f"'{quoted(text)}' lacks the name of a class; write names separated by commas, such as a,b.")
    return names


def load(options: DataOptions, *, recipe: str = "", progress: bool = True) -> Dataset:
    """Finds, decodes (once) and splits the images that a recipe describes.

    Args:
        options: the recipe's data section.
        recipe: the recipe's name, for messages.
        progress: show a bar while decoding.

    Raises:
        UserError: if the images are not available, or do not fit the recipe.
    """
    origin = SOURCES[options.source]
    if options.flip and not origin.mirrors:
        raise UserError(
            f"data.flip mirrors images, but images of '{origin.name}' are no longer valid when mirrored; set it to "
            "false."
        )
    collection = origin.open(options)
    # A sample of the files proves that images are in colour, but not that all are grey.
    if not collection.sampled or collection.channels == 3:
        _require_channels(collection.channels, collection.sizes, options, recipe)
    cache = decoded(collection, options, progress)
    _require_channels(cache.channels, cache.sizes, options, recipe)
    chosen = _chosen(collection, cache, options)
    notes = [*collection.notes, *cache.notes, *chosen.notes]
    train, test = _parts(collection, cache, chosen, options, notes)
    key = hashlib.sha256(cache.digests[train].tobytes() + b"|" + cache.digests[test].tobytes())
    key.update(b"" if chosen.labels is None else chosen.labels[chosen.indices].tobytes())
    key.update(collection.stream.fingerprint.encode() if collection.stream else b"")
    labels, scales = chosen.labels, tuple[tuple[str, float, float], ...]()
    if chosen.numbers is not None:
        labels, scales = _standardised(chosen.numbers, options.numbers, train)
        key.update(labels[chosen.indices].tobytes())
    kept = cache.kept
    return Dataset(
        images=cache.images,
        labels=labels,
        classes=tuple(chosen.classes),
        attributes=None if collection.attributes is None else collection.attributes[kept],
        attribute_names=tuple(collection.attribute_names),
        factors=None if collection.factors is None else collection.factors[kept],
        factor_names=tuple(collection.factor_names),
        names=[collection.names[i] for i in kept],
        train=train,
        test=test,
        fingerprint=key.hexdigest()[:32],
        left_out=collection.left_out | cache.left_out,
        notes=tuple(notes),
        source={"channels": cache.channels, "sizes": cache.sizes},
        scales=scales,
        stream=collection.stream,
    )


class _Chosen(NamedTuple):
    """The images that a recipe uses, of the N that were decoded, and what they can be asked for by.

    Attributes:
        indices: of the images.
        labels: class indices `(N,)`, or None.
        classes: names of the classes.
        numbers: values of `data.numbers`, `(N, K)`, or None.
        notes: what is left out.
    """

    indices: np.ndarray
    labels: np.ndarray | None
    classes: list[str]
    numbers: np.ndarray | None = None
    notes: Sequence[Note] = ()


def _chosen(collection: Collection, cache: Decoded, options: DataOptions) -> _Chosen:
    """Chooses the images that have the numbers, the classes or the attributes that the recipe names."""
    labels, classes = collection.labels, collection.classes
    if options.attributes:
        labels, classes = _attributes_as_classes(collection, options.attributes)
    if options.numbers:
        numbers = _numbers(collection, options.numbers)[cache.kept]
        complete = np.isfinite(numbers).all(axis=1)
        if complete.all():
            return _Chosen(np.arange(len(numbers)), None, [], numbers)
        what = f"left out (without a value of {', '.join(options.numbers)})"
        bare = collection.names[cache.kept[int(complete.argmin())]]
        note = Note("left out", int((~complete).sum()), what, bare, len(numbers))
        return _Chosen(np.flatnonzero(complete), None, [], numbers, [note])
    if labels is not None:
        whole = len(options.attributes) < 2 and collection.stream is None  # a sample may lack rare classes
        return _Chosen(*_select(labels[cache.kept], classes, options.classes, cache, whole=whole))
    if options.classes:
        raise UserError(f"The images of '{options.path or options.source}' have no classes; set data.classes to [].")
    return _Chosen(np.arange(len(cache.kept)), None, classes)


def _parts(
    collection: Collection, cache: Decoded, chosen: _Chosen, options: DataOptions, notes: list[Note]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the images to train on and of those held out; adds to the notes if these are copies."""
    used = chosen.indices
    if collection.split is not None:
        held_out = collection.split[cache.kept][used] == 1
        _require_learned(chosen.labels, used[~held_out], used[held_out], chosen.classes)
    else:
        digests = cache.digests[used]
        if len(digests) > 1 and (digests == digests[0]).all():
            # Copies of one image stay on one side of the split; if there is nothing else, the set is split anyway.
            digests = np.arange(len(digests))
            what, first = "copies of one image, on both sides of the split", collection.names[cache.kept[0]]
            notes.append(Note("copied", len(used), what, first, len(used)))
        held_out = _split(digests, None if chosen.labels is None else chosen.labels[used], options)
    train, test = used[~held_out], used[held_out]
    if not len(train) or not len(test):
        single = chosen.labels is not None and len(np.unique(chosen.labels[used])) == len(used) > 1
        alone = "; each class has one image alone" if single else ""
        told = "".join(f" {note}" for note in in_sentences(notes))
        raise UserError(
            f"{counted(str(len(used)), 'images')} cannot be split: {len(train)} for training and {len(test)} for "
            f"testing{alone}. Add images, or change data.test_fraction.{told}"
        )
    return train, test


def _standardised(
    numbers: np.ndarray, names: Sequence[str], train: np.ndarray
) -> tuple[np.ndarray, tuple[tuple[str, float, float], ...]]:
    """Returns numbers `(N, K)` at mean 0 and deviation 1 over the training images, and these by name."""
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        mean, deviation = numbers[train].mean(axis=0), numbers[train].std(axis=0)
    for name, middle, spread in zip(names, mean, deviation, strict=True):
        if not np.isfinite([middle, spread]).all() or spread <= EQUAL * abs(middle):
            what = "is the same for all training images" if np.isfinite(spread) else "has values that are too large"
            raise UserError(f"The number '{name}' of data.numbers {what}, so it says nothing of an image; drop it.")
    scaled = np.nan_to_num((numbers - mean) / deviation).astype(np.float32)
    return scaled, tuple(zip(names, mean.tolist(), deviation.tolist(), strict=True))


def _require_channels(channels: int, sizes: str, options: DataOptions, recipe: str) -> None:
    if (channels == 1) == (options.channels == 1) or options.convert:
        return
    actual, expected = ("grey", "colour") if channels == 1 else ("colour", "grey")
    size, pixels = options.size, f" of {sizes} pixels" if sizes != ANY_SIZE else ""
    raise UserError(
        f"The recipe{f' {recipe}' if recipe else ''} makes {size} {expected} images, but "
        f"'{options.path or options.source}' has {actual} images{pixels}. To convert them to {expected} at "
        f"{size}, add --set data.convert=true; to keep them {actual}, use a recipe with data.channels = "
        f"{channels}, any data.size, and networks that make {channels} channel{'s' * (channels > 1)}."
    )


def combinations(attributes: Sequence[str]) -> list[str]:
    """Returns the names of all combinations of attributes; bit k of a combination's index is the k-th attribute."""
    return [
        ", ".join(name if index >> place & 1 else f"not {name}" for place, name in enumerate(attributes))
        for index in range(2 ** len(attributes))
    ]


def _numbers(collection: Collection, names: Sequence[str]) -> np.ndarray:
    """Returns the columns of these names, `(N, K)`, NaN where an image has no value."""
    if not collection.numbers:
        raise UserError(
            f"These images have no numbers; drop data.numbers = {list(names)}. Numbers come from a column of a CSV or "
            "metadata.jsonl, or from an array in an .npz."
        )
    for name in names:
        if name not in collection.numbers:
            raise one_of("column of numbers", name, collection.numbers)
    return np.stack([np.asarray(collection.numbers[name], np.float64) for name in names], axis=1)


def _attributes_as_classes(collection: Collection, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Returns each image's combination of attributes as its class index, and the names of all combinations."""
    if collection.attributes is None:
        raise UserError(f"These images have no attributes; drop data.attribute = '{', '.join(names)}'.")
    labels = np.zeros(len(collection.attributes), np.int64)
    for place, name in enumerate(names):
        if name not in collection.attribute_names:
            raise one_of("attribute", name, collection.attribute_names)
        labels += collection.attributes[:, collection.attribute_names.index(name)].astype(np.int64) << place
    return labels, combinations(names)


def _select(
    labels: np.ndarray, classes: list[str], names: list[str], cache: Decoded, *, whole: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Selects images by class; those without a class, at -1, are left out.

    Args:
        labels: `(N,)` class indices.
        classes: names of all classes.
        names: classes to keep, in their new order; empty for all.
        cache: the decoded images, for messages.
        whole: whether each class must have images.

    Returns:
        Indices of the selected images, the new class indices `(N,)`, and the names of the classes kept.
    """
    for name in names:
        if name not in classes:
            raise one_of("class", name, classes)
    selected = list(dict.fromkeys(names)) or classes
    renumber = np.full(len(classes) + 1, -1)
    for new, name in enumerate(selected):
        renumber[classes.index(name)] = new
    labels = renumber[labels]
    counts = np.bincount(labels[labels >= 0], minlength=len(selected))
    if whole and not counts.all():
        reason = f" ({len(cache.left_out)} files could not be read)" if cache.left_out else ""
        raise UserError(f"The class '{selected[int(counts.argmin())]}' has no images{reason}.")
    return np.flatnonzero(labels >= 0), labels, selected


def _require_learned(labels: np.ndarray | None, train: np.ndarray, test: np.ndarray, classes: Sequence[str]) -> None:
    """Raises a `UserError` if a class has test images, but none to train on."""
    if labels is None or not classes or not len(train):
        return
    if unseen := sorted({*labels[test].tolist()} - {*labels[train].tolist()}):
        raise UserError(
            f"The class '{classes[unseen[0]]}' has images in the test part alone, so it could not be learned; put some "
            "of them into the training part, or name the other classes in data.classes."
        )


def _split(digests: np.ndarray, labels: np.ndarray | None, options: DataOptions) -> np.ndarray:
    """Returns `(N,)` bool, True for test images: a seeded share of each class; copies of an image stay together."""
    unique, first, copy_of = np.unique(digests, return_index=True, return_inverse=True)
    strata = np.zeros(len(unique), np.int64) if labels is None else labels[first]
    generator = np.random.default_rng(options.split_seed)
    test = np.zeros(len(unique), bool)
    for stratum in np.unique(strata):
        # In the order of the source, so that the split does not depend on pixel values.
        members = np.flatnonzero(strata == stratum)
        members = generator.permutation(members[np.argsort(first[members])])
        count = max(round(len(members) * options.test_fraction), int(len(members) > 1))
        test[members[:count]] = True
    return test[copy_of]
