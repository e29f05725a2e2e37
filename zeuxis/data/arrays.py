"""Images in arrays: `.npy` and `.npz` files, and arrays in memory, which are saved to such a file.

An `.npz` holds `images` (or `x`, or `arr_0`) and optionally `labels` (or `y`, or `arr_1`); or `x_train`, `y_train`,
`x_test` and `y_test`. Images are `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`: bytes, integers of more bits, or
floats in 0..1, in -1..1 or in 0..255.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from zeuxis.data.files import CHANGES, SIZE, is_deep, limits, plain, readable, transparent
from zeuxis.data.notes import of_left_out
from zeuxis.data.registry import Collection
from zeuxis.errors import UserError
from zeuxis.files import cache_dir, first_line, make_folder, write_file
from zeuxis.progress import say

__all__ = ["ARRAYS", "arrays", "as_array", "store"]

ARRAYS = (".npy", ".npz")
IMAGES, LABELS = ("images", "x", "arr_0", "image", "X"), ("labels", "y", "arr_1", "label", "targets", "Y")
CHANNELS = (1, 3, 4)


def store(data: Any) -> Path:
    """Writes images, or a pair of images and labels, to a file in the cache named by their hash; returns its path.

    Raises:
        UserError: if they are not images, or cannot be written.
    """
    images, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    pixels, names = as_array(images, "images"), None if labels is None else as_array(labels, "labels")
    _prepared(pixels, "The array of images")
    if names is not None:
        _classes(names, len(pixels), "The pair of arrays")
    digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
    digest.update(pixels.tobytes())
    if names is not None:
        digest.update(f"{names.dtype} {names.tolist()}".encode("utf-8", "surrogatepass"))
    path = make_folder(cache_dir() / "arrays") / f"{digest.hexdigest()[:24]}.npz"
    if not path.is_file():
        content = {"images": pixels} | ({} if names is None else {"labels": names})
        write_file(path, lambda unfinished: np.savez(unfinished, allow_pickle=False, **content))
    return path.resolve()


def as_array(values: Any, what: str) -> np.ndarray:
    """Returns what a user passes as `what`, such as a list of pictures or a tensor, as an array.

    Raises:
        UserError: if it is none: items of different shapes, values that are masked, a tensor without values.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise UserError(f"Some {what} are masked; fill them first, as with .filled(0).")
    try:
        if callable(getattr(values, "detach", None)):  # a tensor of PyTorch; NumPy has neither its layouts nor bfloat16
            values = values.detach().to_dense().cpu()
            values = values.float() if values.is_floating_point() else values
        if isinstance(values, list | tuple) and values and all(isinstance(value, Image.Image) for value in values):
            values = _of_pictures(values)
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        shapes = [np.shape(value) for value in values] if isinstance(values, list | tuple) else []
        differ = f"their shapes differ, as {shapes[0]} and " if len({*shapes}) > 1 else ""
        reason = f"{differ}{next(s for s in shapes if s != shapes[0])}" if differ else first_line(error)
        raise UserError(f"The {what} do not make one array: {reason}.") from error


def _of_pictures(pictures: Sequence[Image.Image]) -> list[np.ndarray]:
    """Returns pictures of Pillow's as arrays of grey or colour values, not of a palette or of other colours."""
    found = [(picture, "") if is_deep(picture) else plain(picture) for picture in pictures]
    for change in sorted({change for _, change in found} - {""}):
        say(f"Pictures {change}.")
    some_clear = any(transparent(picture) for picture, _ in found)
    return [np.asarray(picture.convert("RGBA") if some_clear else picture) for picture, _ in found]


