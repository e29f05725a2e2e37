"""Reads and decodes image files in a folder or a zip, without unpacking it.

Both may come from strangers. Pillow tries only some formats, so that no file starts a program; sizes are limited before
anything is read or decoded; files that cannot be read are reported and left out.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import stat
import struct
import threading
import unicodedata
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, features

from zeuxis.data.notes import Note, of_left_out
from zeuxis.errors import UserError
from zeuxis.files import why
from zeuxis.system import VIRTUAL_FOLDERS

__all__ = [
    "CHANGES",
    "FORMATS_IN_WORDS",
    "SIZE",
    "SUFFIXES",
    "Archive",
    "Survey",
    "decode",
    "is_deep",
    "is_packed",
    "limits",
    "path_parts",
    "plain",
    "readable",
    "row_image",
    "size_words",
    "surveyed",
    "transparent",
]

# Formats that Pillow may try, whatever a file's suffix is: it would pass an EPS to Ghostscript. Not all have AVIF.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(("AVIF",) if features.check("avif") else ()))
SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    *((".avif",) if "AVIF" in FORMATS else ()),
}  # fmt: skip
FORMATS_IN_WORDS = f"JPEG, PNG, WebP, {'AVIF, ' if 'AVIF' in FORMATS else ''}GIF, BMP, TIFF or PNM"
# Larger images are refused before they are decoded: 64 million pixels are 192 MB in colour, far more than any
# photograph used as a training image, and a small file can claim many more.
MAX_PIXELS = 64_000_000
# Limit of a file, and of an unpacked zip entry: more than MAX_PIXELS uncompressed pixels in colour.
MAX_BYTES = 256 * 2**20
# Limit of files; their names are held in memory. The largest public image sets are close to it.
MAX_FILES = 20_000_000
# Compression methods that unpack in pieces; zip's other methods unpack a whole block at once, however large.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Keys in a decoded image's `info`: its upright size in the file, `(W, H)`, and the changes made to its pixels.
SIZE, CHANGES = "zeuxis size", "zeuxis changes"
GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"}
NO_IMAGE = "not an image in a format that can be read"
NO_ENDING = "its name has no ending, such as .png, that makes it an image"
# Returns the smallest and largest value over all images with float values (True) or with integers (False).
Extent = Callable[[bool], tuple[float, float]]


class Survey(NamedTuple):
    """Properties of images, as read from the headers of some files.

    Attributes:
        channels: 3 if any is in colour, else 1.
        sizes: sizes of the images, in words.
        side: median of the images' shorter sides, in pixels; 0 if none can be read.
        transparent: whether any is transparent somewhere.
        sampled: whether some files were not read.
    """

    channels: int
    sizes: str
    side: int
    transparent: bool
    sampled: bool


class _Entries(NamedTuple):
    """Files by name with a stamp that changes with their content, all folders, and files left out with the reason."""

    stamps: dict[str, str]
    folders: set[str]
    left_out: dict[str, str]


class Archive:
    """The image files below a folder or inside a zip.

    Attributes:
        path: the folder or zip.
        names: paths of the image files relative to it, with forward slashes, sorted.
        others: paths of the other files.
        folders: parts of the paths of all folders that contain images, or nothing at all.
        left_out: files and links that are not read, including `others`, and why.
        fingerprint: hash of names, sizes, and checksums (zip) or modification times (folder).

    Raises:
        UserError: if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._infos: dict[str, zipfile.ZipInfo] | None = None
        self._lock, self._extents = threading.Lock(), dict[bool, tuple[float, float]]()
        entries = _walk(path) if path.is_dir() else self._unzip()
        visible = [name for name in entries.stamps if not _hidden(name)]
        self.names = [name for name in visible if _is_image(name)]
        self.others = [name for name in visible if not _is_image(name)]
        self.left_out = {readable(name): reason for name, reason in entries.left_out.items()}
        self.left_out |= {
            readable(name): "its name leads out of the archive" if ".." in path_parts(name) else "hidden"
            for name in entries.stamps
            if _is_image(name) and _hidden(name)
        } | {readable(name): NO_IMAGE if posixpath.splitext(name)[1] else NO_ENDING for name in self.others}
        with_images, with_others = _above(self.names), _above(self.others)
        # A path such as `./flowers` has a parent folder without parts.
        self.folders = [
            parts
            for name in sorted(entries.folders | with_images)
            if not _hidden(name) and (name in with_images or name not in with_others)
            if (parts := tuple(path_parts(name)))
        ]
        stamp = "\n".join(f"{name} {entries.stamps[name]}" for name in self.names)
        self.fingerprint = hashlib.sha256(stamp.encode("utf-8", "surrogateescape")).hexdigest()

    def notes(self, used: tuple[str, ...] = ()) -> list[Note]:
        """Returns notes about the files left out, except those in `used`."""
        return of_left_out(self.left_out, used)

    def bytes(self, name: str) -> bytes:
        """Returns a file's content; safe to call from several threads.

        Raises:
            ValueError: if it is larger than MAX_BYTES, or compressed with an unsupported method.
        """
        if self._infos is None:
            with (self.path / name).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        else:
            info = self._infos[name]
            if info.compress_type not in METHODS:
                raise ValueError("it is compressed with a method other than deflate")
            if info.file_size > MAX_BYTES:
                raise ValueError(f"it unpacks to {info.file_size:,} bytes, and {MAX_BYTES:,} are allowed")
            # A ZipFile has one file position, so each thread opens its own. It reads no more than the declared size.
            if not hasattr(self._local, "zip"):
                self._local.zip = zipfile.ZipFile(self.path)
            with self._local.zip.open(info) as file:
                content = file.read()
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than the {MAX_BYTES:,} bytes allowed")
        return content

    def image(self, name: str, size: int) -> Image.Image:
        """Decodes an image file to grey or RGB, with sides of at least `size` pixels if the file has as many."""
        return decode(self.bytes(name), size, self._extent)

    def survey(self, count: int = 48) -> Survey:
        """Reads the headers of a random sample of files; decoding later reads all files, and its result counts."""
        return surveyed(lambda i: self.bytes(self.names[i]), len(self.names), count)

    def _extent(self, floating: bool) -> tuple[float, float]:
        """Returns the range of the values of all images deeper than 8 bits, so that all are scaled alike."""
        with self._lock:
            if floating not in self._extents:
                ranges = []
                for name in self.names:
                    try:
                        with _opened(self.bytes(name)) as image:
                            if is_deep(image) and (image.mode == "F") == floating:
                                ranges.append(_range(_values(image, _raw_mode(image))))
                    except Exception:  # noqa: BLE001 - decoders raise anything; the file is reported when it is decoded
                        continue
                self._extents[floating] = (min(low for low, _ in ranges), max(high for _, high in ranges))
            return self._extents[floating]

    def _unzip(self) -> _Entries:
        if not self.path.is_file():
            raise UserError(f"{self.path} is neither a folder nor a file.")
        try:
            self._local.zip = zipfile.ZipFile(self.path)
        # Each of these can come from a damaged list of entries.
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, EOFError) as error:
            right = "; unpack it first" if is_packed(self.path.name) and self.path.suffix.lower() != ".zip" else ""
            raise UserError(f"{self.path} is neither a folder nor a readable zip file ({error}){right}.") from error
        infos = self._local.zip.infolist()
        _require_few(self.path, len(infos))
        if any(info.flag_bits & 1 for info in infos):
            raise UserError(f"{self.path} is encrypted; unpack it first.")
        named = sorted(((_entry_name(info), info) for info in infos), key=lambda pair: pair[0])
        files = [(name, info) for name, info in named if not name.endswith("/")]
        last = self._infos = dict(files)
        repeated = {
            f"{name} (an earlier entry)": "a later entry has its name" for name, info in files if last[name] is not info
        }
        folders = {name.rstrip("/") for name, _ in named if name.endswith("/")}
        return _Entries({name: f"{i.file_size} {i.CRC}" for name, i in self._infos.items()}, folders, repeated)


