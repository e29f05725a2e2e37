r"""CPU kernels for convolutions, which choose by shape how to compute each pass.

The layers of `zeuxis.nets.convolution` use them if the switch in `zeuxis.nets.backend` is on. They rest on operations
of PyTorch that are not public.

With a kernel w, stride s and padding p, a convolution maps a large image x to a small one y,

    y_i = sum_a w_a x_(s i + a - p).

Everything is built from three maps, each linear in both arguments: *convolve* takes (x, w) to y; *spread*, the
transposed convolution, takes (y, w) to x; *correlate* takes (x, y) to w. The gradients of each are the other two:

| map | gradient of the first argument | of the second |
|---|---|---|
| convolve(x, w) | spread(g, w) | correlate(x, g) |
| spread(y, w) | convolve(g, w) | correlate(g, y) |
| correlate(x, y) | spread(y, g) | convolve(x, g) |

so all can be differentiated any number of times, as gradient penalties need. The differences from PyTorch's own layers:

- Few output channels: spread (the end of a generator, or the image gradient of a discriminator) and convolve at stride
  1 go by taps. One matrix product computes the contribution of every position to every tap; the taps are then shifted
  and added. 2 to 6 times as fast for 64 channels to 1 or 3. Correlate does the same for large kernels: 3 times as fast
  for 7x7 with 128 channels to 1.
- Correlate is one matrix product where the kernel holds far more numbers than y has positions: 3 to 3.5 times as fast
  at 4x4 with 512 to 1024 channels; in bfloat16 1.1 to 1.7 times at up to 8x8 with a few dozen channels. Two threads of
  it share less than two of PyTorch's, whose time is up to twice as long on some machines for minutes on end.
- Spread is one matrix product where the kernel holds far more numbers than there are positions, and each position's
  window is added where it lands: a single 64x64 sample of a generator that begins with 1024 channels takes 0.75 of the
  time. PyTorch would first copy the whole kernel into another layout. Batches of 128 at 4x4 take half of the time in
  bfloat16 with matrix units, and 0.4 to 0.9 of it in float32.
- Fixed filters, one for each channel, as in a network that is only looked through: the gradient of the image is again
  such a convolution, with mirrored filters, of y with zeros between its positions. A pass there and back through
  EfficientNet-Lite0 takes 0.4 of the time in bfloat16 and 0.65 in float32.
- The gradient of a bias is computed as a separate sum, not in the convolution: a transposed convolution's backward pass
  takes 0.5 to 0.6 of the time.

Measured on one core with AVX-512 in bfloat16; the ranking in float32 is the same.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Geometry", "convolve", "correlate", "filter_each", "spread"]

# Spread is a matrix product for kernels with at least so many numbers for each position of the whole batch, and
# correlate for each position of the small image, in bfloat16 also for images of at most SMALL positions: SEVERAL with
# matrix units, MORE in float32, MANY otherwise.
MANY, MORE, SEVERAL, SMALL = 2**15, 2**12, 1500, 64
# Correlate goes tap by tap for kernels of few taps from this size on.
LARGE = 5


class Geometry(NamedTuple):
    """How the large image (height, width) maps to the small one; the same numbers serve in both directions."""

    kernel: int
    stride: int
    padding: int
    height: int
    width: int


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Maps large images `(B, C, H, W)` and a kernel `(O, C, k, k)` to small ones `(B, O, h, w)`; adds a bias `(O,)`."""
    y: Tensor = _Convolve.apply(x, weight, bias, geometry)  # type: ignore[no-untyped-call]
    return y


