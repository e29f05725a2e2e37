"""The cache of decoded images on disk, in a folder named by a hash of the content and of the settings of decoding.

A folder contains `images.bin`, `(N, H, W, C)` bytes; `digests.bin`, eight bytes per image, equal for equal pixels; and
`index.json`. The index has checksums of both files and of itself, all verified before pixels are used. A damaged folder
is made again. A folder is built under a temporary name and then renamed (`zeuxis.files.unfinished`).
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

from zeuxis.data.files import CHANGES, SIZE, size_words, transparent
from zeuxis.data.notes import Note, Tally
from zeuxis.data.registry import Collection
from zeuxis.errors import UserError
from zeuxis.files import cache_dir, unfinished, unlock, why, write_file
from zeuxis.progress import bar, say
from zeuxis.recipe import DataOptions, Size

__all__ = ["TO_COLOUR", "Decoded", "Prepared", "decoded", "prepare", "reason", "tell"]

# Increased when the stored format or the decoding changes; older caches are then ignored.
_FORMAT = 2
FILES = ("images.bin", "digests.bin")
# Bytes per checksum.
_BLOCK = 2**26
TO_COLOUR, TO_GREY = "grey, and turned to colour", "in colour, and turned grey"


class Decoded(NamedTuple):
    """Decoded images, and what was recorded while decoding.

    Attributes:
        images: `(N, H, W, C)` bytes, memory-mapped.
        digests: `(N,)`, equal for equal pixels.
        kept: index of each image in the collection.
        left_out: images that cannot be read, and why.
        notes: what was left out, cropped and converted.
        channels: 1 if all files are grey, else 3.
        sizes: sizes of the images in their files, in words.
        failed: index of each image that the system failed to read, which may pass; those are left out too.
    """

    images: np.ndarray
    digests: np.ndarray
    kept: np.ndarray
    left_out: dict[str, str]
    notes: list[Note]
    channels: int
    sizes: str
    failed: list[int]


class Prepared(NamedTuple):
    """One image as the cache stores it.

    Attributes:
        pixels: its bytes, `(H, W, C)`.
        grey: whether it was grey.
        transparent: whether it was transparent somewhere.
        whole: its size in the file, if that is known.
        size: its size when it was read.
        changes: made while it was read, in words.
    """

    pixels: bytes
    grey: bool
    transparent: bool
    whole: tuple[int, int] | None
    size: tuple[int, int]
    changes: Sequence[str]


# Files whose checksums this process has verified: path, size, modification time.
_checked: set[tuple[str, int, int]] = set()


def decoded(collection: Collection, options: DataOptions, progress: bool) -> Decoded:
    """Returns a collection's images at the recipe's size and channels, from the cache; decodes them first if needed.

    Raises:
        UserError: if no image can be read, or the cache cannot be written.
    """
    settings: list[Any] = [_FORMAT, collection.fingerprint, options.stored_size.setting, options.channels]
    if (fit := (options.fit, options.background)) != (DataOptions().fit, DataOptions().background):
        settings += fit  # only then, so that caches made before there was a choice stay valid
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:24]
    folder = _folder() / key
    try:
        if folder.exists():
            try:
                found = _read(folder, options)
                if not (back := _readable_now(collection, options, found.failed)):
                    return found
                del found  # Windows renames no folder whose files are mapped
                say(f"{back} can be read now, so the images are decoded again.")
            except _DamagedError as damage:
                say(f"The cache of decoded images {folder} is damaged ({damage}); it is made again.")
            _remove(folder)
        with _building(folder) as building:
            _decode_all(collection, options, building, progress)
        return _read(folder, options)
    except _DamagedError as damage:
        raise UserError(
            f"The cache of decoded images {folder} was damaged while it was written ({damage}); check the disk."
        ) from None
    except OSError as error:
        raise UserError(
            f"The decoded images cannot be saved in {folder.parent}: {why(error)}. "
            "Free some space, or set ZEUXIS_CACHE to another folder."
        ) from error


def _folder() -> Path:
    """Returns the folder of all image caches; a temporary one if the platform's folder is not writable."""
    folder = cache_dir() / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason = "you have no permission"
    except OSError as error:
        reason = why(error)
    if os.environ.get("ZEUXIS_CACHE"):
        if folder.is_dir():  # caches that exist can still be read
            return folder
        raise UserError(f"The cache {folder} cannot be made: {reason}. Set ZEUXIS_CACHE to another folder.")
    return _temporary(folder, reason)


@cache
def _temporary(folder: Path, reason: str) -> Path:
    try:
        temporary = Path(tempfile.mkdtemp(prefix="zeuxis-"))
    except OSError as error:
        raise UserError(f"The cache {folder} cannot be made: {reason}. Set ZEUXIS_CACHE to another folder.") from error
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    say(f"The cache {folder} cannot be made: {reason}. Decoded images are kept in {temporary} until this command ends.")
    return temporary


