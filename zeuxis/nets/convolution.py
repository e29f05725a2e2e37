"""PyTorch's convolution layers, which on a CPU may use the package's own kernels (`zeuxis.nets.backend`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zeuxis.nets.backend import own_kernels
from zeuxis.nets.kernels import Geometry, convolve, spread

__all__ = ["Conv", "Deconv"]


class Conv(nn.Conv2d):
    """A convolution with a square kernel."""

    def forward(self, x: Tensor) -> Tensor:
        if not own_kernels(x):
            return super().forward(x)
        x, weight, bias = _cast(x, self.weight, self.bias)
        geometry = Geometry(self.kernel_size[0], self.stride[0], int(self.padding[0]), *x.shape[2:])
        return convolve(x, weight, bias, geometry)


class Deconv(nn.ConvTranspose2d):
    """A transposed convolution with a square kernel."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not own_kernels(x):
            return super().forward(x, output_size)
        x, weight, bias = _cast(x, self.weight, self.bias)
        k, s, p, extra = self.kernel_size[0], self.stride[0], int(self.padding[0]), self.output_padding[0]
        sides = [(side - 1) * s - 2 * p + k + extra for side in x.shape[2:]]
        return spread(x, weight, bias, Geometry(k, s, p, *sides))


def _cast(*tensors: Tensor | None) -> Any:
    """Casts tensors as autocast asks, if it is enabled, and replaces leaves of the graph by views.

    The reason for the views: the autograd engine does not say of a leaf whether a backward pass needs its gradient.
    """
    reduced = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")
    cast = (t.to(dtype) if t is not None and reduced else t for t in tensors)
    return tuple(t.view_as(t) if t is not None and t.requires_grad and t.is_leaf else t for t in cast)