def _walk(root: Path) -> _Entries:
    """Lists a folder; follows links, except back to a folder above them or into the system's own folders."""
    stamps: dict[str, str] = {}
    folders: set[str] = set()
    left_out: dict[str, str] = {}
    if _of_the_system(root):
        raise UserError(f"{root} belongs to the system and contains no images; give the folder of your images.")
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while waiting:
        folder, above = waiting.pop()
        try:
            here = (root / folder).stat()
            if (here.st_dev, here.st_ino) in above:
                left_out[folder] = "a link back to a folder above it"
                continue
            entries = list(os.scandir(root / folder))
        except OSError as error:
            if not folder:
                raise UserError(f"The folder {root} cannot be opened: {why(error)}.") from error
            left_out[folder] = f"its folder cannot be opened: {why(error)}"
            continue
        if folder:
            folders.add(folder)
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                status = entry.stat()
            except OSError as error:
                left_out[name] = "a link that leads nowhere" if entry.is_symlink() else why(error)
                continue
            if stat.S_ISDIR(status.st_mode):
                if entry.is_symlink() and _of_the_system(Path(entry.path)):
                    left_out[name] = "a link to a folder of the system"
                else:
                    waiting.append((name, (*above, (here.st_dev, here.st_ino))))
            elif stat.S_ISREG(status.st_mode):
                stamps[name] = f"{status.st_size} {status.st_mtime_ns}"
            elif not _hidden(name):
                left_out[name] = "neither a file nor a folder"
        _require_few(root, len(stamps) + len(waiting))
    # Sorted by path, not by text: a folder's files come before a file named like the folder plus a suffix.
    return _Entries(
        {name: stamps[name] for name in sorted(stamps, key=lambda name: name.split("/"))}, folders, left_out
    )


