"""The words a layer spec may use.

A spec is a word, its arguments and its options: `conv 64 k3 s2 nobias`. Shapes are `(C, H, W)` or `(N,)`.

Padding is "same" unless `valid` is said: a convolution at stride s gives ceil(in / s) pixels, a transposed
convolution in * s. With kernel k the latter needs p and q (output padding) in
`out = (in - 1) s - 2 p + k + q`, so `p = ceil((k - s) / 2)` and `q = 2 p - (k - s)`.

| spec | what it is |
|---|---|
| `dense N` | fully connected, N outputs |
| `conv N kK sS` | convolution, N filters |
| `deconv N kK sS` | transposed convolution |
| `res N kK` | residual block, N filters: twice a leaky ReLU and a convolution, added to the input |
| `up S` | nearest-neighbour up-sampling |
| `reshape CxHxW`, `flatten` | |
| `bn`, `ln` | batch and layer normalisation |
| `dropout P` | |
| `maxpool K`, `avgpool K`, `globalmax`, `globalavg` | |
| `relu`, `lrelu A`, `elu`, `silu`, `gelu`, `tanh`, `sigmoid`, `softmax` | |

Options: `kK`, `sS`, `nobias`, `valid`, and `sn` for spectral normalisation. A size may be a symbol of the
recipe: `dense latent`, `conv channels k3`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zeuxis.errors import UserError, nearest
from zeuxis.nets.convolution import Conv, Deconv

__all__ = ["ACTIVATIONS", "WEIGHTED", "WORDS", "Residual", "Shape", "make_layer", "require_parameters", "show"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Spec:
    """A layer spec, taken apart."""

    word: str
    arguments: tuple[str, ...]
    kernel: int
    stride: int
    flags: frozenset[str]
    symbols: Mapping[str, int]

    def size(self, default: int | None = None) -> int:
        """The first argument as a positive whole number or a symbol of the recipe."""
        if not self.arguments:
            if default is None:
                raise UserError(f"'{self.word}' needs a size, as in '{self.word} 64'")
            return default
        text = self.arguments[0]
        value = self.symbols.get(text, _whole(text))
        if value < 1:
            raise UserError(f"'{text}' is no size for '{self.word}'.{nearest(text, self.symbols)}")
        return value

    def number(self, default: float, low: float, high: float) -> float:
        """The first argument as a number in `low..high`."""
        if not self.arguments:
            return default
        try:
            value = float(self.arguments[0])
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise UserError(f"'{self.word}' takes a number from {low:g} to {high:g}, not '{self.arguments[0]}'")
        return value


# With gradients and Adam's moments they take 4 GiB; the largest recipe has 70 million.
MOST_PARAMETERS = 2**28
# Of one image at one place of a network: 256 MiB, for a batch as often.
MOST_VALUES = 2**26
# The largest kernel, and the largest stride.
WIDEST = 255
Made = tuple[nn.Module, Shape]
Maker = Callable[[Spec, Shape], Made]
WORDS: dict[str, Maker] = {}
# Those after which a network's `dropout` takes effect.
ACTIVATIONS = frozenset({"relu", "lrelu", "elu", "silu", "gelu", "tanh"})
# Those that a network's `spectral_norm` normalises.
WEIGHTED = frozenset({"dense", "conv", "deconv"})
# Options beyond a plain word, and the words that take them.
_OPTIONS = {
    "dense": {"nobias", "sn"},
    "conv": {"k", "s", "nobias", "valid", "sn"},
    "deconv": {"k", "s", "nobias", "sn"},
    "res": {"k"},
}


def make_layer(text: str, shape: Shape, symbols: Mapping[str, int]) -> Made:
    """Builds one layer.

    Args:
        text: the spec, such as `"conv 64 k3 s2"`.
        shape: shape of its input without the batch dimension.
        symbols: sizes that may be written by name.

    Returns:
        The module and the shape of its output.

    Raises:
        UserError: for a wrong word, option or size, or an input of the wrong shape.
    """
    word, *rest = text.split() or [""]
    if word not in WORDS:
        raise UserError(f"there is no layer '{word}'.{nearest(word, WORDS)}")
    allowed = _OPTIONS.get(word, set())
    arguments, flags, numbers = [], set(), {"k": 0, "s": 1}
    for part in rest:
        number = _whole(part[1:])
        if part[0] in allowed & {"k", "s"} and number:
            if number > WIDEST:
                raise UserError(f"a kernel or stride is at most {WIDEST}, not {number}")
            numbers[part[0]] = number
        elif part in allowed:
            flags.add(part)
        else:
            arguments.append(part)
    if len(arguments) > 1:
        raise UserError(f"'{arguments[1]}' is no option of '{word}'.{nearest(arguments[1], allowed or {'none'})}")
    if "k" in allowed and not numbers["k"]:
        raise UserError(f"'{word}' needs a kernel size, as in '{word} 64 k3'")
    spec = Spec(word, tuple(arguments), numbers["k"], numbers["s"], frozenset(flags), symbols)
    with torch.device("meta"):  # to see its size before it takes any memory
        planned, out = WORDS[word](spec, shape)
    if min(out) < 1:
        raise UserError(f"nothing is left of a {show(shape)} input")
    if math.prod(out) > MOST_VALUES:
        raise UserError(f"an output of {show(out)} is too large: an image may have {MOST_VALUES:,} values")
    require_parameters(sum(p.numel() for p in planned.parameters()))
    module, _ = WORDS[word](spec, shape)
    if "sn" in flags:  # a layer that needs padding or cutting is a pair with it
        inner = [m for m in (module, *module.children()) if hasattr(m, "weight")]
        nn.utils.parametrizations.spectral_norm(inner[0])
    return module, out


def require_parameters(count: int) -> None:
    """Raises a `UserError` where a layer, or a network, has more parameters than can be trained."""
    if count > MOST_PARAMETERS:
        raise UserError(f"{count:,} parameters are more than the {MOST_PARAMETERS:,} that a network may have")


def show(shape: Shape) -> str:
    """`28x28x1` for an image shape `(1, 28, 28)`, `100` for a vector."""
    return "x".join(map(str, (*shape[1:], shape[0])))


def _word(name: str) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        WORDS[name] = maker
        return maker

    return register


def _whole(text: str) -> int:
    """A whole number above 0 in plain digits; 0 for anything else, and where it is larger than any size."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def _vector(shape: Shape, word: str) -> int:
    if len(shape) != 1:
        raise UserError(f"'{word}' needs a vector but meets {show(shape)}; put 'flatten' before it")
    return shape[0]


