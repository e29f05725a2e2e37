r"""Kernels of our own for a CPU: convolutions that choose by shape how each of their passes is computed.

They are used by the layers of `zeuxis.nets.convolution` where the switch in `zeuxis.nets.backend` says so, and rest on
operations of PyTorch that are not public.

With a kernel w, stride s and padding p, a convolution carries a large image x to a small one y,

    y_i = sum_a w_a x_(s i + a - p),

and three maps, linear in both of their arguments, are all there is to it: *convolve* (x, w) to y, *spread* (y, w) to
x, which is what a transposed convolution does, and *correlate* (x, y) to w. The gradients of each are the other two:

| map | gradient of the first argument | of the second |
|---|---|---|
| convolve(x, w) | spread(g, w) | correlate(x, g) |
| spread(y, w) | convolve(g, w) | correlate(g, y) |
| correlate(x, y) | spread(y, g) | convolve(x, g) |

so they are differentiable as often as a gradient penalty likes. What is done otherwise than by PyTorch's own layers:

- spread to few channels, as at the end of a generator or at the image under a discriminator, and convolve to few at
  stride 1, go by taps: one matrix product for what each place gives to each tap, and the taps shifted and added. 2 to
  6 times as fast for 64 channels to 1 or 3. Correlate does so where the kernel is large: 3 times as fast for 7x7 with
  128 channels to 1.
- correlate, where the kernel holds far more numbers than y has places, is one matrix product: 3 to 3.5 times as fast
  at 4x4 with 512 to 1024 channels, in bfloat16 1.1 to 1.7 times at up to 8x8 with few dozen. Two threads of it share
  less than two of PyTorch's, whose time is up to twice as long on some machines for minutes on end.
- the gradient of a bias is a sum of its own, instead of one in the convolution: a transposed convolution's backward
  pass takes 0.5 to 0.6 of the time.

Measured on one core with AVX-512 in bfloat16; in float32 the order is the same.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Geometry", "convolve", "correlate", "spread"]

# Kernels with this many numbers for each place of the small image are correlated as a matrix product; in bfloat16
# those of small images with far fewer.
MANY, SOME, SMALL = 2**15, 2**8, 64
# Kernels from this size on, of few taps, are correlated tap by tap.
LARGE = 5


class Geometry(NamedTuple):
    """How the large image and the small one lie to each other; kernel, stride and padding are the same both ways."""

    kernel: int
    stride: int
    padding: int
    height: int
    width: int


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Large images `(B, C, H, W)` and a kernel `(O, C, k, k)` to small ones `(B, O, h, w)`, with a bias `(O,)`."""
    y: Tensor = _Convolve.apply(x, weight, bias, geometry)  # type: ignore[no-untyped-call]
    return y


