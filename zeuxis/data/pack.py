"""Packs images into shards: WebDataset's tar files, to be read as a stream from a disk or a store.

Each record is `KEY.png` or `KEY.jpg`, and `KEY.json` with its name, class and attributes. JPEG and PNG files are kept
as they are; other images become PNG, upright and in 8 bits. Records are in random order, since a stream shuffles only
what is near: `train-000000.tar` and so on, and `test-000000.tar`, with the published split, or a tenth held out by a
hash of the content, so that copies stay together. `index.json` counts them, in a form that other readers of shard
lists know (`shardlist`).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from zeuxis.data.cache import reason
from zeuxis.data.files import CHANGES
from zeuxis.data.notes import Note, Tally
from zeuxis.data.registry import ANY_SIZE, SOURCES, Collection
from zeuxis.data.shards import INDEX
from zeuxis.errors import UserError, quoted
from zeuxis.files import WriteError, make_folder, unfinished, unlock, why, write_file
from zeuxis.progress import bar
from zeuxis.recipe import DataOptions

__all__ = ["Packed", "pack", "size_of"]

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
SUFFIXES = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png"}
TEST_FRACTION = 0.1


class Packed(NamedTuple):
    """What was packed.

    Attributes:
        folder: the folder of shards.
        train: number of training images.
        test: number of held-out images.
        shards: number of shards.
        notes: what was left out and converted.
    """

    folder: Path
    train: int
    test: int
    shards: int
    notes: list[Note]


def size_of(text: str) -> int:
    """Returns the bytes of a size such as `256MB`; raises a `UserError` for anything else."""
    match = re.fullmatch(r"([\d.]+) *([kmg]?b?)", text.strip().lower())
    try:
        size = int(float(match[1]) * UNITS[match[2]]) if match else 0
    except (ValueError, KeyError, OverflowError):
        size = 0
    if not 1000 <= size <= 10**12:
        raise UserError(f"'{quoted(text)}' is no size of a shard; give one from 1KB to 1000GB, such as 256MB.")
    return size


def pack(options: DataOptions, out: Path, shard_size: int) -> Packed:
    """Writes the images of a data source into shards; the folder appears when all of them are written.

    Args:
        options: the source and its options; nothing is resized.
        out: the new folder.
        shard_size: bytes after which the next shard begins.

    Raises:
        UserError: if the images are not available, or the folder exists or cannot be written.
    """
    collection = SOURCES[options.source].open(options)
    if collection.stream:
        raise UserError(f"The images of '{options.path or options.source}' are a stream, and need no packing.")
    if collection.sizes == ANY_SIZE:
        raise UserError(f"The images of '{options.source}' are drawn at the size of a recipe, and need no packing.")
    if out.exists():
        raise UserError(f"{out} exists; choose another folder with --out.")
    try:
        with unfinished(make_folder(out.parent)) as folder:
            packed = _write(collection, folder, out.name, shard_size)
            unlock(folder)
            folder.rename(out)
    except OSError as error:
        raise WriteError(f"The shards cannot be written to {out}: {why(error)}.") from error
    return packed._replace(folder=out)


def _write(collection: Collection, folder: Path, name: str, shard_size: int) -> Packed:
    writers = [_Writer(folder, part, shard_size) for part in ("train", "test")]
    tally, total = Tally(), len(collection.names)
    with bar("packing images", total) as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `decode` refuses those that are too large
        for i in np.random.default_rng(0).permutation(total).tolist():
            file = collection.names[i]
            try:
                suffix, content = _content(collection, i, tally)
            except Exception as error:  # noqa: BLE001 - decoders raise anything; the image is reported and left out
                tally.add("left out", "left out as unreadable", f"{file} ({reason(error)})")
            else:
                writers[_part(collection, i, content)].add(f"{i:09d}", suffix, content, _told(collection, i))
            advance(1)
    for writer, part in zip(writers, ("training", "testing"), strict=True):
        writer.close()
        if not writer.count:
            raise UserError(f"{total:,} images are too few: none remains for {part}. Add images.")
    shards = [shard for writer in writers for shard in writer.shards]
    index = {
        "__kind__": "wids-shard-index-v1", "wids_version": 1, "zeuxis": 1, "name": name, "shardlist": shards,
        "classes": collection.classes, "attributes": collection.attribute_names,
    }  # fmt: skip
    write_file(folder / INDEX, json.dumps(index, indent=1) + "\n")
    notes = [*collection.notes, *tally.notes(total)]
    return Packed(folder, writers[0].count, writers[1].count, len(shards), notes)


def _content(collection: Collection, i: int, tally: Tally) -> tuple[str, bytes]:
    """Returns the suffix and bytes of an image's file: its own, if it is a JPEG or PNG that can be decoded."""
    content = collection.content(i) if collection.content else b""
    suffix = next((s for start, s in SUFFIXES.items() if content.startswith(start)), "")
    # A JPEG is decoded at a fraction of its size, to see if it can be.
    image = collection.read(i, 1 if suffix else 2**16)
    if suffix:
        return suffix, content
    for change in image.info.get(CHANGES, ()):
        tally.add("converted", change, collection.names[i])
    file = io.BytesIO()
    image.save(file, "PNG")
    return "png", file.getvalue()


def _part(collection: Collection, i: int, content: bytes) -> int:
    """Returns 1 for a test image."""
    if collection.split is not None:
        return int(collection.split[i])
    return int(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) < TEST_FRACTION * 2**64)


def _told(collection: Collection, i: int) -> dict[str, Any]:
    """Returns what a record says of its image."""
    told: dict[str, Any] = {"name": collection.names[i]}
    if collection.labels is not None and collection.labels[i] >= 0:
        told["label"] = collection.classes[collection.labels[i]]
    if collection.attributes is not None:
        told["attributes"] = dict(zip(collection.attribute_names, collection.attributes[i].tolist(), strict=True))
    return told


class _Writer:
    """Writes the shards of one part.

    Args:
        folder: where to.
        part: "train" or "test".
        size: bytes after which the next shard begins.
    """

    def __init__(self, folder: Path, part: str, size: int) -> None:
        self.folder, self.part, self.size = folder, part, size
        self.shards: list[dict[str, Any]] = []
        self.count = 0
        self._tar: tarfile.TarFile | None = None

    def add(self, key: str, suffix: str, content: bytes, told: dict[str, Any]) -> None:
        """Adds a record."""
        if self._tar is None:
            self._path = self.folder / f"{self.part}-{len(self.shards):06d}.tar"
            self._tar = tarfile.open(self._path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - until it is full
            self._classes = Counter[str]()
        for end, data in ((suffix, content), ("json", json.dumps(told).encode())):
            member = tarfile.TarInfo(f"{key}.{end}")
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))
        self._tar.members.clear()  # type: ignore[attr-defined] # it keeps all that it has written
        self._classes[told.get("label", "")] += 1
        self.count += 1
        if self._tar.offset >= self.size:
            self.close()

    def close(self) -> None:
        """Ends the last shard."""
        if self._tar is None:
            return
        self._tar.close()
        self._tar = None
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.shards.append({
            "url": self._path.name, "nsamples": self._classes.total(), "filesize": self._path.stat().st_size,
            "sha256": digest, "classes": dict(sorted(self._classes.items())),
        })  # fmt: skip
