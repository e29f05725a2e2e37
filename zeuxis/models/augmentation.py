r"""Differentiable augmentation.

A discriminator memorises a small training set. To prevent that, it sees every image, real or fake, only through a
random transformation T. T is differentiable, so the generator still learns through it:

    L_D = E_x[f(D(T(x)))] + E_z[g(D(T(G(z))))],    L_G = E_z[h(D(T(G(z))))].

T must be applied to both, in both updates; otherwise the generator learns the transformation. The amounts are sampled
for each image separately:

- ``color``: brightness is shifted by up to a quarter of the pixel range, saturation is scaled by 0..2, contrast by
  0.5..1.5. Transparency stays as it is.
- ``translation``: the image is shifted by up to an eighth of its side and padded with the middle of the range.
- ``cutout``: a square of half the side is set to the middle of the range.

These amounts are defaults of options. With `probability`, a transformation applies to a share of the images only.

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

    probability: float = Field(1.0, gt=0, le=1, description="share of the images that it transforms")


class Augmentation(ABC):
    """A random, differentiable transformation of images.

    Args:
        options: values for fields of `Options`, from the recipe.

    Attributes:
        Options: the options that a recipe may set.
    """

    Options: ClassVar[type[AugmentationOptions]] = AugmentationOptions

    def __init__(self, **options: Any) -> None:
        self.options = self.Options.model_validate(options)

    @abstractmethod
    def transform(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns transformed `(B, C, H, W)` images; pixel values are in -1..1."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Transforms the share of the images that `probability` says."""
        transformed = self.transform(images, generator)
        if self.options.probability == 1:
            return transformed
        return torch.where(_uniform(images, generator, 0, 1) < self.options.probability, transformed, images)


AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation", "zeuxis.models.augmentation")


def augment(
    images: Tensor, augmentations: Sequence[Augmentation], generator: torch.Generator, low: float = -1.0
) -> Tensor:
    """Applies augmentations to images, differentiably and with amounts sampled for each image.

    Args:
        images: `(B, C, H, W)` in `low..1`.
        augmentations: in the order in which they are applied.
        generator: samples the amounts.
        low: the darkest pixel value, -1 or 0.

    Returns:
        `(B, C, H, W)`.
    """
    middle = (low + 1) / 2
    # Scaled to -1..1 for the transformations, so that the middle of the range is 0.
    centred = (images - middle) * (2 / (1 - low))
    for augmentation in augmentations:
        centred = augmentation(centred, generator)
    return centred * ((1 - low) / 2) + middle


def _uniform(images: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """Returns a uniform random number in `low..high` for each image, `(B, 1, 1, 1)`."""
    uniform = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device, dtype=images.dtype)
    return low + (high - low) * uniform


class ColorOptions(AugmentationOptions):
    """Options of `color`."""

    brightness: float = Field(0.5, ge=0, le=2, description="largest shift, at pixel range -1..1")
    saturation: float = Field(1.0, ge=0, le=1, description="the scale is 1 minus this to 1 plus this")
    contrast: float = Field(0.5, ge=0, le=1, description="the scale is 1 minus this to 1 plus this")


@AUGMENTATIONS.add("color")
class Color(Augmentation):
    """Changes brightness, saturation and contrast."""

    Options = ColorOptions
    options: ColorOptions

    def transform(self, images: Tensor, generator: torch.Generator) -> Tensor:
        options, images, share = self.options, images[:, :3], images[:, 3:]
        images = images + _uniform(images, generator, -options.brightness, options.brightness)
        if images.shape[1] > 1:
            grey = images.mean(dim=1, keepdim=True)
            scale = _uniform(images, generator, 1 - options.saturation, 1 + options.saturation)
            images = grey + (images - grey) * scale
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = mean + (images - mean) * _uniform(images, generator, 1 - options.contrast, 1 + options.contrast)
        return torch.cat([images, share], dim=1) if share.shape[1] else images


def _places(images: Tensor, generator: torch.Generator, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Returns random integers in `-down..down` and in `-right..right` for each image, each `(B, 1)`."""

    def offsets(reach: int) -> Tensor:
        return torch.randint(-reach, reach + 1, (len(images), 1), generator=generator, device=images.device)

    return offsets(down), offsets(right)


class TranslationOptions(AugmentationOptions):
    """Options of `translation`."""

    reach: float = Field(0.125, gt=0, le=1, description="largest shift, as a share of the height")


@AUGMENTATIONS.add("translation")
class Translation(Augmentation):
    """Shifts the image up, down, left or right."""

    Options = TranslationOptions
    options: TranslationOptions

    def transform(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = images.shape
        reach = max(int(height * self.options.reach), 1)
        down, right = _places(images, generator, reach, reach)
        rows = torch.arange(height, device=images.device) + down
        columns = torch.arange(width, device=images.device) + right
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        shifted = images[
            torch.arange(count, device=images.device)[:, None, None],
            :,
            rows.clamp(0, height - 1)[:, :, None],
            columns.clamp(0, width - 1)[:, None, :],
        ]  # indices around a slice put its dimension last: (B, H, W, C)
        return shifted.permute(0, 3, 1, 2) * inside[:, None]


class CutoutOptions(AugmentationOptions):
    """Options of `cutout`."""

    side: float = Field(0.5, gt=0, le=1, description="side of the square, as a share of the image's sides")


@AUGMENTATIONS.add("cutout")
class Cutout(Augmentation):
    """Covers a square with the middle of the range."""

    Options = CutoutOptions
    options: CutoutOptions

    def transform(self, images: Tensor, generator: torch.Generator) -> Tensor:
        _, _, height, width = images.shape
        down, right = _places(images, generator, height // 2, width // 2)
        rows = self._covered(down, height)
        columns = self._covered(right, width)
        return images * ~(rows[:, :, None] & columns[:, None, :])[:, None]

    def _covered(self, place: Tensor, side: int) -> Tensor:
        """Returns which pixels of a side are covered, `(B, side)`, for the square's places `(B, 1)` from the middle."""
        covered = max(round(self.options.side * side), 1)
        from_edge = torch.arange(side, device=place.device) - side // 2 - place + covered // 2
        return (from_edge >= 0) & (from_edge < covered)
