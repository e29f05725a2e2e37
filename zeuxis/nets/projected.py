r"""A discriminator that sees images through a network trained on photographs: the word `projected`.

A discriminator that starts from nothing must first learn what an edge or an eye is. This one is given the maps of
EfficientNet-Lite0 (`zeuxis.nets.photographs`), which nothing trains, and learns only to judge them. It would look at a
few easy maps and neglect the others, so two fixed random projections mix them first:

- across channels: f_l' = W_l f_l for the map f_l of stage l, with a random 1x1 convolution W_l;
- across scales, from the coarsest stage to the finest: g_l = V_l * (f_l' + U_l up(g_{l+1})), with random convolutions;
  g is f' at the coarsest.

They are the same in every run, so runs do not hold them.

Each g_l has a small discriminator of its own, which gives one score; the losses are means over scores and samples. With
a condition c, a score is the product of the last features with the embedding of c. The paper shows the network images
of 256 pixels, and leaves out the finest stage. Smaller ones need that stage: without it, nothing sees single pixels,
and generated images are hatched.

Sources: A. Sauer, K. Chitta, J. Mueller and A. Geiger, Projected GANs Converge Faster, NeurIPS 2021 (sections 3 and 4;
EfficientNet-Lite is its choice too); T. Miyato and M. Koyama, cGANs with Projection Discriminator, ICLR 2018.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from zeuxis.errors import UserError
from zeuxis.nets.context import Context
from zeuxis.nets.layers import Made, Shape, Spec, image_shape, layer
from zeuxis.nets.photographs import CHANNELS, STRIDES, stages

__all__ = ["Projected"]

# Sides of the images that the network may be shown: multiples of the first up to the second, for which it was trained.
STEP, LARGEST = 32, 224


class Projected(nn.Module):
    """Scores of `(B, C, H, W)` images by five small discriminators, `(B, 5)`.

    Args:
        side: images are resized to so many pixels a side before the network sees them.
        filters: channels of the finest projected map; doubled at each coarser stage.
        width: of the embedding; 0 where there is no condition.
        low: lowest value of a pixel; the highest is 1.
    """

    def __init__(self, side: int, filters: int, width: int, low: float) -> None:
        super().__init__()
        self.side, self.low = side, low
        widths = [filters * 2**i for i in range(len(CHANNELS))]
        self.stages = len(widths)
        fixed = {
            f"mix{i}": (size, channels, 1) for i, (channels, size) in enumerate(zip(CHANNELS, widths, strict=True))
        }
        for i, (fine, coarse) in enumerate(pairwise(widths)):
            fixed |= {f"pass{i}": (fine, coarse, 1), f"smooth{i}": (fine, fine, 3)}
        numbers = np.random.RandomState(0)  # whose numbers no version of NumPy changes
        for name, shape in fixed.items():
            self.register_buffer(name, _random(numbers, *shape), persistent=False)
        self.judges = nn.ModuleList(
            Judge(size, math.ceil(side / stride), width) for size, stride in zip(widths, STRIDES, strict=True)
        )

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = (x.float() - self.low) / (1 - self.low)
        if x.shape[2:] != (self.side, self.side):
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=x.shape[-1] > self.side)
        maps = [F.conv2d(x, self.get_buffer(f"mix{i}")) for i, x in enumerate(stages(x))]
        for i in reversed(range(self.stages - 1)):
            coarse = F.conv2d(maps[i + 1], self.get_buffer(f"pass{i}"))
            mixed = maps[i] + F.interpolate(coarse, maps[i].shape[2:], mode="bilinear")
            maps[i] = F.conv2d(mixed / math.sqrt(2), self.get_buffer(f"smooth{i}"), padding=1)
        scores = [judge(x, context.embedding) for judge, x in zip(self.judges, maps, strict=True)]
        return torch.cat(scores, dim=1)


class Judge(nn.Module):
    """The discriminator of one stage: halves its map until four positions a side are left, and scores what it finds.

    Args:
        channels: C of the map, `(B, C, S, S)`.
        side: S.
        width: of the embedding; 0 where there is no condition.
    """

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while side > 4:
            layers += [spectral_norm(nn.Conv2d(channels, channels, 4, 2, 1, bias=False))]
            layers += [nn.BatchNorm2d(channels), nn.LeakyReLU(0.2)]
            side //= 2
        self.down = nn.Sequential(*layers)
        self.features = width or 1
        self.last = spectral_norm(nn.Conv2d(channels, self.features, side, bias=False))

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        found: Tensor = self.last(self.down(x)).flatten(1)
        if embedding is None:
            return found
        return (found * embedding).sum(dim=1, keepdim=True) / math.sqrt(self.features)


def _random(numbers: np.random.RandomState, outputs: int, inputs: int, kernel: int) -> Tensor:
    """Returns random weights of a convolution that keeps the variance of its input."""
    weights = numbers.standard_normal((outputs, inputs, kernel, kernel)) / math.sqrt(inputs * kernel**2)
    return torch.from_numpy(weights.astype(np.float32))


@layer("projected", "s", "unit", embeds=True)
def _projected(spec: Spec, shape: Shape) -> Made:
    _, *sides = image_shape(shape, "projected")
    fitting = min(max(-(-max(sides) // STEP), 2) * STEP, LARGEST)
    side = spec.numbers.get("s", fitting)
    if not STEP <= side <= LARGEST or side % STEP:
        raise UserError(f"'projected' shows images at a side that is a multiple of {STEP} up to {LARGEST}, not {side}")
    module = Projected(side, spec.size(32), spec.embedding, 0.0 if "unit" in spec.flags else -1.0)
    return module, (module.stages,)
