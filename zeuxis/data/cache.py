"""The cache of decoded images: bytes on disk, in a folder named after a hash of the content and of what changes pixels.

A folder holds `images.bin`, `(N, H, W, C)` bytes; `digests.bin`, eight bytes for each image, equal for equal pixels;
and `index.json`. The index holds checksums of both and of itself, and all are checked before pixels are used. A damaged
folder is made again. It is built beside its place and renamed (`zeuxis.files.unfinished`).
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from zeuxis.data.files import CHANGES, SIZE, size_words
from zeuxis.data.notes import Note, Tally
from zeuxis.data.registry import Collection, cache_dir
from zeuxis.errors import UserError
from zeuxis.files import LOCK, unfinished, why, write_file
from zeuxis.progress import bar, say
from zeuxis.recipe import DataOptions

__all__ = ["TO_COLOUR", "Decoded", "decoded"]

# Raised when what is stored, or how it is made, changes: older caches are then left aside.
_FORMAT = 2
FILES = ("images.bin", "digests.bin")
# Bytes that are hashed at once.
_BLOCK = 2**26
TO_COLOUR, TO_GREY = "grey, and turned to colour", "in colour, and turned grey"


class Decoded(NamedTuple):
    """Decoded images, and what was found on the way.

    Attributes:
        images: `(N, H, W, C)` bytes, memory-mapped.
        digests: `(N,)`, equal for equal pixels.
        kept: index of each in the collection.
        left_out: images that cannot be read, and why.
        notes: what was left out, cropped and converted.
        channels: 1 if all are grey in their files, else 3.
        sizes: of the images in their files, in words.
    """

    images: np.ndarray
    digests: np.ndarray
    kept: np.ndarray
    left_out: dict[str, str]
    notes: list[Note]
    channels: int
    sizes: str


class _Pixels(NamedTuple):
    """One decoded image: its bytes, whether it was grey, its size in the file if known, its size, what was changed."""

    pixels: bytes
    grey: bool
    whole: tuple[int, int] | None
    size: tuple[int, int]
    changes: Sequence[str]


# Files that were checked in this process: path, size, time of the last change.
_checked: set[tuple[str, int, int]] = set()


def decoded(collection: Collection, options: DataOptions, progress: bool) -> Decoded:
    """Returns a collection's images as the recipe wants them: from the cache, or decoded into it.

    Raises:
        UserError: if none can be read, or the cache cannot be written.
    """
    settings = [_FORMAT, collection.fingerprint, options.stored_size, options.channels]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:24]
    folder = _folder() / key
    try:
        if folder.exists():
            try:
                return _read(folder, options)
            except _DamagedError as damage:
                say(f"The cache of decoded images {folder} is damaged ({damage}); it is made again.")
                _remove(folder)
        with _building(folder) as building:
            _decode_all(collection, options, building, progress)
        return _read(folder, options)
    except _DamagedError as damage:
        raise UserError(
            f"The cache of decoded images {folder} is damaged as soon as it is written ({damage})."
        ) from None
    except OSError as error:
        raise UserError(
            f"The decoded images cannot be kept in {folder.parent}: {why(error)}. "
            "Make room, or set ZEUXIS_CACHE to another folder."
        ) from error


def _folder() -> Path:
    """The folder of all caches of images; one that goes away where the platform's cannot be written."""
    folder = cache_dir() / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason = "you have no permission"
    except OSError as error:
        reason = why(error)
    if os.environ.get("ZEUXIS_CACHE"):
        if folder.is_dir():  # what is there already can be read
            return folder
        raise UserError(f"The cache {folder} cannot be made: {reason}. Set ZEUXIS_CACHE to another folder.")
    return _temporary(folder, reason)


@cache
def _temporary(folder: Path, reason: str) -> Path:
    try:
        instead = Path(tempfile.mkdtemp(prefix="zeuxis-"))
    except OSError as error:
        raise UserError(f"The cache {folder} cannot be made: {reason}. Set ZEUXIS_CACHE to another folder.") from error
    atexit.register(shutil.rmtree, instead, ignore_errors=True)
    say(f"The cache {folder} cannot be made: {reason}. Decoded images are kept in {instead} until this command ends.")
    return instead


class _DamagedError(Exception):
    """A cache whose files are not what was written; the message says which."""


