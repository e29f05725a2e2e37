"""scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels, which come with that package.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from zeuxis.data.registry import Collection, source
from zeuxis.recipe import DataOptions


@source(
    "digits",
    "1,797 handwritten digits that come with scikit-learn; needs no download",
    mirrors=False,
    licence="CC BY 4.0",
    square=True,
)
def digits(options: DataOptions) -> Collection:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    # Pixel values are 0..16 in this set.
    pixels = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return Collection(
        fingerprint="scikit-learn digits",
        names=[f"digit {i}" for i in range(len(pixels))],
        channels=1,
        sizes="8x8",
        read=lambda i, size: Image.fromarray(pixels[i]),
        labels=labels.astype(np.int64),
        classes=[str(i) for i in range(10)],
    )
