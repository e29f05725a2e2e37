r"""Differentiable augmentation.

Where there are few images, a discriminator learns them by heart. Showing it every image, real or fake, only
through a random transformation T keeps it from that, and as T is differentiable the generator still learns
through it:

    L_D = E_x[f(D(T(x)))] + E_z[g(D(T(G(z))))],    L_G = E_z[h(D(T(G(z))))].

T must act on both, in both updates; otherwise the generator learns the transformation. One image's draws:

- ``color``: brightness moved by up to half of half the pixel range, saturation scaled by 0..2, contrast by 0.5..1.5.
- ``translation``: moved by up to an eighth of its side, the border filled with the middle of the range.
- ``cutout``: a square of half its side masked in the same way.

Source: S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu and S. Han, Differentiable Augmentation for Data-Efficient GAN
Training, NeurIPS 2020, sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zeuxis.registry import Registry

__all__ = ["AUGMENTATIONS", "augment"]

# From images around 0, at the width of -1..1, and a generator to transformed images.
AUGMENTATIONS: Registry[Callable[[Tensor, torch.Generator], Tensor]] = Registry(
    "augmentation", "zeuxis.models.augmentation"
)


def augment(images: Tensor, names: Sequence[str], generator: torch.Generator, low: float = -1.0) -> Tensor:
    """Transforms every image by itself, differentiably.

    Args:
        images: `(B, C, H, W)` in `low..1`.
        names: of `AUGMENTATIONS`, in the order they are applied.
        generator: draws the transformations.
        low: the darkest pixel value, -1 or 0.

    Returns:
        `(B, C, H, W)`.
    """
    middle = (low + 1) / 2
    # Worked on around the middle of the range, at the width of -1..1, so that a masked pixel is a zero.
    centred = (images - middle) * (2 / (1 - low))
    for name in names:
        centred = AUGMENTATIONS[name](centred, generator)
    return centred * ((1 - low) / 2) + middle


def _uniform(images: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """One number an image, `(B, 1, 1, 1)`."""
    drawn = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device, dtype=images.dtype)
    return low + (high - low) * drawn


@AUGMENTATIONS.add("color")
def _color(images: Tensor, generator: torch.Generator) -> Tensor:
    images = images + _uniform(images, generator, -0.5, 0.5)
    if images.shape[1] > 1:
        grey = images.mean(dim=1, keepdim=True)
        images = grey + (images - grey) * _uniform(images, generator, 0, 2)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * _uniform(images, generator, 0.5, 1.5)


def _places(images: Tensor, generator: torch.Generator, reach: int) -> tuple[Tensor, Tensor]:
    """Two whole numbers an image in `-reach..reach`, each `(B, 1)`."""
    drawn = torch.randint(-reach, reach + 1, (2, len(images), 1), generator=generator, device=images.device)
    return drawn[0], drawn[1]


@AUGMENTATIONS.add("translation")
def _translation(images: Tensor, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    down, right = _places(images, generator, max(height // 8, 1))
    rows = torch.arange(height, device=images.device) + down
    columns = torch.arange(width, device=images.device) + right
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    moved = images[
        torch.arange(count, device=images.device)[:, None, None],
        :,
        rows.clamp(0, height - 1)[:, :, None],
        columns.clamp(0, width - 1)[:, None, :],
    ]  # indices around a slice put its dimension last: (B, H, W, C)
    return moved.permute(0, 3, 1, 2) * inside[:, None]


@AUGMENTATIONS.add("cutout")
def _cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    _, _, height, width = images.shape
    down, right = _places(images, generator, height // 2)
    rows = (torch.arange(height, device=images.device) - height // 2 - down).abs() < height // 4
    columns = (torch.arange(width, device=images.device) - width // 2 - right).abs() < width // 4
    return images * ~(rows[:, :, None] & columns[:, None, :])[:, None]
