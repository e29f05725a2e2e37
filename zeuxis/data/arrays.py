"""Images in arrays: `.npy` and `.npz` files, and arrays in memory, which are written into one.

An `.npz` holds `images` (or `x`, or `arr_0`) and, if it has them, `labels` (or `y`, or `arr_1`); or `x_train`,
`y_train`, `x_test` and `y_test`. Images are `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`: bytes, integers of more
bits, or floats in 0..1, in -1..1 or in 0..255.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from zeuxis.data.files import CHANGES, SIZE, limits, readable
from zeuxis.data.registry import Collection, cache_dir
from zeuxis.errors import UserError
from zeuxis.files import make_folder, write_file

__all__ = ["ARRAYS", "arrays", "store"]

ARRAYS = (".npy", ".npz")
IMAGES, LABELS = ("images", "x", "arr_0", "image", "X"), ("labels", "y", "arr_1", "label", "targets")
CHANNELS = (1, 3, 4)


def store(data: Any) -> Path:
    """Writes images, or a pair of images and labels, into the cache, named after their content; returns the file.

    Raises:
        UserError: if they are no images, or cannot be written.
    """
    images, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    pixels, names = np.asarray(images), None if labels is None else np.asarray(labels)
    _prepared(pixels, "data")
    if names is not None:
        _classes(names, len(pixels), "data")
    digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
    digest.update(pixels.tobytes())
    if names is not None:
        digest.update(f"{names.dtype} {names.tolist()}".encode())
    path = make_folder(cache_dir() / "arrays") / f"{digest.hexdigest()[:24]}.npz"
    if not path.is_file():
        content = {"images": pixels} | ({} if names is None else {"labels": names})
        write_file(path, lambda unfinished: np.savez(unfinished, allow_pickle=False, **content))
    return path.resolve()


def arrays(path: Path) -> Collection:
    """The images in a `.npy` or `.npz` file.

    Raises:
        UserError: if it cannot be read, or holds no images.
    """
    tables = _tables(path)
    split = None
    if "x_train" in tables and "x_test" in tables:
        parts = [np.asarray(tables[name]) for name in ("x_train", "x_test")]
        if parts[0].shape[1:] != parts[1].shape[1:] or parts[0].dtype != parts[1].dtype:
            raise UserError(f"x_train and x_test in {path} differ in shape or type.")
        pixels, split = np.concatenate(parts), np.repeat([0, 1], [len(part) for part in parts])
        names = None
        if "y_train" in tables and "y_test" in tables:
            names = np.concatenate([tables["y_train"], tables["y_test"]])
    else:
        images = next((name for name in IMAGES if name in tables), None)
        if images is None:
            raise UserError(
                f"{path} holds {', '.join(tables) or 'nothing'}; images are called 'images', 'x' or 'arr_0'."
            )
        pixels = tables[images]
        names = next((np.asarray(tables[name]) for name in LABELS if name in tables), None)
    shown, (low, high) = _prepared(pixels, str(path))
    labels, classes = (None, []) if names is None else _classes(names, len(shown), str(path))
    channels = 1 if shown.shape[3] == 1 else 3
    changes = [] if (low, high) == (0, 255) else [f"scaled: values from {low:g} to {high:g} become 0 to 255"]
    if shown.shape[3] == 4:
        changes.append("transparent in places: these are laid on white")

    def read(i: int, size: int) -> Image.Image:
        scaled = np.clip((shown[i].astype(np.float64) - low) / ((high - low) / 255), 0, 255)
        image = Image.fromarray(np.round(scaled if channels == 3 else scaled[..., 0]).astype(np.uint8))
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        image.info = {SIZE: image.size, CHANGES: changes}
        return image

    digest = hashlib.sha256(f"{shown.dtype} {shown.shape}".encode())
    for start in range(0, len(shown), 1024):
        digest.update(shown[start : start + 1024].tobytes())
    return Collection(
        fingerprint=f"arrays {digest.hexdigest()}",
        names=[f"image {i}" for i in range(len(shown))],
        channels=channels,
        sizes=f"{shown.shape[2]}x{shown.shape[1]}",
        read=read,
        labels=labels,
        classes=classes,
        split=split,
    )


def _tables(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; nothing in them is unpickled."""
    try:
        if path.suffix.lower() == ".npy":
            return {"arr_0": np.load(path, mmap_mode="r", allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        room = psutil.virtual_memory().total // 2
        if size > room:
            raise UserError(
                f"{path} unpacks to {size / 2**30:.1f} GiB, more than half of this machine's memory; "
                "save the images as .npy, which is read piece by piece."
            )
        with np.load(path, allow_pickle=False) as tables:
            return {name: tables[name] for name in tables.files}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as arrays: {str(error) or type(error).__name__}.") from error


def _prepared(pixels: np.ndarray, where: str) -> tuple[np.ndarray, tuple[float, float]]:
    """Images as `(N, H, W, C)`, and the values that are shown black and white."""
    if pixels.dtype.kind not in "buif":
        raise UserError(f"{where} holds values of type {pixels.dtype}; images are bytes, integers or floats.")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif pixels.ndim == 4 and pixels.shape[3] not in CHANNELS and pixels.shape[1] in CHANNELS:
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.ndim != 4 or pixels.shape[3] not in CHANNELS or not pixels.size:
        raise UserError(
            f"{where} has the shape {pixels.shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 "
            "channels."
        )
    if pixels.dtype == np.uint8 and pixels.max() > 1:
        return pixels, (0, 255)
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise UserError(f"{where} holds values that are infinite or no numbers.")
    return pixels, limits(low, high, pixels.dtype.kind == "f")


def _classes(names: np.ndarray, count: int, where: str) -> tuple[np.ndarray, list[str]]:
    """Class indices and the names of the classes, from a number or a word for each image."""
    if names.ndim == 2 and names.shape[1] == 1:
        names = names[:, 0]
    if names.shape != (count,):
        raise UserError(f"{where} holds {count} images but labels of the shape {names.shape}; one for each is needed.")
    if names.dtype.kind == "f" and np.isfinite(names).all() and (names == np.round(names)).all():
        names = names.astype(np.int64)
    if names.dtype.kind not in "biuU":
        raise UserError(f"{where} holds labels of type {names.dtype}; they are whole numbers or words.")
    values, labels = np.unique(names, return_inverse=True)
    return labels.astype(np.int64), [readable(str(value)) for value in values.tolist()]
