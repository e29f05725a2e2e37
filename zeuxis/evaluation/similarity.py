r"""Structural similarity of images (SSIM), also at several scales (MS-SSIM), and the diversity within a class.

With means, variances and covariance of two images in a Gaussian window, c_1 = 0.01^2 and c_2 = 0.03^2,

    l = (2 m_x m_y + c_1) / (m_x^2 + m_y^2 + c_1),    c = (2 s_xy + c_2) / (s_x^2 + s_y^2 + c_2),
    SSIM = mean of l c,        MS-SSIM = l_S^w_S prod_s c_s^w_s,

where scale s is the image halved s - 1 times. Five scales need images of 176 pixels. Smaller images use as many scales
as the window fits into, with their weights rescaled to sum to 1.

Pairs of samples of one class have a high MS-SSIM where all samples look alike; pairs of real images give the reference.

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
    """Computes the luminance and contrast terms of `(B, C, H, W)` images, at every position of the window."""
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
    one, two = (torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).double() for images in (x, y))
    return (one / 255, two / 255) if x.dtype == np.uint8 else (one, two)


def ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Computes the SSIM `(N,)` of pairs of images, `(N, H, W, C)` in 0..1 or bytes, at least 11 pixels a side."""
    luminance, contrast = _parts(*_tensors(x, y))
    similarities: np.ndarray = (luminance * contrast).mean(dim=(1, 2, 3)).numpy()
    return similarities


def ms_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Computes the MS-SSIM `(N,)` of pairs of images, `(N, H, W, C)` in 0..1 or bytes, at least 11 pixels a side."""
    one, two = _tensors(x, y)
    scales = sum(min(one.shape[2:]) >> s >= WINDOW for s in range(len(WEIGHTS)))
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    product = torch.ones(len(one), dtype=one.dtype)
    for s, weight in enumerate(weights, 1):
        luminance, contrast = _parts(one, two)
        term = luminance * contrast if s == scales else contrast
        product = product * term.mean(dim=(1, 2, 3)).clamp(min=0) ** weight
        one, two = F.avg_pool2d(one, 2), F.avg_pool2d(two, 2)
    alike: np.ndarray = product.numpy()
    return alike


def _within_classes(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Computes the MS-SSIM of random pairs within classes; empty where no two images share a class."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    pairs = [(a, b) for a, b in zip(order[:-1:2], order[1::2], strict=False) if labels[a] == labels[b]]
    if not pairs:
        return np.zeros(0)
    selected = np.array(pairs)[:: max(len(pairs) // PAIRS, 1)]
    return np.concatenate([ms_ssim(images[part[:, 0]], images[part[:, 1]]) for part in pieces(selected)])


@measure(
    gives={
        "ms_ssim": "mean similarity of two samples of one class",
        "ms_ssim_images": "mean similarity of two images of one class; that of samples should not exceed it",
    },
    better="",
    applies=lambda material: has_classifier(material) and min(material.run.recipe.data.size) >= WINDOW,
)
def alike(material: Material) -> Figures:
    of_samples = _within_classes(material.samples, material.probabilities.argmax(axis=1))
    of_images = _within_classes(material.reference, material.reference_probabilities.argmax(axis=1))
    return {
        name: Value.mean(similarities) if len(similarities) else "no two of them share a class"
        for name, similarities in (("ms_ssim", of_samples), ("ms_ssim_images", of_images))
    }
