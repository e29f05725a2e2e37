"""The decoded data set: a memory-mapped cache of bytes, its classes, and its split.

Images are decoded once, by as many threads as there are cores, into `(N, H, W, C)` bytes on disk, in a folder
named after a hash of the content and of the settings that change pixels. Choosing classes, an attribute or a
split happens afterwards on indices, so one cache serves them all, and a set larger than memory works.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from zeuxis.data.registry import Collection, cache_dir, data_dir, find, sources
from zeuxis.errors import UserError, nearest, one_of
from zeuxis.progress import bar
from zeuxis.recipe import DataOptions

__all__ = ["Dataset", "choose", "load"]

# Raised when what is stored, or how it is made, changes: older caches are then left aside.
_FORMAT = 1


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
        quarantine: unreadable files and why.
        source: what the source said of itself: `channels`, `sizes`.
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
    quarantine: dict[str, str]
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
            "unreadable": len(self.quarantine),
            "sizes": self.source["sizes"],
        }


def choose(name_or_path: str) -> dict[str, str]:
    """Returns the overrides that point a recipe's data at a source's name, or at a folder or zip,
    given as it is or inside the data directory.

    Raises:
        UserError: if it is neither.
    """
    if name_or_path in sources():
        return {"data.source": name_or_path, "data.path": ""}
    for path in (Path(name_or_path).expanduser(), data_dir() / name_or_path):
        if path.exists():
            return {"data.source": "folder", "data.path": str(path.resolve())}
    raise UserError(
        f"'{name_or_path}' is neither a data source nor a folder or zip that exists.{nearest(name_or_path, sources())}"
    )


def load(options: DataOptions, *, recipe: str = "", progress: bool = True) -> Dataset:
    """Finds, decodes (once) and splits the images a recipe asks for.

    Args:
        options: the recipe's data section.
        recipe: the recipe's name, for messages.
        progress: show a bar while decoding.

    Raises:
        UserError: if the images cannot be had, or do not fit the recipe.
    """
    origin = find(options.source)
    if options.flip and not origin.mirrors:
        raise UserError(
            f"data.flip mirrors images, and mirrored images of '{origin.name}' are none of their kind; set it false."
        )
    collection = origin.open(options)
    _require_channels(collection, options, recipe)
    folder = _cached(collection, options, progress)
    index = json.loads((folder / "index.json").read_text("utf-8"))
    kept = np.array(index["kept"], dtype=np.int64)
    size, channels = options.stored_size, options.channels
    images = np.memmap(folder / "images.bin", np.uint8, "r", shape=(len(kept), size, size, channels))
    digests = np.fromfile(folder / "digests.bin", np.uint64)
    labels, classes = collection.labels, collection.classes
    if options.attribute:
        labels, classes = _attribute_as_class(collection, options.attribute)
    labels = None if labels is None else labels[kept]
    selected = np.arange(len(kept))
    if labels is not None:
        selected, labels, classes = _select(labels, classes, options.classes, index["quarantine"])
    elif options.classes:
        raise UserError(
            f"The images of '{options.path or options.source}' have no classes to choose from; drop --classes."
        )
    if collection.split is not None:
        test = collection.split[kept][selected] == 1
    else:
        test = _split(digests[selected], None if labels is None else labels[selected], options)
    train_index, test_index = selected[~test], selected[test]
    if not len(train_index) or not len(test_index):
        raise UserError(
            f"{len(selected)} images are too few: {len(train_index)} are left for training and {len(test_index)} for "
            "testing; add images or change data.test_fraction."
        )
    key = hashlib.sha256(digests[train_index].tobytes() + b"|" + digests[test_index].tobytes())
    key.update(b"" if labels is None else labels[selected].tobytes())
    return Dataset(
        images=images,
        labels=labels,
        classes=tuple(classes),
        attributes=None if collection.attributes is None else collection.attributes[kept],
        attribute_names=tuple(collection.attribute_names),
        factors=None if collection.factors is None else collection.factors[kept],
        factor_names=tuple(collection.factor_names),
        names=[collection.names[i] for i in kept],
        train=train_index,
        test=test_index,
        fingerprint=key.hexdigest()[:32],
        quarantine=index["quarantine"],
        source={"channels": collection.channels, "sizes": collection.sizes},
    )


def _require_channels(collection: Collection, options: DataOptions, recipe: str) -> None:
    if collection.channels == options.channels or options.convert:
        return
    kinds = {1: "grey", 3: "colour"}
    have, want = kinds[collection.channels], kinds[options.channels]
    size = options.size
    raise UserError(
        f"The recipe {recipe or 'given'} makes {size}x{size} {want} images, but "
        f"'{options.path or options.source}' holds {have} images of {collection.sizes} pixels. To train on them turned "
        f"{want} at {size}x{size}, add --set data.convert=true; to keep them {have}, use a recipe with "
        f"data.channels = {collection.channels}, data.size as you like, and networks that make "
        f"{collection.channels} channel{'s' * (collection.channels > 1)}."
    )


def _attribute_as_class(collection: Collection, name: str) -> tuple[np.ndarray, list[str]]:
    if collection.attributes is None:
        raise UserError(f"These images have no attributes, so data.attribute = '{name}' chooses nothing.")
    if name not in collection.attribute_names:
        raise one_of("attribute", name, collection.attribute_names)
    column = collection.attributes[:, collection.attribute_names.index(name)]
    return column.astype(np.int64), [f"not {name}", name]


def _select(
    labels: np.ndarray, classes: list[str], wanted: list[str], quarantine: dict[str, str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Keeps the wanted classes, renumbered in the order asked for."""
    for name in wanted:
        if name not in classes:
            raise one_of("class", name, classes)
    chosen = list(dict.fromkeys(wanted)) or classes
    renumber = np.full(len(classes), -1)
    for new, name in enumerate(chosen):
        renumber[classes.index(name)] = new
    labels = renumber[labels]
    counts = np.bincount(labels[labels >= 0], minlength=len(chosen))
    if not counts.all():
        reason = f" ({len(quarantine)} files could not be read)" if quarantine else ""
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


