r"""Judges that are fixed networks, chosen by name: in their features distances between images are measured.

Such a network was trained on other images, or not at all. It knows no class of the images that it judges, but it treats
every model alike, where a classifier of the images' own classes flatters a model that was trained on these classes.

Transparent images are judged on white. Before images reach a network that wants another size they are resized with
antialiasing, from 8-bit pixels, as G. Parmar, R. Zhang and J.-Y. Zhu argue in On Aliased Resizing and Surprising
Subtleties in GAN Evaluation, CVPR 2022. Images that are not square become square so, all of a set alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zeuxis.data import on_white
from zeuxis.errors import UserError, quoted
from zeuxis.nets import Shape
from zeuxis.recipe import Choice, Section
from zeuxis.registry import Registry
from zeuxis.threads import paced

__all__ = ["JUDGES", "FeatureJudge", "judge_by_name", "resized"]


class FeatureJudge(ABC):
    """A fixed network that turns images into features.

    Args:
        shape: channels, height and width of the images; 4 channels are judged as 3, on white.
        options: keyword arguments of `Options`.

    Attributes:
        Options: what may be asked for.
        main: the option that may stand behind the name, as in `efficientnet:96`.
        name: of the features; a distance means nothing without it.
        chunk: images at a time.
        rounds: whether its network takes bytes, to which images are rounded.
    """

    Options: ClassVar[type[Section]] = Section
    main: ClassVar[str] = ""
    chunk: ClassVar[int] = 64
    rounds: ClassVar[bool] = False
    name: str

    def __init__(self, shape: Shape, **options: Any) -> None:
        self.shape, self.options = (min(shape[0], 3), *shape[1:]), self.Options.model_validate(options)

    @abstractmethod
    def extract(self, pixels: Tensor) -> Tensor:
        """Returns features `(B, F)` of `(B, C, H, W)` pixels in 0..255, C being 1 or 3."""

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns features `(N, F)` of `(N, H, W, C)` images in 0..1, or of bytes."""
        parts = []
        with torch.no_grad():
            for i in paced(range(0, len(images), self.chunk), "judge"):
                chunk = np.asarray(images[i : i + self.chunk])
                pixels = torch.from_numpy(np.float32(chunk if chunk.dtype == np.uint8 else 255 * chunk.clip(0, 1)))
                parts.append(self.extract(on_white(pixels.permute(0, 3, 1, 2), 255)).float().numpy())
        return np.concatenate(parts)


JUDGES: Registry[type[FeatureJudge]] = Registry("judge", "zeuxis.evaluation")


def judge_by_name(text: str, shape: Shape) -> FeatureJudge:
    """Returns the judge that `NAME` or `NAME:VALUE` asks for, VALUE being its main option.

    Args:
        text: such as `"efficientnet"` or `"efficientnet:96"`.
        shape: channels, height and width of the images.

    Raises:
        UserError: for an unknown name, a wrong value, and a judge that cannot be had here.
    """
    name, _, value = text.partition(":")
    kind = JUDGES[name]
    if value and not kind.main:
        raise UserError(f"The judge '{name}' has no options; leave out ':{quoted(value)}'.")
    given = int(value) if value.isascii() and value.isdigit() else value
    choice = Choice.model_validate({"name": name} | ({kind.main: given} if value else {}))
    return kind(shape, **choice.read(kind.Options, f"The judge '{name}'", "").model_dump())


def resized(pixels: Tensor, size: int) -> Tensor:
    """Returns `(B, 3, size, size)` pixels of `(B, C, H, W)` pixels in 0..255; grey becomes colour."""
    if pixels.shape[2:] != (size, size):
        pixels = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
    return pixels.expand(-1, 3, -1, -1)
