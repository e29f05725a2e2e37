"""Batches: bytes from the cache become float images on the training device.

The k-th batch of a run is a function of the seed and k alone, so a resumed run needs no loader state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zeuxis.data.dataset import Dataset
from zeuxis.recipe import DataOptions

__all__ = ["Batch", "Batches", "from_unit", "to_bytes", "to_unit"]


@dataclass(frozen=True)
class Batch:
    """Images and what is known of them.

    Attributes:
        images: `(B, C, H, W)` in the recipe's pixel range.
        labels: `(B,)` class indices, or None.
    """

    images: Tensor
    labels: Tensor | None


class Batches:
    """The training images in batches, shuffled anew each epoch; a last, smaller batch is left out.

    A GPU holds the bytes of a set that takes no more than a quarter of its free memory: it is then sent an epoch's
    order once, and no images.

    Args:
        dataset: where the images are.
        options: the recipe's data section.
        batch_size: images a batch; no more than there are.
        seed: of the order and of mirroring.
        device: where batches are put.
        resident: whether the images are held there; if None, where there is room.
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
    ) -> None:
        self.dataset, self.options, self.seed, self.device = dataset, options, seed, device
        self.batch_size = min(batch_size, len(dataset.train))
        self.per_epoch = len(dataset.train) // self.batch_size
        self._epoch = -1
        size = len(dataset.train) * math.prod(dataset.images.shape[1:])
        self._held: tuple[Tensor, Tensor | None] | None = None
        if resident if resident is not None else size <= _room(device):
            labels = None if dataset.labels is None else dataset.labels[dataset.train]
            self._held = (
                torch.from_numpy(dataset.images[dataset.train]).to(device),
                None if labels is None else torch.from_numpy(labels).to(device),
            )

    def __getitem__(self, k: int) -> Batch:
        """Returns the k-th batch of the run."""
        epoch, place = divmod(k, self.per_epoch)
        if self._epoch != epoch:
            places = np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset.train))
            self._order: Any = torch.from_numpy(places).to(self.device) if self._held else self.dataset.train[places]
            self._epoch = epoch
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        mirrored = None
        if self.options.flip:
            mirrored = np.random.default_rng([self.seed, epoch, place]).random(self.batch_size) < 0.5
        if self._held is None:
            return make_batch(self.dataset, self.options, chosen, self.device, mirrored)
        pixels, labels = self._held
        return _finished(pixels[chosen], None if labels is None else labels[chosen], self.options, mirrored)


def _room(device: torch.device) -> float:
    """Bytes of images that a device may hold beside a training; a CPU reads them where they are."""
    return torch.cuda.mem_get_info(device)[0] / 4 if device.type == "cuda" else 0


def make_batch(
    dataset: Dataset,
    options: DataOptions,
    indices: np.ndarray,
    device: torch.device,
    mirrored: np.ndarray | None = None,
) -> Batch:
    """Gathers images by index, moves their bytes to the device, and scales them there."""
    pixels = torch.from_numpy(dataset.images[indices]).to(device, non_blocking=True)
    labels = None
    if dataset.labels is not None:
        labels = torch.from_numpy(dataset.labels[indices]).to(device, non_blocking=True)
    return _finished(pixels, labels, options, mirrored)


def _finished(pixels: Tensor, labels: Tensor | None, options: DataOptions, mirrored: np.ndarray | None) -> Batch:
    """A batch from bytes `(B, H, W, C)` on its device."""
    if mirrored is not None:
        chosen = torch.from_numpy(mirrored).to(pixels.device, non_blocking=True)
        pixels = torch.where(chosen[:, None, None, None], pixels.flip(2), pixels)
    # (B, H, W, C) bytes seen as (B, C, H, W) are channels-last already, the layout convolutions like best.
    images = pixels.permute(0, 3, 1, 2).float() / 255
    if options.stored_size != options.size:
        images = F.interpolate(images, (options.size, options.size), mode="bilinear", antialias=True)
    return Batch(from_unit(images, options.range), labels)


def from_unit(images: Tensor, pixel_range: str) -> Tensor:
    """Scales images from 0..1 to the recipe's range."""
    return images * 2 - 1 if pixel_range == "-1..1" else images


def to_unit(images: Tensor, pixel_range: str) -> Tensor:
    """Scales images from the recipe's range to 0..1, clipped."""
    return ((images + 1) / 2 if pixel_range == "-1..1" else images).clamp(0, 1)


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Images in 0..1 as bytes, clipped; bytes as they are."""
    if images.dtype == np.uint8:
        return images
    rounded: np.ndarray = np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return rounded