def _cached(collection: Collection, options: DataOptions, progress: bool) -> Path:
    settings = [_FORMAT, collection.fingerprint, options.stored_size, options.channels]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:24]
    folder = cache_dir() / "images" / key
    if (folder / "index.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"The cache {folder.parent} cannot be written ({error.strerror}); set ZEUXIS_CACHE to another folder."
        ) from error
    try:
        _decode_all(collection, options, building, progress)
        try:
            building.rename(folder)
        except OSError:
            if not (folder / "index.json").is_file():
                raise
            # Another process made the same cache meanwhile: its result is as good as ours.
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror or str(error)
        raise UserError(
            f"The decoded images cannot be written to {folder.parent}: {why}. "
            "Make room, or set ZEUXIS_CACHE to another folder."
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _decode_all(collection: Collection, options: DataOptions, folder: Path, progress: bool) -> None:
    size, mode = options.stored_size, "L" if options.channels == 1 else "RGB"

    def decoded(i: int) -> bytes | str:
        try:
            return _square(collection.read(i, size), size).convert(mode).tobytes()
        except UnidentifiedImageError:
            return "it is no image of a format that can be read"
        except Exception as error:  # noqa: BLE001 - decoders raise what they like; the file is named and left out
            return f"{type(error).__name__}: {error}"

    kept: list[int] = []
    quarantine: dict[str, str] = {}
    workers = os.cpu_count() or 1
    with (
        (folder / "images.bin").open("wb") as images,
        (folder / "digests.bin").open("wb") as digests,
        bar("decoding images", len(collection.names), visible=progress) as advance,
        ThreadPoolExecutor(workers) as pool,
        warnings.catch_warnings(),
    ):
        # Pillow warns of images it finds large; what is too large is refused by name in `decode`.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # In chunks: the pool would otherwise hold every decoded image at once.
        for start in range(0, len(collection.names), 1024):
            chunk = range(start, min(start + 1024, len(collection.names)))
            for i, result in zip(chunk, pool.map(decoded, chunk), strict=True):
                if isinstance(result, str):
                    quarantine[collection.names[i]] = result
                    continue
                kept.append(i)
                images.write(result)
                digests.write(hashlib.blake2b(result, digest_size=8).digest())
            advance(len(chunk))
    if not kept:
        name, why = next(iter(quarantine.items()))
        raise UserError(f"None of the {len(quarantine)} images can be read; the first, {name}: {why}.")
    index = {"kept": kept, "quarantine": quarantine, "sizes": collection.sizes}
    (folder / "index.json").write_text(json.dumps(index), "utf-8")


def _square(image: Image.Image, size: int) -> Image.Image:
    """Resizes the middle square of an image to `size` x `size`; down-sampling filters against aliasing."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    if image.size == (size, size):
        return image
    method = Image.Resampling.LANCZOS if side > size else Image.Resampling.BICUBIC
    return image.resize((size, size), method, box=(left, top, left + side, top + side))