def _of_the_system(path: Path) -> bool:
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(folder) for folder in VIRTUAL_FOLDERS)


def _require_few(path: Path, count: int) -> None:
    if count > MAX_FILES:
        raise UserError(f"{path} has more than the {MAX_FILES:,} files allowed; is it the folder of your images?")


def _entry_name(info: zipfile.ZipInfo) -> str:
    """Returns the name of a zip entry, with forward slashes; decodes UTF-8 names that are not marked as such."""
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def row_image(found: bytes | None) -> bytes:
    """Returns the bytes of the image in a row of a table; raises a `ValueError` if there are none, or too many."""
    if found is None:
        raise ValueError("the row has no image")
    if len(found) > MAX_BYTES:
        raise ValueError(f"it has more than the {MAX_BYTES:,} bytes allowed")
    return found


CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Halves of characters, which JSON can hold; those from U+DC80 to U+DCFF stand for bytes of a file's name.
SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def readable(name: str) -> str:
    """Returns a name as text that can be stored, compared and printed: NFC; control characters, halves of characters,
    and bytes that are not UTF-8 are escaped."""
    name = SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", name)
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), unicodedata.normalize("NFC", text))


def path_parts(name: str) -> list[str]:
    """Returns the parts of a path in an archive, like `PurePosixPath.parts`, which is too slow for 20,000 names."""
    return [part for part in name.split("/") if part not in ("", ".")]


def _above(names: list[str]) -> set[str]:
    """Returns all folders above some files."""
    folders: set[str] = set()
    level = {posixpath.dirname(name) for name in names}
    while level:
        folders |= level
        level = {posixpath.dirname(name) for name in level} - folders
    return folders - {""}


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path_parts(name))


