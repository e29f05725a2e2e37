"""MNIST and Fashion-MNIST: four idx .gz files, from the data directory or downloaded from their publishers.

The idx format: two zero bytes, the type (8 is unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the values (http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from zeuxis.data.download import fetch
from zeuxis.data.registry import Collection, data_dir, locate, source
from zeuxis.errors import UserError
from zeuxis.recipe import DataOptions

FILES = (
    "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
)  # fmt: skip

# Address and MD5 of each file as published; the order is that of FILES.
MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c",
))  # fmt: skip
FASHION = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310",
))  # fmt: skip
FASHION_CLASSES = [
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
]  # fmt: skip
# Limit of the bytes of one file; the largest published file has 47 million.
MOST_VALUES = 2**32


@source(
    "mnist",
    "handwritten digits, 28x28 grey, 10 classes (60,000 + 10,000)",
    mirrors=False,
    licence="CC BY-SA 3.0",
    square=True,
)
def mnist(options: DataOptions) -> Collection:
    return _open("mnist", options, MNIST, [str(i) for i in range(10)])


@source(
    "fashion-mnist",
    "articles of clothing, 28x28 grey, 10 classes (60,000 + 10,000)",
    mirrors=True,
    licence="MIT",
    square=True,
)
def fashion_mnist(options: DataOptions) -> Collection:
    return _open("fashion-mnist", options, FASHION, FASHION_CLASSES)


def _open(name: str, options: DataOptions, published: tuple[str, tuple[str, ...]], classes: list[str]) -> Collection:
    folder = _folder(name, options.path)
    if folder is None:
        folder = data_dir() / name
        address, digests = published
        for file, digest in zip(FILES, digests, strict=True):
            fetch(address + file, f"md5:{digest}", folder / file)
    images, labels = [], []
    for part in ("train", "t10k"):
        image_path, label_path = (folder / file for file in FILES if file.startswith(part))
        images.append(read_idx(image_path, 3))
        labels.append(read_idx(label_path, 1).astype(np.int64))
        if len(images[-1]) != len(labels[-1]):
            raise UserError(
                f"{image_path} has {len(images[-1])} images but {label_path.name} has {len(labels[-1])} labels; "
                "the two files belong to different sets."
            )
        if len(labels[-1]) and labels[-1].max() >= len(classes):
            raise UserError(f"{label_path} has the label {labels[-1].max()}; {name} has labels 0 to 9.")
    if images[0].shape[1:] != images[1].shape[1:]:
        raise UserError(f"The training and test images in {folder} differ in size.")
    pixels = np.concatenate(images)
    digest = hashlib.sha256(pixels.tobytes() + np.concatenate(labels).tobytes()).hexdigest()
    return Collection(
        fingerprint=f"{name} {digest}",
        names=[f"{part} {i}" for part, some in zip(("train", "test"), images, strict=True) for i in range(len(some))],
        channels=1,
        sizes="x".join(map(str, pixels.shape[1:])),
        read=lambda i, size: Image.fromarray(pixels[i]),
        labels=np.concatenate(labels),
        classes=classes,
        split=np.repeat([0, 1], [len(some) for some in images]),
    )


def _folder(name: str, path: str) -> Path | None:
    """Returns the folder of the four files: `path`, else a folder in the data directory named like the set."""
    candidates = [locate(path)] if path else sorted(data_dir().glob(f"{name}*"))
    for folder in candidates:
        present = [file for file in FILES if (folder / file).is_file()]
        if len(present) == len(FILES):
            return folder
        if present or path:
            missing = ", ".join(sorted(set(FILES) - set(present)))
            if path or folder != data_dir() / name:
                raise UserError(f"{folder} lacks {missing}.")
    return None


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads an idx file of unsigned bytes, compressed or not.

    Raises:
        UserError: for a file that is missing, truncated, damaged, or of another kind.
    """
    header = 4 + 4 * dimensions
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else path.open("rb") as content:
            head = content.read(header)
            if len(head) < 4 or head[:3] != b"\0\0\x08" or head[3] != dimensions:
                raise UserError(f"{path} is not an idx file of unsigned bytes with {dimensions} dimensions.")
            shape = struct.unpack(f">{dimensions}I", head[4:].ljust(4 * dimensions, b"\0"))
            if math.prod(shape) > MOST_VALUES:
                raise UserError(f"{path} declares {math.prod(shape):,} values; at most {MOST_VALUES:,} are allowed.")
            values = content.read(math.prod(shape) + 1)  # one byte more than declared shows that there are more
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or cut short ({error}); remove it and get it again.") from error
    if len(values) != math.prod(shape):
        actual = "more" if len(values) > math.prod(shape) else f"{len(values):,} bytes"
        raise UserError(
            f"{path} declares {'x'.join(map(str, shape))} values but has {actual}; it is damaged or cut short."
        )
    return np.frombuffer(values, np.uint8).reshape(shape)