def spread(y: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Maps small images `(B, O, h, w)` and a kernel `(O, C, k, k)` to large ones `(B, C, H, W)`; adds a bias `(C,)`."""
    x: Tensor = _Spread.apply(y, weight, bias, geometry)  # type: ignore[no-untyped-call]
    return x


def correlate(x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
    """Maps large images `(B, C, H, W)` and small ones `(B, O, h, w)` to a kernel `(O, C, k, k)`."""
    weight: Tensor = _Correlate.apply(x, y, geometry)  # type: ignore[no-untyped-call]
    return weight


def filter_each(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Filters each channel of images `(B, C, H, W)` on its own, by fixed kernels `(C, 1, k, k)`; adds a bias `(C,)`."""
    y: Tensor = _FilterEach.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return y


class _Map(torch.autograd.Function):
    """Base of the three maps."""

    @staticmethod
    def needs_gradients(ctx: Any) -> list[bool]:
        """Returns, for each input, whether this backward pass needs its gradient; often few of them do."""
        nodes = [node for node, _ in ctx.next_functions]
        return [node is not None and torch._C._will_engine_execute_node(node) for node in nodes]


class _Convolve(_Map):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        k, s, p, height, width = geometry
        if s == 1 and _few_taps(weight.shape[0], weight.shape[1], k):  # equals a spread with the mirrored kernel
            mirrored = Geometry(k, 1, k - 1 - p, height + 2 * p - k + 1, width + 2 * p - k + 1)
            return _by_taps(x, weight.transpose(0, 1).flip(2, 3), bias, mirrored)
        return F.conv2d(_channels_last(x), weight, bias, s, p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        to_x, to_weight, *to_bias = _Convolve.needs_gradients(ctx)
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
        if weight.numel() >= y.shape[0] * math.prod(y.shape[2:]) * _enough(y.dtype):
            return _by_positions(y, weight, bias, geometry)
        extra = [side - ((small - 1) * s - 2 * p + k) for side, small in zip((height, width), y.shape[2:], strict=True)]
        return F.conv_transpose2d(_channels_last(y), weight, bias, s, p, extra)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        y, weight = ctx.saved_tensors
        to_y, to_weight, *to_bias = _Spread.needs_gradients(ctx)
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
        positions = math.prod(y.shape[2:])
        if math.prod(shape) >= positions * (SEVERAL if x.dtype == torch.bfloat16 and positions <= SMALL else MANY):
            return _as_a_product(x, y, geometry)
        kernel = x.new_empty(shape).contiguous(memory_format=torch.channels_last)  # only its shape is read
        gradients: tuple[Any, Tensor, Any] = torch.ops.aten.convolution_backward(
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
        return gradients[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y = ctx.saved_tensors
        to_x, to_y = _Correlate.needs_gradients(ctx)
        return (
            spread(y, grad, None, ctx.geometry) if to_x else None,
            convolve(x, grad, None, ctx.geometry) if to_y else None,
            None,
        )


class _FilterEach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.sides = stride, padding, x.shape[2:]
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        k, s, (height, width) = weight.shape[-1], ctx.stride, ctx.sides
        first, (batch, channels, h, w) = k - 1 - ctx.padding, grad.shape
        if s == 1 and (h, w) == (height, width):
            return F.conv2d(grad, weight.flip(2, 3), None, 1, first, groups=channels), None, None, None, None
        apart = grad.new_zeros((batch, height + k - 1, width + k - 1, channels)).permute(0, 3, 1, 2)
        apart[:, :, first : first + (h - 1) * s + 1 : s, first : first + (w - 1) * s + 1 : s] = grad
        return F.conv2d(apart, weight.flip(2, 3), groups=len(weight)), None, None, None, None


def _enough(dtype: torch.dtype) -> int:
    """Returns for how many numbers of the kernel a position of the batch is spread by a matrix product."""
    if dtype != torch.bfloat16:
        return MORE
    return SEVERAL if torch.cpu._is_amx_tile_supported() else MANY


def _channels_last(x: Tensor) -> Tensor:
    """Sets channels-last strides on images of one channel, so that PyTorch gives its output in channels-last layout."""
    if x.shape[1] > 1:
        return x
    height, width = x.shape[2:]
    return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))


def _few_taps(outputs: int, inputs: int, kernel: int) -> bool:
    """Returns whether the taps of all output channels number at most twice the input channels."""
    return kernel > 1 and outputs * kernel**2 <= 2 * inputs


def _by_taps(y: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Spread: tap a of position i adds to pixel s i + a - p, which is pixel r of block i + q, where a - p = s q + r."""
    k, s, p, height, width = geometry
    (batch, filters, h, w), channels = y.shape, weight.shape[1]
    taps = weight.permute(1, 2, 3, 0).reshape(-1, filters)
    products = (taps @ y.permute(0, 2, 3, 1).reshape(-1, filters).t()).view(channels, k, k, batch, h, w)
    first, last = -p // s, (k - 1 - p) // s
    rows, columns = max(h + last, -(-height // s)) - first, max(w + last, -(-width // s)) - first
    # Dozens of terms are added, so in float32 as in any matrix product; pixels of the same r are adjacent in memory.
    wide = torch.promote_types(y.dtype, torch.float32)
    sums = y.new_zeros((s, s, channels, batch, rows, columns), dtype=wide)
    if bias is not None:
        sums += bias[:, None, None, None]
    for i in range(k):
        for j in range(k):
            (down, below), (right, beside) = divmod(i - p, s), divmod(j - p, s)
            down, right = down - first, right - first
            sums[below, beside, :, :, down : down + h, right : right + w] += products[:, i, j]
    x = sums[..., -first : -first - (-height // s), -first : -first - (-width // s)]
    x = x.to(y.dtype).permute(3, 4, 0, 5, 1, 2).reshape(batch, -(-height // s) * s, -(-width // s) * s, channels)
    return _images(x[:, :height, :width], y.dtype)


def _by_positions(y: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Spread: one matrix product gives the window that each position adds to the large image."""
    k, s, p, height, width = geometry
    (batch, filters, h, w), channels = y.shape, weight.shape[1]
    windows = y.permute(0, 2, 3, 1).reshape(-1, filters) @ weight.permute(0, 2, 3, 1).reshape(filters, -1)
    windows = windows.view(batch, h, w, k, k, channels)
    down, across = (h - 1) * s + 1, (w - 1) * s + 1
    sides = max(down + k - 1, p + height), max(across + k - 1, p + width)
    sums = y.new_zeros((batch, *sides, channels), dtype=torch.promote_types(y.dtype, torch.float32))
    for i in range(k):
        for j in range(k):
            sums[:, i : i + down : s, j : j + across : s] += windows[:, :, :, i, j]
    x = sums[:, p : p + height, p : p + width]
    return _images(x if bias is None else x + bias, y.dtype)


def _images(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns `(B, H, W, C)` as images of their own, `(B, C, H, W)`: a layer after it may work on them in place."""
    batch, height, width, channels = x.shape
    images = torch.empty((batch, channels, height, width), dtype=dtype, memory_format=torch.channels_last)
    return images.copy_(x.permute(0, 3, 1, 2))


def _tap_by_tap(x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
    """Correlate: for tap a, multiplies position j of x by position j - a + p of y and sums over j."""
    k, channels, filters = geometry.kernel, x.shape[1], y.shape[1]
    shifted = F.unfold(y, k, padding=k - 1 - geometry.padding)
    product = shifted.transpose(0, 1).reshape(shifted.shape[1], -1) @ x.permute(0, 2, 3, 1).reshape(-1, channels)
    return product.view(filters, k, k, channels).flip(1, 2).permute(0, 3, 1, 2)


def _as_a_product(x: Tensor, y: Tensor, geometry: Geometry) -> Tensor:
    """Correlate: the matrix of patches under the kernel, one a row, times the small image."""
    k, s, p, height, width = geometry
    (batch, channels), (h, w) = x.shape[:2], y.shape[2:]
    below, right = max((h - 1) * s + k - height - p, 0), max((w - 1) * s + k - width - p, 0)
    padded = F.pad(x, (p, right, p, below)).permute(0, 2, 3, 1).contiguous()
    of_image, of_row, of_pixel, of_channel = padded.stride()
    strides = (of_image, of_row * s, of_pixel * s, of_row, of_pixel, of_channel)
    patches = padded.as_strided((batch, h, w, k, k, channels), strides).reshape(batch * h * w, k * k * channels)
    product = y.permute(0, 2, 3, 1).reshape(batch * h * w, -1).t() @ patches
    return product.view(-1, k, k, channels).permute(0, 3, 1, 2)