def is_packed(name: str) -> bool:
    """Returns whether a file's name is that of an archive, which may hold images."""
    return name.lower().endswith((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"))


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in SUFFIXES


def surveyed(read: Callable[[int], bytes], total: int, count: int = 48) -> Survey:
    """Reads the headers of a random sample of image files.

    Args:
        read: returns the bytes of file i.
        total: number of files.
        count: of the sample.
    """
    indices = np.random.default_rng(0).permutation(total)[:count]
    modes, sizes, clear = set(), [], False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for i in np.sort(indices).tolist():
            try:
                with _opened(read(i)) as image:
                    modes.add(image.mode)
                    sizes.append(_upright_size(image))
                    clear = clear or (_may_be_clear(image) and transparent(image.convert("RGBA")))
            except Exception:  # noqa: BLE001 - decoders raise anything; the file is reported when it is decoded
                continue
    side = int(np.median([min(size) for size in sizes])) if sizes else 0
    return Survey(1 if modes and modes <= GREY else 3, size_words(set(sizes)), side, clear, total > count)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns the size `(W, H)` that an image has once it is turned upright, as its header says."""
    return image.size[::-1] if _orientation(image) in (5, 6, 7, 8) else image.size


def _orientation(image: Image.Image) -> int | None:
    """Returns how the camera was held, as the header says; None if it does not."""
    says = "exif" in image.info or image.format == "TIFF"
    return image.getexif().get(ExifTags.Base.Orientation) if says else None


def size_words(sizes: set[tuple[int, int]]) -> str:
    """Returns sizes `(W, H)` in words, such as `"28x28"` or, from the least to the most pixels, `"28x28 to 64x64"`."""
    if not sizes:
        return "unreadable"
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    low, high = ordered[0], ordered[-1]
    return "{}x{}".format(*low) if low == high else "{}x{} to {}x{}".format(*low, *high)


def _opened(content: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} allowed")
    return image


def decode(content: bytes, size: int, extent: Extent | None = None) -> Image.Image:
    """Decodes image bytes to mode L or RGB, or LA or RGBA where they are transparent somewhere; upright.

    Values of more than 8 bits are scaled to 8, and the first frame or page
    is used. A JPEG is decoded at a fraction of its size if its sides still have at least `size` pixels. The image's
    `info` has its full `SIZE`, and the `CHANGES` made, in words.

    Args:
        content: the file's bytes.
        size: side in pixels that will be kept.
        extent: returns the range of values over all images of the set; without it, this image's range is used.

    Raises:
        ValueError: for an image of more than MAX_PIXELS, and for values that cannot be scaled.
        OSError: for bytes that are not a complete image.
    """
    image = _opened(content)
    changes = []
    if getattr(image, "is_animated", False):
        changes.append("animated or multi-page: the first frame or page is used")
    whole, raw = image.size, _raw_mode(image)
    image.draft(None, (size, size))
    image.load()
    stored_size = image.size
    if _orientation(image) in range(2, 9):
        changes.append("rotated by the camera: turned upright")
    ImageOps.exif_transpose(image, in_place=True)
    deep = is_deep(image)
    if deep:
        values = _values(image, raw)
        floating = image.mode == "F"
        low, high = limits(*(extent(floating) if extent else _range(values)), floating)
        changes.append(f"deeper than 8 bits: values from {low:g} to {high:g} are scaled to 0 to 255")
        image = Image.fromarray(np.round(np.clip((values - low) / ((high - low) / 255), 0, 255)).astype(np.uint8))
    else:
        image, change = plain(image)
        changes += [change] if change else []
    if raw.endswith((";16L", ";16B", ";16N")) and not deep:
        if 0 < np.asarray(image.convert("RGB")).max() < 16:
            raise ValueError("it uses only the lower 12 of its 16 bits per channel, and only the upper 8 can be read")
        changes.append("16 bits deep per channel: the upper 8 are used")
    image.info = {SIZE: whole if image.size == stored_size else whole[::-1], CHANGES: changes}
    return image


def plain(image: Image.Image) -> tuple[Image.Image, str]:
    """Returns an image of 8 bits in grey or RGB, with alpha where it is transparent, and what changed, in words."""
    if _may_be_clear(image):
        grey, clear = image.mode in ("1", "L", "LA", "La"), image.convert("RGBA")
        return clear.convert(("LA" if grey else "RGBA") if transparent(clear) else "L" if grey else "RGB"), ""
    if image.mode in ("L", "RGB"):
        return image, ""
    if image.mode in ("1", "P"):
        return image.convert("L" if image.mode == "1" else "RGB"), ""
    return image.convert("RGB"), f"in {image.mode} colours: these are converted to RGB"


def _raw_mode(image: Image.Image) -> str:
    """Returns Pillow's name for the layout of an image's values in its file; must be called before it is loaded."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""


def transparent(image: Image.Image) -> bool:
    """Returns whether any pixel of a decoded image is transparent."""
    return image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema() != (255, 255)


def _may_be_clear(image: Image.Image) -> bool:
    """Returns whether an image's mode can hold transparency."""
    chosen = image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info  # one colour, or some of a palette
    return chosen or image.mode in ("LA", "La", "RGBA", "RGBa", "PA")


def is_deep(image: Image.Image) -> bool:
    """Returns whether an image has more than 8 bits a value."""
    return image.mode.startswith("I") or image.mode == "F"


def _values(image: Image.Image, raw: str) -> np.ndarray:
    """Returns the values of a grey image deeper than 8 bits."""
    values = np.asarray(image)
    if raw in ("I;32", "I;32N", "I;32L", "I;32B"):  # Pillow reads them as signed integers
        values = values.view(np.uint32)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are infinite or not numbers")
    return values.astype(np.float64)


def _range(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def limits(low: float, high: float, floating: bool) -> tuple[float, float]:
    """Returns the values that become black and white, for images whose values range from `low` to `high`.

    Floats are assumed to be in 0..1 or -1..1 if they fit. For integers, and floats that look like them, white is the
    largest value of the bits that the highest needs: 8, 10, 12, 14 or 16. Anything else is stretched.
    """
    if floating and low >= -1 and high <= 1:
        return (0.0 if low >= 0 else -1.0), 1.0
    if low < 0 or (floating and high < 64):
        return (low, high) if low < high else (min(low, 0.0), max(high, 1.0))
    bits = max(int(high).bit_length(), 1)
    return 0.0, float(2 ** (bits + bits % 2 if 8 < bits < 16 else bits) - 1)