def _image(shape: Shape, word: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise UserError(f"'{word}' needs an image but meets a vector of {shape[0]}; put 'reshape CxHxW' before it")
    return shape[0], shape[1], shape[2]


@_word("dense")
def _dense(spec: Spec, shape: Shape) -> Made:
    out = spec.size()
    return nn.Linear(_vector(shape, "dense"), out, bias="nobias" not in spec.flags), (out,)


@_word("conv")
def _conv(spec: Spec, shape: Shape) -> Made:
    channels, *sides = _image(shape, "conv")
    filters, k, s = spec.size(), spec.kernel, spec.stride
    bias = "nobias" not in spec.flags
    if "valid" in spec.flags:
        out = [(side - k) // s + 1 for side in sides]
        return Conv(channels, filters, k, s, bias=bias), (filters, *out)
    out = [math.ceil(side / s) for side in sides]
    # A symmetric padding that gives ceil(in / s) is built into the convolution; an even kernel may have
    # none, and is padded one pixel more at the far side, as TensorFlow does.
    for padding in ((k - 1) // 2, k // 2):
        if all((side + 2 * padding - k) // s + 1 == o for side, o in zip(sides, out, strict=True)):
            return Conv(channels, filters, k, s, padding, bias=bias), (filters, *out)
    pads = [max((o - 1) * s + k - side, 0) for side, o in zip(sides, out, strict=True)]
    (top, left) = (pad // 2 for pad in pads)
    pad = nn.ZeroPad2d((left, pads[1] - left, top, pads[0] - top))
    return nn.Sequential(pad, Conv(channels, filters, k, s, bias=bias)), (filters, *out)


@_word("deconv")
def _deconv(spec: Spec, shape: Shape) -> Made:
    channels, height, width = _image(shape, "deconv")
    filters, k, s = spec.size(), spec.kernel, spec.stride
    padding = max(math.ceil((k - s) / 2), 0)
    extra = 2 * padding - (k - s)
    bias, out = "nobias" not in spec.flags, (filters, height * s, width * s)
    if extra >= s:  # an even kernel at stride 1, for which torch allows no output padding: one pixel is cut off
        whole = Deconv(channels, filters, k, s, padding - 1, bias=bias)
        return nn.Sequential(whole, nn.ZeroPad2d((0, -1, 0, -1))), out
    return Deconv(channels, filters, k, s, padding, extra, bias=bias), out


class Residual(nn.Module):
    """`x + conv(lrelu(conv(lrelu(x))))`, with a 1x1 convolution on the shortcut where the channels change.

    No normalisation: the last convolution begins at zero instead. Source: K. He et al., Identity Mappings in
    Deep Residual Networks, ECCV 2016, figure 4e; H. Zhang, Y. N. Dauphin and T. Ma, Fixup, ICLR 2019 (the zeros).
    """

    def __init__(self, channels: int, filters: int, kernel: int) -> None:
        super().__init__()
        self.first = Conv(channels, filters, kernel, padding=kernel // 2)
        self.last = Conv(filters, filters, kernel, padding=kernel // 2, bias=False)
        self.shortcut = Conv(channels, filters, 1, bias=False) if channels != filters else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(nn.functional.leaky_relu(x, 0.2))
        joined: Tensor = self.shortcut(x) + self.last(nn.functional.leaky_relu(inner, 0.2))
        return joined


@_word("res")
def _res(spec: Spec, shape: Shape) -> Made:
    channels, height, width = _image(shape, "res")
    if spec.kernel % 2 == 0:
        raise UserError(f"'res' needs an odd kernel size, not {spec.kernel}")
    return Residual(channels, spec.size(), spec.kernel), (spec.size(), height, width)


@_word("up")
def _up(spec: Spec, shape: Shape) -> Made:
    channels, height, width = _image(shape, "up")
    scale = spec.size(2)
    return nn.Upsample(scale_factor=scale), (channels, height * scale, width * scale)


@_word("reshape")
def _reshape(spec: Spec, shape: Shape) -> Made:
    parts = (spec.arguments or ("",))[0].split("x")
    sizes = [spec.symbols.get(part, _whole(part)) for part in parts]
    if len(sizes) != 3 or min(sizes) < 1:
        raise UserError("'reshape' needs channels x height x width, as in 'reshape 128x8x8'")
    if math.prod(sizes) != math.prod(shape):
        given = "x".join(map(str, sizes))
        raise UserError(f"'reshape {given}' holds {math.prod(sizes)} values but meets {math.prod(shape)}")
    return Reshape(tuple(sizes)), tuple(sizes)


class Reshape(nn.Module):
    """`(B, *)` to `(B, C, H, W)`, channels last in memory as convolutions will have it: 3 % of a GAN's step."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.shape).contiguous(memory_format=torch.channels_last)


@_word("flatten")
def _flatten(spec: Spec, shape: Shape) -> Made:
    return Flatten(), (math.prod(shape),)


class Flatten(nn.Module):
    """`(B, *)` to `(B, N)`; the gradient of an image comes back in the image's layout."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and x.dim() == 4:
            x = x.view_as(x)  # so that the hook goes with this pass, and does not stay on somebody's images
            x.register_hook(lambda grad: grad.contiguous(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]
        return x.flatten(1)


@_word("bn")
def _bn(spec: Spec, shape: Shape) -> Made:
    return (nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d)(shape[0]), shape


@_word("ln")
def _ln(spec: Spec, shape: Shape) -> Made:
    # One group over all channels and positions: layer normalisation with a gain and a bias per channel.
    return nn.GroupNorm(1, shape[0]), shape


@_word("dropout")
def _dropout(spec: Spec, shape: Shape) -> Made:
    return Dropout(spec.number(0.5, 0, 0.99)), shape


class Dropout(nn.Dropout):
    """Dropout that on a CPU takes a byte of randomness an element: the probability is rounded to a multiple of 1/256.

    PyTorch draws a number an element and walks channels-last tensors against their layout: 32x64x14x14 took 21 ms
    forwards and backwards in float32 and 4.3 ms in bfloat16, on one core, where this takes 1.2 ms in both.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(256 * self.p)
        if not self.training or not dropped or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        laid = torch.empty_like(x, device="meta").stride()
        kept = words.view(torch.uint8)[: x.numel()].as_strided(x.shape, laid) >= dropped
        return x * kept.to(x.dtype).mul_(256 / (256 - dropped))


def _pool(kind: type[nn.MaxPool2d] | type[nn.AvgPool2d]) -> Maker:
    def make(spec: Spec, shape: Shape) -> Made:
        channels, height, width = _image(shape, spec.word)
        k = spec.size(2)
        return kind(k), (channels, height // k, width // k)

    return make


WORDS["maxpool"] = _pool(nn.MaxPool2d)
WORDS["avgpool"] = _pool(nn.AvgPool2d)


class GlobalPool(nn.Module):
    """Maximum or mean over positions, `(B, C, H, W)` to `(B, C)`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return torch.amax(x, dim=(2, 3)) if self.kind == "max" else x.mean(dim=(2, 3))


@_word("globalmax")
def _globalmax(spec: Spec, shape: Shape) -> Made:
    return GlobalPool("max"), (_image(shape, "globalmax")[0],)


@_word("globalavg")
def _globalavg(spec: Spec, shape: Shape) -> Made:
    return GlobalPool("mean"), (_image(shape, "globalavg")[0],)


@_word("lrelu")
def _lrelu(spec: Spec, shape: Shape) -> Made:
    return nn.LeakyReLU(spec.number(0.2, 0, 1)), shape


@_word("softmax")
def _softmax(spec: Spec, shape: Shape) -> Made:
    return nn.Softmax(dim=1), shape


def _activation(kind: type[nn.Module]) -> Maker:
    return lambda spec, shape: (kind(), shape)


for _name, _kind in {
    "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
}.items():  # fmt: skip
    WORDS[_name] = _activation(_kind)