class _DamagedError(Exception):
    """A cache whose files have changed since they were written; the message says which."""


def _read(folder: Path, options: DataOptions) -> Decoded:
    """Reads a cache after verifying its checksums.

    Raises:
        _DamagedError: if a checksum is wrong, or a file cannot be read.
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
    (width, height), channels = options.stored_size, options.channels
    return Decoded(
        images=np.memmap(folder / "images.bin", np.uint8, "r", shape=(len(index["kept"]), height, width, channels)),
        digests=np.fromfile(folder / "digests.bin", np.uint64),
        kept=np.array(index["kept"], dtype=np.int64),
        left_out=index["left_out"],
        notes=[Note(**note) for note in index["notes"]],
        channels=index["channels"],
        sizes=index["sizes"],
        failed=index.get("failed", []),
    )


def _readable_now(collection: Collection, options: DataOptions, failed: Sequence[int]) -> str:
    """Returns the name of an image that the system did not give when it was decoded, and does now; "" if there is none.

    A disk or a network may fail for a moment, and permissions are granted later: the file stays as it is.
    """
    for i in failed:
        with suppress(Exception):
            collection.read(i, max(options.stored_size))
            return collection.names[i]
    return ""


def _seal(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _check(path: Path, sums: list[str]) -> None:
    """Verifies a file's checksums, once per process unless the file changes."""
    state = _state(path)
    if state not in _checked:
        if _sums(path) != sums:
            raise _DamagedError(f"{path.name} has changed")
        _checked.add(state)