def arrays(path: Path) -> Collection:
    """Opens the images in a `.npy` or `.npz` file.

    Raises:
        UserError: if it cannot be read, or contains no images.
    """
    tables = _tables(path)
    split, used = None, ["x_train", "x_test", "y_train", "y_test"]
    if "x_train" in tables and "x_test" in tables:
        parts = [np.asarray(tables[name]) for name in ("x_train", "x_test")]
        if parts[0].shape[1:] != parts[1].shape[1:] or parts[0].dtype != parts[1].dtype:
            raise UserError(f"x_train and x_test in {path} differ in shape or type.")
        pixels, split = np.concatenate(parts), np.repeat([0, 1], [len(part) for part in parts])
        names = None
        given = [name for name in ("y_train", "y_test") if name in tables]
        if len(given) == 1:
            lacking = "y_test" if given == ["y_train"] else "y_train"
            raise UserError(f"{path} has labels in {given[0]}, but no {lacking}; add it, or remove {given[0]}.")
        if given:
            names = np.concatenate([tables["y_train"], tables["y_test"]])
    else:
        images = next((name for name in IMAGES if name in tables), None)
        if images is None:
            raise UserError(
                f"{path} contains {', '.join(tables) or 'nothing'}; name the images 'images', 'x' or 'arr_0'."
            )
        labelled = next((name for name in LABELS if name in tables), None)
        pixels, names = tables[images], None if labelled is None else np.asarray(tables[labelled])
        used = [images, labelled or ""]
    pixels, (low, high) = _prepared(pixels, str(path))
    labels, classes = (None, []) if names is None else _classes(names, len(pixels), str(path))
    channels = 1 if pixels.shape[3] == 1 else 3
    changes = [] if (low, high) == (0, 255) else [f"scaled: values from {low:g} to {high:g} become 0 to 255"]

    def read(i: int, size: int) -> Image.Image:
        scaled = np.clip((pixels[i].astype(np.float64) - low) / ((high - low) / 255), 0, 255)
        image = Image.fromarray(np.round(scaled if channels == 3 else scaled[..., 0]).astype(np.uint8))
        image.info = {SIZE: image.size, CHANGES: changes}
        return image

    digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
    for start in range(0, len(pixels), 1024):
        digest.update(pixels[start : start + 1024].tobytes())
    numbers = {name: values for name in tables if len(values := _column(tables[name])) == len(pixels)}
    left_out = {name: "not used" for name in tables if name not in {*used, *numbers}}
    left_out |= {
        name: f"not used as labels: these are '{used[1]}'" for name in LABELS if name in numbers and name not in used
    }
    return Collection(
        fingerprint=f"arrays {digest.hexdigest()}",
        names=[f"image {i}" for i in range(len(pixels))],
        channels=channels,
        sizes=f"{pixels.shape[2]}x{pixels.shape[1]}",
        transparent=pixels.shape[3] == 4 and bool(pixels[..., 3].min() < high),
        read=read,
        labels=labels,
        classes=classes,
        numbers=numbers,
        split=split,
        notes=of_left_out(left_out, noun="array"),
        left_out=left_out,
    )


def _column(array: np.ndarray) -> np.ndarray:
    """The array as a column of numbers; an empty one if it is none."""
    return array.astype(np.float64) if array.ndim == 1 and array.dtype.kind in "iuf" else np.empty(0)


def _tables(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a file by name; never unpickles objects."""
    try:
        if path.suffix.lower() == ".npy":
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                raise UserError(f"{path} is an .npz file by its content; rename it, and its arrays will be read.")
            return {"arr_0": loaded}
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        limit = psutil.virtual_memory().total // 2
        if size > limit:
            raise UserError(
                f"{path} unpacks to {size / 2**30:.1f} GiB, more than half of this machine's memory; "
                "save the images as .npy, which is read piece by piece."
            )
        with np.load(path, allow_pickle=False) as tables:
            return {name: tables[name] for name in tables.files}
    except (
        OSError, ValueError, EOFError, KeyError, MemoryError, NotImplementedError, OverflowError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise UserError(f"{path} cannot be read as arrays: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """Returns why NumPy could not read a file, in words that name none of its options."""
    text = str(error)
    if "pickle" in text:
        return "it is no file of NumPy's, or it holds Python objects in place of numbers"
    if isinstance(error, OverflowError) or (isinstance(error, ValueError) and ("<" in text or "header" in text)):
        return "its header is damaged"
    return text or type(error).__name__


def _prepared(pixels: np.ndarray, where: str) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns images as `(N, H, W, C)`, and the values that become black and white."""
    if pixels.dtype.kind not in "buif":
        raise UserError(f"{where} has values of type {pixels.dtype}; images should be bytes, integers or floats.")
    if pixels.ndim > 1 and not len(pixels):
        raise UserError(f"{where} has no images: its shape is {pixels.shape}.")
    if pixels.ndim == 3 and pixels.shape[2] in CHANNELS[1:] and pixels.shape[1] > 2 * pixels.shape[2]:
        raise UserError(
            f"{where} has the shape {pixels.shape}, that of a single image; images should be (N, H, W, C), as "
            "image[None]."
        )
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif pixels.ndim == 4 and pixels.shape[3] not in CHANNELS and pixels.shape[1] in CHANNELS:
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.ndim != 4 or pixels.shape[3] not in CHANNELS or not pixels.size:
        raise UserError(
            f"{where} has the shape {pixels.shape}; images should be (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 "
            "or 4 channels."
        )
    if pixels.dtype == np.uint8 and pixels.max() > 1:
        return pixels, (0, 255)
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise UserError(f"{where} has values that are infinite or not numbers; images should have finite values.")
    return pixels, limits(low, high, pixels.dtype.kind == "f")


def _classes(names: np.ndarray, count: int, where: str) -> tuple[np.ndarray, list[str]]:
    """Returns class indices and class names, given a number or a word for each image."""
    if names.ndim == 2 and names.shape[1] == 1:
        names = names[:, 0]
    if names.shape != (count,):
        raise UserError(f"{where} has {count} images but labels of shape {names.shape}; each image needs one label.")
    if names.dtype.kind == "f" and np.isfinite(names).all() and (names == np.round(names)).all():
        names = names.astype(np.int64)
    if names.dtype.kind not in "biuU":
        raise UserError(f"{where} has labels of type {names.dtype}; they should be whole numbers or words.")
    values, labels = np.unique(names, return_inverse=True)
    called = [readable(str(value)) for value in values.tolist()]
    classes = list(dict.fromkeys(called))  # a name in two forms of Unicode is one
    return np.array([classes.index(name) for name in called], np.int64)[labels], classes
