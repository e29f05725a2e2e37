r"""Differentiable augmentation.

Where there are few images, a discriminator learns them by heart. Showing it every image, real or fake, only
through a random transformation T keeps it from that, and as T is differentiable the generator still learns
through it:

    L_D = E_x[f(D(T(x)))] + E_z[g(D(T(G(z))))],    L_G = E_z[h(D(T(G(z))))].

T must act on both, in both updates; otherwise the generator learns the transformation. Each image is transformed by
random amounts of its own:

- ``color``: brightness moves by up to half of half the pixel range, saturation is scaled by 0..2, contrast by 0.5..1.5.
- ``translation``: the image moves by up to an eighth of its side; the border takes the middle of the range.
- ``cutout``: a square of half the side takes the middle of the range.

These amounts are the defaults of options, and each transformation may be left out of some images (`probability`).

Source: S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu and S. Han, Differentiable Augmentation for Data-Efficient GAN
Training, NeurIPS 2020, sections 3.2 and 3.3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from zeuxis.recipe import Section
from zeuxis.registry import Registry

__all__ = ["AUGMENTATIONS", "Augmentation", "AugmentationOptions", "augment"]


class AugmentationOptions(Section):
    """Options of every augmentation."""

    probability: float = Field(1.0, gt=0, le=1, description="share of the images that are transformed")


class Augmentation(ABC):
    """A random, differentiable transformation of images.

    Args:
        options: keyword arguments of `Options`, as a recipe gives them.

    Attributes:
        Options: what a recipe may give it.
    """

    Options: ClassVar[type[AugmentationOptions]] = AugmentationOptions

    def __init__(self, **options: Any) -> None:
        self.options = self.Options.model_validate(options)

    @abstractmethod
    def transform(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns transformed `(B, C, H, W)` images, whose middle is 0 and whose range has the width of -1..1."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Transforms its share of the images."""
        transformed = self.transform(images, generator)
        if self.options.probability == 1:
            return transformed
        return torch.where(_uniform(images, generator, 0, 1) < self.options.probability, transformed, images)


AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation", "zeuxis.models.augmentation")


def augment(
    images: Tensor, augmentations: Sequence[Augmentation], generator: torch.Generator, low: float = -1.0
) -> Tensor:
    """Transforms every image by itself, differentiably.

    Args:
        images: `(B, C, H, W)` in `low..1`.
        augmentations: in the order they are applied.
        generator: samples the transformations.
        low: the darkest pixel value, -1 or 0.

    Returns:
        `(B, C, H, W)`.
    """
    middle = (low + 1) / 2
    # Worked on around the middle of the range, at the width of -1..1, so that a masked pixel is a zero.
    centred = (images - middle) * (2 / (1 - low))
    for augmentation in augmentations:
        centred = augmentation(centred, generator)
    return centred * ((1 - low) / 2) + middle


def _uniform(images: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """One number an image, `(B, 1, 1, 1)`."""
    drawn = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device, dtype=images.dtype)
    return low + (high - low) * drawn


class ColorOptions(AugmentationOptions):
    """Options of `color`."""

    brightness: float = Field(0.5, ge=0, le=2, description="moves by up to this, where the range is 2 wide")
    saturation: float = Field(1.0, ge=0, le=1, description="is scaled by 1 minus this to 1 plus this")
    contrast: float = Field(0.5, ge=0, le=1, description="is scaled by 1 minus this to 1 plus this")


@AUGMENTATIONS.add("color")
class Color(Augmentation):
    """Changes brightness, saturation and contrast."""

    Options = ColorOptions
    options: ColorOptions

    def transform(self, images: Tensor, generator: torch.Generator) -> Tensor:
        options = self.options
        images = images + _uniform(images, generator, -options.brightness, options.brightness)
        if images.shape[1] > 1:
            grey = images.mean(dim=1, keepdim=True)
            scale = _uniform(images, generator, 1 - options.saturation, 1 + options.saturation)
            images = grey + (images - grey) * scale
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return mean + (images - mean) * _uniform(images, generator, 1 - options.contrast, 1 + options.contrast)


def _places(images: Tensor, generator: torch.Generator, reach: int) -> tuple[Tensor, Tensor]:
    """Two whole numbers an image in `-reach..reach`, each `(B, 1)`."""
    places = torch.randint(-reach, reach + 1, (2, len(images), 1), generator=generator, device=images.device)
    return places[0], places[1]


class TranslationOptions(AugmentationOptions):
    """Options of `translation`."""

    reach: float = Field(0.125, gt=0, le=1, description="moves by up to this share of the height")


@AUGMENTATIONS.add("translation")
class Translation(Augmentation):
    """Moves the image up, down, left or right."""

    Options = TranslationOptions
    options: TranslationOptions

    def transform(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = images.shape
        down, right = _places(images, generator, max(int(height * self.options.reach), 1))
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


class CutoutOptions(AugmentationOptions):
    """Options of `cutout`."""

    side: float = Field(0.5, gt=0, le=1, description="of the square, as a share of the image's sides")


@AUGMENTATIONS.add("cutout")
class Cutout(Augmentation):
    """Covers a square with the middle of the range."""

    Options = CutoutOptions
    options: CutoutOptions

    def transform(self, images: Tensor, generator: torch.Generator) -> Tensor:
        _, _, height, width = images.shape
        down, right = _places(images, generator, height // 2)
        half = self.options.side / 2
        rows = (torch.arange(height, device=images.device) - height // 2 - down).abs() < int(height * half)
        columns = (torch.arange(width, device=images.device) - width // 2 - right).abs() < int(width * half)
        return images * ~(rows[:, :, None] & columns[:, None, :])[:, None]