def _state(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _sums(path: Path) -> list[str]:
    """Returns the checksums of a file's blocks, computed by one thread per core."""

    def hashed(start: int) -> str:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(start)
            for _ in range(_BLOCK // 2**20):
                digest.update(file.read(2**20))
        return digest.hexdigest()

    starts = range(0, path.stat().st_size, _BLOCK)
    if len(starts) == 1:  # most sets of small images; starting threads would not pay off
        return [hashed(0)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(hashed, starts))


def _remove(folder: Path) -> None:
    """Renames a cache, so that it is gone for all processes at once, and then deletes it; it may also be a file."""
    renamed = folder.with_name(f"{folder.name}-{os.getpid()}-{time.monotonic_ns()}")
    with suppress(FileNotFoundError):  # another process was faster
        folder.rename(renamed)
        shutil.rmtree(renamed) if renamed.is_dir() else renamed.unlink()


@contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """Yields a folder to build a cache in, and renames it to `folder` afterwards; removes it if that fails."""
    with unfinished(folder.parent) as building:
        yield building
        unlock(building)
        try:
            building.rename(folder)
            # Their checksums were computed when they were written.
            _checked.update(_state(folder / name) for name in FILES)
        except OSError:
            # Another process may have made the same cache meanwhile; it is equally good.
            if not (folder / "index.json").is_file():
                raise


def _decode_all(collection: Collection, options: DataOptions, folder: Path, progress: bool) -> None:

    def read(i: int) -> Prepared | str:
        try:
            return prepare(collection.read(i, max(options.stored_size)), options)
        except Exception as error:  # noqa: BLE001 - decoders raise anything; the file is reported and left out
            if isinstance(error, MemoryError) or getattr(error, "errno", None):
                failed.append(i)
            return reason(error)

    if not collection.names:
        raise UserError("There are no images: the source is empty.")
    readable: list[int] = []
    failed: list[int] = []
    left_out: dict[str, str] = {}
    tally, sizes, channels = Tally(), set[tuple[int, int]](), 1
    with (
        (folder / "images.bin").open("wb") as images,
        (folder / "digests.bin").open("wb") as digests,
        bar("decoding images", len(collection.names), visible=progress) as advance,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        warnings.catch_warnings(),
    ):
        # Pillow warns about large images; `decode` refuses those that are too large.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # In chunks: the pool would otherwise hold every decoded image at once.
        for start in range(0, len(collection.names), 1024):
            chunk = range(start, min(start + 1024, len(collection.names)))
            for i, result in zip(chunk, pool.map(read, chunk), strict=True):
                name = collection.names[i]
                if isinstance(result, str):
                    left_out[name] = result
                    continue
                readable.append(i)
                images.write(result.pixels)
                digests.write(hashlib.blake2b(result.pixels, digest_size=8).digest())
                if result.whole is not None:
                    sizes.add(result.whole)
                if not result.grey:
                    channels = 3
                tell(tally, name, result, options)
            advance(len(chunk))
    total = len(collection.names)
    if not readable:
        name, because = next(iter(left_out.items()))
        raise UserError(f"None of the {len(left_out)} images can be read; the first, {name}: {because}.")
    notes = tally.notes(total)
    if left_out:
        name, because = next(iter(left_out.items()))
        notes.insert(0, Note("left out", len(left_out), "left out as unreadable", f"{name} ({because})", total))
    index = {
        "kept": readable,
        "left_out": left_out,
        "failed": sorted(failed),
        "notes": [asdict(note) for note in notes],
        "channels": channels,
        "sizes": size_words(sizes) if sizes else collection.sizes,
        "sha256": {name: _sums(folder / name) for name in FILES},
    }
    write_file(folder / "index.json", json.dumps({"index": index, "sha256": _seal(index)}))


def prepare(image: Image.Image, options: DataOptions) -> Prepared:
    """Fits, scales and converts a decoded image to the size and the channels that the cache stores.

    Transparent images are placed on the background. Where transparency is kept, colours are as in image files, not
    multiplied by it: what a network learns is then what files, arrays and exported graphs hold. Pixels that nobody
    sees get the colour of the background, because files hold anything there.
    """
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[options.channels]
    grey, clear = image.mode in ("L", "LA"), transparent(image)
    whole = image.info.get(SIZE)
    changes, before = image.info.get(CHANGES, ()), image.size
    if clear and mode != "RGBA":
        ground = Image.new("RGBA", image.size, options.background)
        flat = Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
        image = flat.convert("L") if grey else flat
    fitted = _fitted(image, options).convert(mode)
    size = options.stored_size
    stored = Image.new(mode, size, options.background + ("00" if mode == "RGBA" else ""))
    place = ((size.width - fitted.width) // 2, (size.height - fitted.height) // 2)
    stored.paste(fitted, place, fitted.getchannel("A").point(lambda a: 255 * (a > 0)) if mode == "RGBA" else None)
    return Prepared(stored.tobytes(), grey, clear, whole, before, changes)


def reason(error: Exception) -> str:
    """Returns the reason why an image cannot be read, in words."""
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image in a format that can be read"
    return why(error) if isinstance(error, OSError) else str(error)[:200] or type(error).__name__


def tell(tally: Tally, name: str, image: Prepared, options: DataOptions) -> None:
    """Counts what happened to an image while it was prepared."""
    width, height = image.whole or image.size
    size, stored = options.size, options.stored_size
    if width * size.height != height * size.width:
        shape = "square" if size.width == size.height else f"of the shape {size}"
        kind, what = {
            "crop": ("cropped", f"the middle {'square' if shape == 'square' else 'part of that shape'} is used"),
            "pad": ("padded", f"the whole is used, on {_ground(options)}"),
            "stretch": ("stretched", f"the whole is stretched to {size}"),
        }[options.fit]
        tally.add(kind, f"not {shape}: {what}", f"{name} ({width}x{height})")
    scale = (max if options.fit == "pad" else min)(width / stored.width, height / stored.height)
    if scale > 1:
        tally.add("converted", f"scaled down to {stored}", f"{name} ({width}x{height})")
    elif scale < 1 and options.path:
        tally.add("converted", f"enlarged to {stored}", f"{name} ({width}x{height})")
    if image.grey != (options.channels == 1):
        tally.add("converted", TO_COLOUR if image.grey else TO_GREY, name)
    if image.transparent and options.channels != 4:
        tally.add("converted", f"partly transparent: the background is made {_ground(options)}", name)
    if options.channels == 4 and not image.transparent:
        tally.add("converted", "without transparency, and made opaque", name)
    for change in image.changes:
        tally.add("converted", change, name)


def _ground(options: DataOptions) -> str:
    """Returns what is beside and behind images, in words."""
    if options.channels == 4:
        return "transparent ground"
    return "white" if options.background == "#ffffff" else options.background


def _fitted(image: Image.Image, options: DataOptions) -> Image.Image:
    """Resizes an image to the stored size: its middle, all of it stretched, or all of it with one side shorter.

    Down-sampling is anti-aliased.
    """
    (width, height), size = options.size, options.stored_size
    if image.size == size:
        return image
    # The largest part of the recipe's shape, and the largest size of the image's shape.
    wide = image.width * height > image.height * width
    kept: tuple[float, float] = image.size
    if options.fit == "crop":
        kept = (image.height * width / height, image.height) if wide else (image.width, image.width * height / width)
    elif options.fit == "pad" and wide:
        size = Size(size.width, max(round(image.height * size.width / image.width), 1))
    elif options.fit == "pad":
        size = Size(max(round(image.width * size.height / image.height), 1), size.height)
    left, top = (image.width - kept[0]) / 2, (image.height - kept[1]) / 2
    method = Image.Resampling.LANCZOS if kept[0] > size.width else Image.Resampling.BICUBIC
    return image.resize(size, method, box=(left, top, left + kept[0], top + kept[1]))
