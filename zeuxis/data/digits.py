"""scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels, which come with that package.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from zeuxis.data.registry import Collection, require_no_path, source
from zeuxis.recipe import DataOptions


@source(
    "digits",
    "1,797 handwritten digits that come with scikit-learn; needs no download",
    mirrors=False,
    licence="CC BY 4.0",
    square=True,
)
def digits(options: DataOptions) -> Collection:
    require_no_path(options)
    table = _table()
    # Pixel values are 0..16 in this set.
    pixels = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return Collection(
        fingerprint="scikit-learn digits",
        names=[f"digit {i}" for i in range(len(pixels))],
        channels=1,
        sizes="8x8",
        read=lambda i, size: Image.fromarray(pixels[i]),
        labels=table[:, -1].astype(np.int64),
        classes=[str(i) for i in range(10)],
    )


def _table() -> np.ndarray:
    """Returns the 64 pixels and the class of each image, `(1797, 65)`, from the file in scikit-learn's folder.

    Importing scikit-learn to read it would take a second of every start.
    """
    package = find_spec("sklearn")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz" if package and package.origin else None
    if file and file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels])
