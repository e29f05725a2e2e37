"""Image files in a folder or a zip, read in place, and their decoding."""

from __future__ import annotations

import hashlib
import io
import posixpath
import threading
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from zeuxis.errors import UserError

__all__ = ["Archive", "decode", "path_parts"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# An image above this is refused before it is decoded: 64 million pixels are 192 MB in colour, far beyond any
# photograph one would shrink to a training image, and a small file can claim many more.
MAX_PIXELS = 64_000_000


class Archive:
    """The image files below a folder or inside a zip.

    Attributes:
        path: the folder or zip.
        names: paths of the image files relative to it, with forward slashes, sorted.
        others: paths of the other files.
        folders: the folders at the top level.
        fingerprint: of names, sizes, and checksums (zip) or modification times (folder).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        if path.is_dir():
            entries = {f.relative_to(path).as_posix(): f.stat() for f in sorted(path.rglob("*")) if f.is_file()}
            stamps = {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in entries.items()}
            folders = [f.name for f in path.iterdir() if f.is_dir()]
            self._zipped = False
        else:
            try:
                self._local.zip = zipfile.ZipFile(path)
            except (zipfile.BadZipFile, OSError) as error:
                raise UserError(f"{path} is neither a folder nor a readable zip file ({error}).") from error
            infos = self._local.zip.infolist()
            if any(info.flag_bits & 1 for info in infos):
                raise UserError(f"{path} is encrypted; unpack it first.")
            stamps = {
                i.filename: f"{i.file_size} {i.CRC}" for i in sorted(infos, key=lambda i: i.filename) if not i.is_dir()
            }
            split = [(path_parts(info.filename), info.is_dir()) for info in infos]
            folders = [parts[0] for parts, is_folder in split if len(parts) > (0 if is_folder else 1)]
            self._zipped = True
        visible = [name for name in stamps if not _hidden(name)]
        self.names = [name for name in visible if _is_image(name)]
        self.others = [name for name in visible if not _is_image(name)]
        self.folders = sorted({name for name in folders if not _hidden(name)})
        stamp = "\n".join(f"{name} {stamps[name]}" for name in self.names)
        self.fingerprint = hashlib.sha256(stamp.encode()).hexdigest()

    def bytes(self, name: str) -> bytes:
        """Returns a file's content; safe to call from several threads."""
        if not self._zipped:
            return (self.path / name).read_bytes()
        # A ZipFile has one file position, so each thread opens its own.
        if not hasattr(self._local, "zip"):
            self._local.zip = zipfile.ZipFile(self.path)
        return self._local.zip.read(name)  # type: ignore[no-any-return]

    def image(self, name: str, size: int) -> Image.Image:
        """Decodes an image file to grey or RGB, at no less than `size` pixels a side where it has them."""
        return decode(self.bytes(name), size)

    def survey(self, count: int = 48) -> tuple[int, str]:
        """Looks at the headers of some files.

        Returns:
            3 if any of them is in colour, else 1; and their sizes in words.
        """
        step = max(len(self.names) // count, 1)
        modes, sizes = set(), set()
        for name in self.names[::step]:
            try:
                with Image.open(io.BytesIO(self.bytes(name))) as image:
                    modes.add(image.mode)
                    sizes.add(image.size)
            except Exception:  # noqa: BLE001 - whatever the decoder raises; the file is named when it is decoded
                continue
        if not sizes:
            return 3, "unreadable"
        low, high = min(sizes), max(sizes)
        words = "{}x{}".format(*low) if low == high else "{}x{} to {}x{}".format(*low, *high)
        grey = modes <= {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"}
        return (1 if grey else 3), words


def path_parts(name: str) -> list[str]:
    """Parts of a path inside an archive, as `PurePosixPath` has them, which takes too long for 20,000 names."""
    return [part for part in name.split("/") if part not in ("", ".")]


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path_parts(name))


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in SUFFIXES


def decode(content: bytes, size: int) -> Image.Image:
    """Decodes image bytes to mode L or RGB, turned upright.

    Transparent pixels are laid on white, 16-bit greys are scaled to 8 bits, of an animation the first frame is
    taken. A JPEG is decoded at a fraction of its size where that is still at least `size` pixels a side.

    Raises:
        ValueError: for an image of more than MAX_PIXELS.
        OSError: for bytes that are no whole image.
    """
    image: Image.Image = Image.open(io.BytesIO(content))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} allowed")
    image.draft(None, (size, size))
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.round(np.clip(wide, 0, 65535) / 257).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(np.clip(np.round(np.asarray(image)), 0, 255).astype(np.uint8))
    elif image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or (image.mode == "P" and "transparency" in image.info):
        clear = image.convert("RGBA")
        ground = Image.new("RGBA", clear.size, "white")
        flat = Image.alpha_composite(ground, clear).convert("RGB")
        image = flat.convert("L") if image.mode in ("LA", "La") else flat
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
