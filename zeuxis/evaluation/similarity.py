r"""Structural similarity of images (SSIM), at several scales (MS-SSIM), and with it the diversity within a class.

With means, variances and covariance of two images in a Gaussian window, c_1 = 0.01^2 and c_2 = 0.03^2,

    l = (2 m_x m_y + c_1) / (m_x^2 + m_y^2 + c_1),    c = (2 s_xy + c_2) / (s_x^2 + s_y^2 + c_2),
    SSIM = mean of l c,        MS-SSIM = l_S^w_S prod_s c_s^w_s,

where scale s is the image halved s - 1 times. Five scales ask for images of 176 pixels; smaller ones get as many as
their window fits in, with the weights of those scaled to sum to 1.

Samples of one class that are all alike have a high MS-SSIM in pairs; real images of a class give what to expect.

Sources: Z. Wang, A. C. Bovik, H. R. Sheikh and E. P. Simoncelli, Image quality assessment, IEEE TIP 13, 2004,
section III; Z. Wang, E. P. Simoncelli and A. C. Bovik, Multi-scale structural similarity, Asilomar 2003, equation 7;
A. Odena, C. Olah and J. Shlens, Conditional Image Synthesis with Auxiliary Classifier GANs, ICML 2017, section 4.2.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zeuxis.evaluation.measure import Figures, Material, Value, has_classifier, measure, pieces

__all__ = ["ms_ssim", "ssim"]

WINDOW, DEVIATION = 11, 1.5
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
PAIRS = 2000


def _parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast terms of `(B, C, H, W)` images, at every place of the window."""
    place = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    row = torch.exp(-place.square() / (2 * DEVIATION**2))
    row = row / row.sum()
    channels = x.shape[1]

    def blur(z: Tensor) -> Tensor:
        z = F.conv2d(z, row.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
        return F.conv2d(z, row.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mx * my + c1) / (mx * mx + my * my + c1), (2 * vxy + c2) / (vx + vy + c2)


def _tensors(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    one, two = (torch.from_numpy(np.ascontiguousarray(each)).permute(0, 3, 1, 2).double() for each in (x, y))
    return (one / 255, two / 255) if x.dtype == np.uint8 else (one, two)


def ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """SSIM, `(N,)`, of images in pairs, `(N, H, W, C)` in 0..1 or bytes, of at least 11 pixels a side."""
    luminance, contrast = _parts(*_tensors(x, y))
    found: np.ndarray = (luminance * contrast).mean(dim=(1, 2, 3)).numpy()
    return found


def ms_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """MS-SSIM, `(N,)`, of images in pairs, `(N, H, W, C)` in 0..1 or bytes, of at least 11 pixels a side."""
    one, two = _tensors(x, y)
    scales = sum(min(one.shape[2:]) >> s >= WINDOW for s in range(len(WEIGHTS)))
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    found = torch.ones(len(one), dtype=one.dtype)
    for s, weight in enumerate(weights, 1):
        luminance, contrast = _parts(one, two)
        term = luminance * contrast if s == scales else contrast
        found = found * term.mean(dim=(1, 2, 3)).clamp(min=0) ** weight
        one, two = F.avg_pool2d(one, 2), F.avg_pool2d(two, 2)
    alike: np.ndarray = found.numpy()
    return alike


def _within_classes(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """MS-SSIM of random pairs of one class each; empty where no two images are of one class."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    pairs = [(a, b) for a, b in zip(order[:-1:2], order[1::2], strict=False) if labels[a] == labels[b]]
    if not pairs:
        return np.zeros(0)
    chosen = np.array(pairs)[:: max(len(pairs) // PAIRS, 1)]
    return np.concatenate([ms_ssim(images[part[:, 0]], images[part[:, 1]]) for part in pieces(chosen)])


@measure(
    gives={
        "ms_ssim": "how alike two samples of one class are",
        "ms_ssim_images": "how alike two images of one class are, which the samples' should not be above",
    },
    better="",
    applies=lambda material: has_classifier(material) and material.run.recipe.data.size >= WINDOW,
)
def alike(material: Material) -> Figures:
    found = _within_classes(material.samples, material.probabilities.argmax(axis=1))
    expected = _within_classes(material.reference, material.reference_probabilities.argmax(axis=1))
    return {
        name: Value.mean(each) if len(each) else "no two of them are of one class"
        for name, each in (("ms_ssim", found), ("ms_ssim_images", expected))
    }
