"""Batches: turns bytes from the cache into float images on the training device.

The k-th batch of a run depends only on the seed and k, so a resumed run needs no loader state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zeuxis.data.dataset import Dataset
from zeuxis.recipe import DataOptions

__all__ = ["Batch", "Batches", "finished", "from_unit", "mirrors", "on_white", "scaled", "to_bytes", "to_unit"]


@dataclass(frozen=True)
class Batch:
    """A batch of images and their labels.

    Attributes:
        images: `(B, C, H, W)` in the recipe's pixel range.
        labels: `(B,)` class indices, or None.
    """

    images: Tensor
    labels: Tensor | None


class Batches:
    """The training images in batches, reshuffled each epoch; a smaller last batch is dropped.

    A data set of at most a quarter of a GPU's free memory is kept on the GPU as bytes. Then only the order of each
    epoch is sent there, and no images.

    Args:
        dataset: the images.
        options: the recipe's data section.
        batch_size: images per batch; at most the number of training images is used.
        seed: seed of the order and of mirroring.
        device: device of the batches.
        resident: whether to keep the images on the device; if None, wherever they fit.
        part: gives the rows of a batch that are read, for their number; all of them by default.
    """

    def __init__(
        self,
        dataset: Dataset,
        options: DataOptions,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        resident: bool | None = None,
        part: Callable[[int], slice] = slice,
    ) -> None:
        self.part = part
        self.dataset, self.options, self.seed, self.device = dataset, options, seed, device
        self.batch_size = min(batch_size, len(dataset.train))
        self.per_epoch = len(dataset.train) // self.batch_size
        self._epoch = -1
        size = len(dataset.train) * math.prod(dataset.images.shape[1:])
        self._held: tuple[Tensor, Tensor | None] | None = None
        if resident if resident is not None else size <= _free_bytes(device):
            labels = None if dataset.labels is None else dataset.labels[dataset.train]
            self._held = (
                torch.from_numpy(dataset.images[dataset.train]).to(device),
                None if labels is None else torch.from_numpy(labels).to(device),
            )

    def __getitem__(self, k: int) -> Batch:
        """Returns the k-th batch of the run."""
        epoch, place = divmod(k, self.per_epoch)
        if self._epoch != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset.train))
            self._order: Any = torch.from_numpy(order).to(self.device) if self._held else self.dataset.train[order]
            self._epoch = epoch
        rows = self.part(self.batch_size)
        indices = self._order[place * self.batch_size : (place + 1) * self.batch_size][rows]
        mirrored = mirrors(self.options, [self.seed, epoch, place], self.batch_size, rows)
        if self._held is None:
            return make_batch(self.dataset, self.options, indices, self.device, mirrored)
        pixels, labels = self._held
        return finished(pixels[indices], None if labels is None else labels[indices], self.options, mirrored)

    def close(self) -> None:
        """Frees what reads ahead, which nothing does here."""


def _free_bytes(device: torch.device) -> float:
    """Returns the bytes of images that a device may keep during training; 0 for a CPU, which reads the cache."""
    return torch.cuda.mem_get_info(device)[0] / 4 if device.type == "cuda" else 0


def mirrors(options: DataOptions, seed: list[int], count: int, rows: slice) -> np.ndarray | None:
    """Returns which of some rows of a batch of so many images are mirrored; None if none ever is."""
    return np.random.default_rng(seed).random(count)[rows] < 0.5 if options.flip else None


def make_batch(
    dataset: Dataset,
    options: DataOptions,
    indices: np.ndarray,
    device: torch.device,
    mirrored: np.ndarray | None = None,
) -> Batch:
    """Gathers images by index, moves their bytes to the device and scales them there."""
    pixels = torch.from_numpy(dataset.images[indices]).to(device, non_blocking=True)
    labels = None
    if dataset.labels is not None:
        labels = torch.from_numpy(dataset.labels[indices]).to(device, non_blocking=True)
    return finished(pixels, labels, options, mirrored)


def finished(pixels: Tensor, labels: Tensor | None, options: DataOptions, mirrored: np.ndarray | None) -> Batch:
    """Makes a batch of bytes `(B, H, W, C)` that are on its device."""
    if mirrored is not None:
        mask = torch.from_numpy(mirrored).to(pixels.device, non_blocking=True)
        pixels = torch.where(mask[:, None, None, None], pixels.flip(2), pixels)
    return Batch(from_unit(scaled(pixels, options), options.range), labels)


def scaled(pixels: Tensor, options: DataOptions) -> Tensor:
    """Returns `(B, C, H, W)` images in 0..1, at the size of the recipe, of stored bytes `(B, H, W, C)`."""
    # (B, H, W, C) bytes viewed as (B, C, H, W) are in channels-last layout, the fastest for convolutions.
    images = pixels.permute(0, 3, 1, 2).float() / 255
    if options.stored_size != options.size:
        images = F.interpolate(images, options.shape[1:], mode="bilinear", antialias=True)
    return images


def from_unit(images: Tensor, pixel_range: str) -> Tensor:
    """Scales images from 0..1 to the recipe's range."""
    return images * 2 - 1 if pixel_range == "-1..1" else images


def to_unit(images: Tensor, pixel_range: str) -> Tensor:
    """Scales images from the recipe's range to 0..1 and clips them."""
    return ((images + 1) / 2 if pixel_range == "-1..1" else images).clamp(0, 1)


def on_white(images: Tensor, white: float = 1.0) -> Tensor:
    """Places `(B, 4, H, W)` transparent images on white, `(B, 3, H, W)`; returns images without transparency unchanged.

    Args:
        images: pixels from 0 to `white`.
        white: the largest value.
    """
    if images.shape[1] != 4:
        return images
    share = images[:, 3:] / white
    return images[:, :3] * share + white * (1 - share)


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Converts images in 0..1 to bytes, clipped; returns bytes unchanged."""
    if images.dtype == np.uint8:
        return images
    rounded: np.ndarray = np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return rounded