def spread(y: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Small images `(B, O, h, w)` and a kernel `(O, C, k, k)` to large ones `(B, C, H, W)`, with a bias `(C,)`."""
    x: Tensor = _Spread.apply(y, weight, bias, geometry)  # type: ignore[no-untyped-call]
    return x


def correlate(x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
    """Large images `(B, C, H, W)` and small ones `(B, O, h, w)` to a kernel `(O, C, k, k)`."""
    weight: Tensor = _Correlate.apply(x, y, geometry)  # type: ignore[no-untyped-call]
    return weight


class _Map(torch.autograd.Function):
    """What the three maps share."""

    @staticmethod
    def wanted(ctx: Any) -> list[bool]:
        """Which of its tensors this backward pass needs gradients of: often fewer than could have one."""
        nodes = [node for node, _ in ctx.next_functions]
        return [node is not None and torch._C._will_engine_execute_node(node) for node in nodes]


class _Convolve(_Map):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        k, s, p, height, width = geometry
        if s == 1 and _few_taps(weight.shape[0], weight.shape[1], k):  # which spreads just as well
            mirrored = Geometry(k, 1, k - 1 - p, height + 2 * p - k + 1, width + 2 * p - k + 1)
            return _by_taps(x, weight.transpose(0, 1).flip(2, 3), bias, mirrored)
        return F.conv2d(_channels_last(x), weight, bias, s, p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        to_x, to_weight, *to_bias = _Convolve.wanted(ctx)
        return (
            spread(grad, weight, None, ctx.geometry) if to_x else None,
            correlate(x, grad, ctx.geometry) if to_weight else None,
            grad.sum((0, 2, 3)) if any(to_bias) else None,
            None,
        )


class _Spread(_Map):
    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(y, weight)
        ctx.geometry = geometry
        k, s, p, height, width = geometry
        if _few_taps(weight.shape[1], weight.shape[0], k):
            return _by_taps(y, weight, bias, geometry)
        extra = [side - ((small - 1) * s - 2 * p + k) for side, small in zip((height, width), y.shape[2:], strict=True)]
        return F.conv_transpose2d(_channels_last(y), weight, bias, s, p, extra)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        y, weight = ctx.saved_tensors
        to_y, to_weight, *to_bias = _Spread.wanted(ctx)
        return (
            convolve(grad, weight, None, ctx.geometry) if to_y else None,
            correlate(grad, y, ctx.geometry) if to_weight else None,
            grad.sum((0, 2, 3)) if any(to_bias) else None,
            None,
        )


class _Correlate(_Map):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.geometry = geometry
        k, s, p = geometry[:3]
        shape = (y.shape[1], x.shape[1], k, k)
        if s == 1 and k >= LARGE and _few_taps(shape[0], shape[1], k):
            return _tap_by_tap(x, y, geometry)
        places = math.prod(y.shape[2:])
        if math.prod(shape) >= places * (SOME if x.dtype == torch.bfloat16 and places <= SMALL else MANY):
            return _as_a_product(x, y, geometry)
        kernel = x.new_empty(shape).contiguous(memory_format=torch.channels_last)  # of which only the shape is read
        found: tuple[Any, Tensor, Any] = torch.ops.aten.convolution_backward(
            _channels_last(y),
            _channels_last(x),
            kernel,
            None,
            [s, s],
            [p, p],
            [1, 1],
            False,
            [0, 0],
            1,
            [False, True, False],
        )
        return found[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y = ctx.saved_tensors
        to_x, to_y = _Correlate.wanted(ctx)
        return (
            spread(y, grad, None, ctx.geometry) if to_x else None,
            convolve(x, grad, None, ctx.geometry) if to_y else None,
            None,
        )


def _channels_last(x: Tensor) -> Tensor:
    """Images of one channel lie both ways; PyTorch goes by their strides, and would put out channels first."""
    if x.shape[1] > 1:
        return x
    height, width = x.shape[2:]
    return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))


def _few_taps(given: int, seen: int, kernel: int) -> bool:
    """Whether all taps for the channels that are given are hardly more than the channels that they see."""
    return kernel > 1 and given * kernel**2 <= 2 * seen


def _by_taps(y: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Spread: what tap a makes of place i is for pixel s i + a - p: pixel r of place i + q, where a - p = s q + r."""
    k, s, p, height, width = geometry
    (batch, filters, h, w), channels = y.shape, weight.shape[1]
    taps = weight.permute(1, 2, 3, 0).reshape(-1, filters)
    given = (taps @ y.permute(0, 2, 3, 1).reshape(-1, filters).t()).view(channels, k, k, batch, h, w)
    first, last = -p // s, (k - 1 - p) // s
    rows, columns = max(h + last, -(-height // s)) - first, max(w + last, -(-width // s)) - first
    # Dozens of terms, which are added in float32 as in any product; pixels of the same r lie together.
    wide = torch.promote_types(y.dtype, torch.float32)
    sums = y.new_zeros((s, s, channels, batch, rows, columns), dtype=wide)
    if bias is not None:
        sums += bias[:, None, None, None]
    for i in range(k):
        for j in range(k):
            (down, below), (right, beside) = divmod(i - p, s), divmod(j - p, s)
            down, right = down - first, right - first
            sums[below, beside, :, :, down : down + h, right : right + w] += given[:, i, j]
    x = sums[..., -first : -first - (-height // s), -first : -first - (-width // s)]
    x = x.to(y.dtype).permute(3, 4, 0, 5, 1, 2).reshape(batch, -(-height // s) * s, -(-width // s) * s, channels)
    return x.permute(0, 3, 1, 2)[:, :, :height, :width].contiguous(memory_format=torch.channels_last)


def _tap_by_tap(x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
    """Correlate: place j of x, times what tap a let it give to, place j - a + p of y."""
    k, channels, filters = geometry.kernel, x.shape[1], y.shape[1]
    met = F.unfold(y, k, padding=k - 1 - geometry.padding)
    product = met.transpose(0, 1).reshape(met.shape[1], -1) @ x.permute(0, 2, 3, 1).reshape(-1, channels)
    return product.view(filters, k, k, channels).flip(1, 2).permute(0, 3, 1, 2)


def _as_a_product(x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
    """Correlate: the patches that a kernel sees, laid out as rows, times the small image."""
    k, s, p, height, width = geometry
    (batch, channels), (h, w) = x.shape[:2], y.shape[2:]
    below, right = max((h - 1) * s + k - height - p, 0), max((w - 1) * s + k - width - p, 0)
    padded = F.pad(x, (p, right, p, below)).permute(0, 2, 3, 1).contiguous()
    of_image, of_row, of_pixel, of_channel = padded.stride()
    laid = (of_image, of_row * s, of_pixel * s, of_row, of_pixel, of_channel)
    patches = padded.as_strided((batch, h, w, k, k, channels), laid).reshape(batch * h * w, k * k * channels)
    product = y.permute(0, 2, 3, 1).reshape(batch * h * w, -1).t() @ patches
    return product.view(-1, k, k, channels).permute(0, 3, 1, 2)
