r"""PyTorch's convolution layers, which on a CPU may use the package's own kernels (`zeuxis.nets.backend`).

Nearest-neighbour upsampling by s and a convolution after it are one transposed convolution of stride s: with
u_m = x_(m // s), an output o is sum_a w_a u_(o + a - p), and pixel j of x adds to it wherever o = s j + t - a + p for a
t in 0..s-1. All (t, a) with the same t - a share a tap, so the kernel has side k + s - 1, and a position of x costs
(k + s - 1)^2 products where it cost (s k)^2: 36 for 100 at a 5x5 kernel and s = 2.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from zeuxis.nets.backend import own_kernels
from zeuxis.nets.kernels import Geometry, convolve, spread

__all__ = ["Conv", "Deconv", "Upsample"]


class Conv(nn.Conv2d):
    """A convolution with a square kernel.

    Attributes:
        enlarges: the scale of an `Upsample` before it, which it computes as well; 1 if there is none.
    """

    enlarges = 1

    def forward(self, x: Tensor) -> Tensor:
        if not own_kernels(x):
            return super().forward(x)
        k, s, p = self.kernel_size[0], self.stride[0], int(self.padding[0])
        if self.enlarges > 1:
            x, weight, bias = _cast(x, _enlarging(self.weight, self.enlarges), self.bias)
            sides = [side * self.enlarges - k + 1 + 2 * p for side in x.shape[2:]]
            return spread(x, weight, bias, Geometry(k + self.enlarges - 1, self.enlarges, k - 1 - p, *sides))
        x, weight, bias = _cast(x, self.weight, self.bias)
        return convolve(x, weight, bias, Geometry(k, s, p, *x.shape[2:]))


class Upsample(nn.Upsample):
    """Nearest-neighbour upsampling by S, `(B, C, H, W)` to `(B, C, S H, S W)`.

    Attributes:
        left: whether it is left to the convolution after it, where the package's own kernels are used.
    """

    left = False

    def __init__(self, scale: int) -> None:
        super().__init__(scale_factor=scale)
        self.scale = scale

    def before(self, after: nn.Module) -> None:
        """Leaves the upsampling to the layer after it if that can compute both at once."""
        if isinstance(after, Conv) and after.stride[0] == 1 and after.kernel_size[0] > 1:
            self.left, after.enlarges = True, self.scale

    def forward(self, x: Tensor) -> Tensor:
        return x if self.left and own_kernels(x) else super().forward(x)


class Deconv(nn.ConvTranspose2d):
    """A transposed convolution with a square kernel."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not own_kernels(x):
            return super().forward(x, output_size)
        x, weight, bias = _cast(x, self.weight, self.bias)
        k, s, p, extra = self.kernel_size[0], self.stride[0], int(self.padding[0]), self.output_padding[0]
        sides = [(side - 1) * s - 2 * p + k + extra for side in x.shape[2:]]
        return spread(x, weight, bias, Geometry(k, s, p, *sides))


def _enlarging(weight: Tensor, scale: int) -> Tensor:
    """Turns a convolution's kernel, `(O, C, k, k)`, into the transposed one's, `(C, O, k + s - 1, k + s - 1)`."""
    outputs, inputs, k, _ = weight.shape
    taps = weight.flatten(2) @ _shared_taps(k, scale).to(weight)
    return taps.view(outputs, inputs, k + scale - 1, k + scale - 1).transpose(0, 1)


@cache
def _shared_taps(kernel: int, scale: int) -> Tensor:
    """Returns which taps of a kernel each tap of the transposed one sums, `(k^2, (k + s - 1)^2)` of ones and zeros."""
    side = kernel + scale - 1
    one = torch.zeros(kernel, side)
    for a in range(kernel):
        one[a, kernel - 1 - a : side - a] = 1
    return torch.kron(one, one)


def _cast(*tensors: Tensor | None) -> Any:
    """Casts tensors as autocast asks, if it is enabled, and replaces leaves of the graph by views.

    The reason for the views: the autograd engine does not say of a leaf whether a backward pass needs its gradient.
    """
    reduced = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")
    cast = (t.to(dtype) if t is not None and reduced else t for t in tensors)
    return tuple(t.view_as(t) if t is not None and t.requires_grad and t.is_leaf else t for t in cast)