def _read(folder: Path, options: DataOptions) -> Decoded:
    """Reads a cache whose checksums are right.

    Raises:
        _DamagedError: if any is wrong, or a file cannot be read.
    """
    try:
        stored = json.loads((folder / "index.json").read_text("utf-8"))
        index = stored["index"]
        if stored["sha256"] != _seal(index):
            raise _DamagedError("index.json has changed")
        for name, sums in index["sha256"].items():
            _check(folder / name, sums)
    except OSError as error:
        raise _DamagedError(f"{Path(error.filename or folder).name}: {why(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _DamagedError("index.json has changed") from None
    size, channels = options.stored_size, options.channels
    return Decoded(
        images=np.memmap(folder / "images.bin", np.uint8, "r", shape=(len(index["kept"]), size, size, channels)),
        digests=np.fromfile(folder / "digests.bin", np.uint64),
        kept=np.array(index["kept"], dtype=np.int64),
        left_out=index["left_out"],
        notes=[Note(**note) for note in index["notes"]],
        channels=index["channels"],
        sizes=index["sizes"],
    )


def _seal(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _check(path: Path, sums: list[str]) -> None:
    """Holds a file against its checksums, once in a process for each state of the file."""
    state = _state(path)
    if state not in _checked:
        if _sums(path) != sums:
            raise _DamagedError(f"{path.name} has changed")
        _checked.add(state)


def _state(path: Path) -> tuple[str, int, int]:
    known = path.stat()
    return str(path), known.st_size, known.st_mtime_ns


def _sums(path: Path) -> list[str]:
    """Checksums of a file's blocks, by as many threads as there are cores."""

    def hashed(start: int) -> str:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(start)
            for _ in range(_BLOCK // 2**20):
                digest.update(file.read(2**20))
        return digest.hexdigest()

    starts = range(0, path.stat().st_size, _BLOCK)
    if len(starts) == 1:  # most sets of small images: no thread is worth its start
        return [hashed(0)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(hashed, starts))


def _remove(folder: Path) -> None:
    """Removes a cache at once for everyone, whatever it is, and then its content."""
    aside = folder.with_name(f"{folder.name}-{os.getpid()}-{time.monotonic_ns()}")
    with suppress(FileNotFoundError):  # another process was faster
        folder.rename(aside)
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink()


@contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """A folder to build a cache in, that takes its place afterwards; nothing of it stays if that fails."""
    with unfinished(folder.parent) as building:
        yield building
        (building / LOCK).unlink()
        try:
            building.rename(folder)
            # They were summed as they were written.
            _checked.update(_state(folder / name) for name in FILES)
        except OSError:
            # Another process may have made the same cache meanwhile: its result is as good as ours.
            if not (folder / "index.json").is_file():
                raise


def _decode_all(collection: Collection, options: DataOptions, folder: Path, progress: bool) -> None:
    size, mode = options.stored_size, "L" if options.channels == 1 else "RGB"

    def read(i: int) -> _Pixels | str:
        try:
            image = collection.read(i, size)
            pixels = _square(image, size).convert(mode).tobytes()
            return _Pixels(pixels, image.mode == "L", image.info.get(SIZE), image.size, image.info.get(CHANGES, ()))
        except UnidentifiedImageError:
            return "it is no image of a format that can be read"
        except Exception as error:  # noqa: BLE001 - decoders raise what they like; the file is named and left out
            return why(error) if isinstance(error, OSError) else str(error)[:200] or type(error).__name__

    kept: list[int] = []
    left_out: dict[str, str] = {}
    tally, sizes, channels = Tally(), set[tuple[int, int]](), 1
    with (
        (folder / "images.bin").open("wb") as images,
        (folder / "digests.bin").open("wb") as digests,
        bar("decoding images", len(collection.names), visible=progress) as advance,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        warnings.catch_warnings(),
    ):
        # Pillow warns of images it finds large; what is too large is refused by name in `decode`.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # In chunks: the pool would otherwise hold every decoded image at once.
        for start in range(0, len(collection.names), 1024):
            chunk = range(start, min(start + 1024, len(collection.names)))
            for i, result in zip(chunk, pool.map(read, chunk), strict=True):
                name = collection.names[i]
                if isinstance(result, str):
                    left_out[name] = result
                    continue
                kept.append(i)
                images.write(result.pixels)
                digests.write(hashlib.blake2b(result.pixels, digest_size=8).digest())
                if result.whole is not None:
                    sizes.add(result.whole)
                width, height = result.whole or result.size
                if width != height:
                    tally.add("cropped", "not square: the middle square is used", f"{name} ({width}x{height})")
                if not result.grey:
                    channels = 3
                if result.grey != (mode == "L"):
                    tally.add("converted", TO_COLOUR if result.grey else TO_GREY, name)
                for change in result.changes:
                    tally.add("converted", change, name)
            advance(len(chunk))
    total = len(collection.names)
    if not kept:
        name, reason = next(iter(left_out.items()))
        raise UserError(f"None of the {len(left_out)} images can be read; the first, {name}: {reason}.")
    notes = tally.notes(total)
    if left_out:
        name, reason = next(iter(left_out.items()))
        notes.insert(0, Note("left out", len(left_out), "left out as unreadable", f"{name} ({reason})", total))
    index = {
        "kept": kept,
        "left_out": left_out,
        "notes": [asdict(note) for note in notes],
        "channels": channels,
        "sizes": size_words(sizes) if sizes else collection.sizes,
        "sha256": {name: _sums(folder / name) for name in FILES},
    }
    write_file(folder / "index.json", json.dumps({"index": index, "sha256": _seal(index)}))


def _square(image: Image.Image, size: int) -> Image.Image:
    """Resizes the middle square of an image to `size` x `size`; down-sampling filters against aliasing."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    if image.size == (size, size):
        return image
    method = Image.Resampling.LANCZOS if side > size else Image.Resampling.BICUBIC
    return image.resize((size, size), method, box=(left, top, left + side, top + side))
