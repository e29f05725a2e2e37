"""The words of layer specs.

A spec is a word followed by arguments and options: `conv 64 k3 s2 nobias`. Shapes are `(C, H, W)` or `(N,)`.

Padding is "same" unless `valid` is given: a convolution of stride s outputs ceil(in / s) pixels, a transposed
convolution in * s. For kernel k, the transposed convolution needs a padding p and an output padding q with
`out = (in - 1) s - 2 p + k + q`, so `p = ceil((k - s) / 2)` and `q = 2 p - (k - s)`.

| spec | layer |
|---|---|
| `dense N` | fully connected, N outputs |
| `conv N kK sS` | convolution, N filters |
| `deconv N kK sS` | transposed convolution |
| `res N kK` | residual block, N filters: leaky ReLU and convolution, twice, added to the input |
| `res N kK gn` | the same with group normalisation and SiLU before each convolution; with `film`, also modulated |
| `film` | scales and shifts every channel by the embedding of time and condition |
| `attend H` | self-attention over all positions with H heads, added to the input |
| `up S`, `down S` | nearest-neighbour upsampling; means of S x S pixels |
| `keep NAME` | stores the output so far under a name |
| `cat NAME`, `add NAME` | concatenates a stored output along the channels, or adds it |
| `unet N dD hH` | U-Net of D resolutions, N filters at the first, doubled at each further one; H heads at the last |
| `dit N dD pP hH` | diffusion transformer: patches of P x P pixels, width N, D blocks of H heads |
| `projected N sS` | discriminator on maps of a network for photographs, seen at S pixels a side; N filters (32) |
| `reshape CxHxW`, `flatten` | |
| `bn`, `ln`, `gn G` | batch normalisation, layer normalisation, group normalisation in G groups |
| `dropout P` | |
| `maxpool K`, `avgpool K`, `globalmax`, `globalavg` | |
| `relu`, `lrelu A`, `elu`, `silu`, `gelu`, `tanh`, `sigmoid`, `softmax` | |

Options: `kK`, `sS`, `nobias`, `valid`, and `sn` for spectral normalisation. A size may be a symbol of the
recipe: `dense latent`, `conv channels k3`. Plugins add words with `layer`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary
from torch.utils.checkpoint import checkpoint

from zeuxis.errors import UserError, nearest
from zeuxis.nets.backend import own_kernels
from zeuxis.nets.convolution import Conv, Deconv, Upsample
from zeuxis.registry import Registry

__all__ = [
    "ACTIVATIONS", "LAYERS", "WEIGHTED", "Block", "GroupNorm", "Made", "Residual", "Shape", "Spec", "Word", "embeds",
    "image_shape", "kept", "layer", "make_layer", "require_parameters", "show",
]  # fmt: skip

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Spec:
    """A parsed layer spec.

    Attributes:
        word: its first word.
        arguments: the following words that are not options.
        numbers: values of options such as `k3`, by letter.
        flags: options without a number.
        symbols: sizes of the recipe that may be written by name.
        embedding: width of the conditioning's embedding; 0 where the network has no conditioning.
        kept: shapes of the outputs that earlier layers have stored, by name; a layer that stores its input adds it.
    """

    word: str
    arguments: tuple[str, ...]
    numbers: Mapping[str, int]
    flags: frozenset[str]
    symbols: Mapping[str, int]
    embedding: int
    kept: dict[str, Shape]

    @property
    def kernel(self) -> int:
        """Side of the kernel."""
        return self.numbers["k"]

    @property
    def stride(self) -> int:
        """Stride, 1 by default."""
        return self.numbers.get("s", 1)

    def name(self) -> str:
        """Returns the first argument as a name."""
        if not self.arguments:
            raise UserError(f"'{self.word}' needs a name, as in '{self.word} a'")
        return self.arguments[0]

    def size(self, default: int | None = None) -> int:
        """Returns the first argument, a positive integer or a symbol of the recipe."""
        if not self.arguments:
            if default is None:
                raise UserError(f"'{self.word}' needs a size, as in '{self.word} 64'")
            return default
        text = self.arguments[0]
        value = self.symbols.get(text, _whole(text))
        if value < 1:
            raise UserError(f"'{text}' is not a size for '{self.word}'.{nearest(text, self.symbols)}")
        return value

    def number(self, default: float, low: float, high: float) -> float:
        """Returns the first argument as a number in `low..high`."""
        if not self.arguments:
            return default
        try:
            value = float(self.arguments[0])
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise UserError(f"'{self.word}' takes a number from {low:g} to {high:g}, not '{self.arguments[0]}'")
        return value


# So many take 4 GiB with gradients and Adam's moments; the largest recipe has 70 million.
MOST_PARAMETERS = 2**28
# In one layer's output for one image: 256 MiB, times the batch size.
MOST_VALUES = 2**26
# The largest kernel, and the largest stride.
WIDEST = 255
Made = tuple[nn.Module, Shape]
Maker = Callable[[Spec, Shape], Made]


@dataclass(frozen=True)
class Word:
    """A word of a layer spec.

    Attributes:
        make: takes a spec and the shape of the input; returns a module and the shape of its output.
        options: letters of options with a number, such as `k`, and names of options without.
        embeds: whether its module takes the conditioning's embedding.
    """

    make: Maker
    options: frozenset[str] = frozenset()
    embeds: bool = False


LAYERS: Registry[Word] = Registry("layer", "zeuxis.nets.layers", "zeuxis.nets.blocks", "zeuxis.nets.projected")


def layer(name: str, *options: str, embeds: bool = False) -> Callable[[Maker], Maker]:
    """Registers a function that makes a layer as a word of layer specs.

    A module whose `forward` has an argument `context` is called as `module(x, context)`.

    Args:
        name: the word.
        *options: its options: a letter that takes a number, as `k` in `k3`, or a word.
        embeds: whether its module takes the conditioning's embedding, `context.embedding`.
    """

    def register(maker: Maker) -> Maker:
        LAYERS.register(name, Word(maker, frozenset(options), embeds), maker.__module__)
        return maker

    return register


# A network's `dropout` acts after these.
ACTIVATIONS = frozenset({"relu", "lrelu", "elu", "silu", "gelu", "tanh"})
# A network's `spectral_norm` normalises these.
WEIGHTED = frozenset({"dense", "conv", "deconv"})


def make_layer(
    text: str, shape: Shape, symbols: Mapping[str, int], *, embedding: int = 0, kept: dict[str, Shape] | None = None
) -> Made:
    """Builds one layer.

    Args:
        text: the spec, such as `"conv 64 k3 s2"`.
        shape: shape of its input without the batch dimension.
        symbols: sizes that may be written by name.
        embedding: width of the conditioning's embedding.
        kept: shapes of the outputs that earlier layers have stored; a layer that stores its input adds it.

    Returns:
        The module and the shape of its output.

    Raises:
        UserError: if a word, option or size is wrong, or the input has the wrong shape.
    """
    word, *rest = text.split() or [""]
    if word not in LAYERS:
        raise UserError(f"there is no layer '{word}'.{nearest(word, LAYERS)}")
    known = LAYERS[word]
    arguments, flags, numbers = list[str](), set[str](), dict[str, int]()
    for part in rest:
        if part[0] in known.options and re.fullmatch("[0-9]+", part[1:]):
            number = _whole(part[1:])
            if not 1 <= number <= WIDEST:
                raise UserError(f"a kernel or stride is from 1 to {WIDEST}, not {part[1:]}")
            if numbers.setdefault(part[0], number) != number:
                raise UserError(f"'{part[0]}' is given twice in '{text}'; give it once")
        elif part in known.options and len(part) > 1:
            flags.add(part)
        else:
            arguments.append(part)
    if len(arguments) > 1:
        raise UserError(f"'{word}' has no option '{arguments[1]}'.{nearest(arguments[1], known.options or {'none'})}")
    if "k" in known.options and "k" not in numbers:
        raise UserError(f"'{word}' needs a kernel size, as in '{word} 64 k3'")
    spec = Spec(word, tuple(arguments), numbers, frozenset(flags), symbols, embedding, {} if kept is None else kept)
    with torch.device("meta"):  # gives the size without taking any memory
        planned, out = known.make(spec, shape)
    if min(out) < 1:
        raise UserError(f"nothing is left of a {show(shape)} input")
    if math.prod(out) > MOST_VALUES:
        raise UserError(f"an output of {show(out)} is too large: at most {MOST_VALUES:,} values are allowed")
    require_parameters(sum(p.numel() for p in planned.parameters()))
    module, _ = known.make(spec, shape)
    if "sn" in flags:  # a layer that needs padding or cropping is a Sequential with it
        inner = [m for m in (module, *module.children()) if hasattr(m, "weight")]
        nn.utils.parametrizations.spectral_norm(inner[0])
    return module, out


def embeds(layers: Iterable[str]) -> bool:
    """Returns whether any of these layers takes the conditioning's embedding."""
    words = [text.split() for text in layers]
    return any("film" in parts or (parts[0] in LAYERS and LAYERS[parts[0]].embeds) for parts in words if parts)


def require_parameters(count: int) -> None:
    """Raises a `UserError` if a layer or a network has too many parameters."""
    if count > MOST_PARAMETERS:
        raise UserError(f"{count:,} parameters are more than the {MOST_PARAMETERS:,} that a network may have")


def show(shape: Shape) -> str:
    """Returns a shape as text: `28x28x1` for an image shape `(1, 28, 28)`, `100` for a vector."""
    return "x".join(map(str, (*shape[1:], shape[0])))


def _whole(text: str) -> int:
    """Returns a positive integer of up to nine digits; 0 for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def _vector(shape: Shape, word: str) -> int:
    if len(shape) != 1:
        raise UserError(f"'{word}' needs a vector but gets {show(shape)}; put 'flatten' before it")
    return shape[0]


def image_shape(shape: Shape, word: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise UserError(f"'{word}' needs an image but gets a vector of {shape[0]}; put 'reshape CxHxW' before it")
    return shape[0], shape[1], shape[2]


@layer("dense", "nobias", "sn")
def _dense(spec: Spec, shape: Shape) -> Made:
    out = spec.size()
    return nn.Linear(_vector(shape, "dense"), out, bias="nobias" not in spec.flags), (out,)


@layer("conv", "k", "s", "nobias", "valid", "sn")
def _conv(spec: Spec, shape: Shape) -> Made:
    channels, *sides = image_shape(shape, "conv")
    filters, k, s = spec.size(), spec.kernel, spec.stride
    bias = "nobias" not in spec.flags
    if "valid" in spec.flags:
        out = [(side - k) // s + 1 for side in sides]
        return Conv(channels, filters, k, s, bias=bias), (filters, *out)
    out = [math.ceil(side / s) for side in sides]
    # If a symmetric padding gives ceil(in / s), the convolution does it itself. An even kernel may have none; then one
    # more pixel is padded at the far side, as TensorFlow does.
    for padding in ((k - 1) // 2, k // 2):
        if all((side + 2 * padding - k) // s + 1 == o for side, o in zip(sides, out, strict=True)):
            return Conv(channels, filters, k, s, padding, bias=bias), (filters, *out)
    pads = [max((o - 1) * s + k - side, 0) for side, o in zip(sides, out, strict=True)]
    (top, left) = (pad // 2 for pad in pads)
    pad = nn.ZeroPad2d((left, pads[1] - left, top, pads[0] - top))
    return nn.Sequential(pad, Conv(channels, filters, k, s, bias=bias)), (filters, *out)


@layer("deconv", "k", "s", "nobias", "sn")
def _deconv(spec: Spec, shape: Shape) -> Made:
    channels, height, width = image_shape(shape, "deconv")
    filters, k, s = spec.size(), spec.kernel, spec.stride
    padding = max(math.ceil((k - s) / 2), 0)
    extra = 2 * padding - (k - s)
    bias, out = "nobias" not in spec.flags, (filters, height * s, width * s)
    if extra >= s:  # an even kernel at stride 1: torch allows no output padding there, so one pixel is cut off
        whole = Deconv(channels, filters, k, s, padding - 1, bias=bias)
        return nn.Sequential(whole, nn.ZeroPad2d((0, -1, 0, -1))), out
    return Deconv(channels, filters, k, s, padding, extra, bias=bias), out


class Block(nn.Module):
    """Base of blocks of several layers, whose inner values need not be stored for the backward pass.

    Attributes:
        recompute: compute the inner values again in the backward pass: less memory, and one more forward pass.
    """

    recompute = False

    def __call__(self, *inputs: Any) -> Any:
        if self.recompute and torch.is_grad_enabled():
            # Blocks draw no random numbers, whose state would have to be kept.
            return checkpoint(super().__call__, *inputs, use_reentrant=False, preserve_rng_state=False)
        return super().__call__(*inputs)


class Residual(Block):
    """`x + conv(lrelu(conv(lrelu(x))))`, with a 1x1 convolution on the shortcut where the channels change.

    No normalisation: instead, the last convolution starts at zero. Source: K. He et al., Identity Mappings in
    Deep Residual Networks, ECCV 2016, figure 4e; H. Zhang, Y. N. Dauphin and T. Ma, Fixup, ICLR 2019 (the zeros).
    """

    def __init__(self, channels: int, filters: int, kernel: int) -> None:
        super().__init__()
        self.first = Conv(channels, filters, kernel, padding=kernel // 2)
        self.last = Conv(filters, filters, kernel, padding=kernel // 2, bias=False)
        self.shortcut = Conv(channels, filters, 1, bias=False) if channels != filters else nn.Identity()

    def begin(self) -> None:
        """Sets the last convolution to zero: the block starts as its shortcut, so depth costs nothing at first."""
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(nn.functional.leaky_relu(x, 0.2))
        joined: Tensor = self.shortcut(x) + self.last(nn.functional.leaky_relu(inner, 0.2))
        return joined


@layer("up")
def _up(spec: Spec, shape: Shape) -> Made:
    channels, height, width = image_shape(shape, "up")
    scale = spec.size(2)
    return Upsample(scale), (channels, height * scale, width * scale)


@layer("reshape")
def _reshape(spec: Spec, shape: Shape) -> Made:
    parts = (spec.arguments or ("",))[0].split("x")
    sizes = [spec.symbols.get(part, _whole(part)) for part in parts]
    if len(sizes) != 3 or min(sizes) < 1:
        raise UserError("'reshape' needs channels x height x width, as in 'reshape 128x8x8'")
    if math.prod(sizes) != math.prod(shape):
        target = "x".join(map(str, sizes))
        raise UserError(f"'reshape {target}' needs {math.prod(sizes)} values but gets {math.prod(shape)}")
    return Reshape(tuple(sizes)), tuple(sizes)


class Reshape(nn.Module):
    """Reshapes `(B, *)` to `(B, C, H, W)`, channels last in memory, as convolutions need it (3 % of a GAN's step)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape).contiguous(memory_format=torch.channels_last)


@layer("flatten")
def _flatten(spec: Spec, shape: Shape) -> Made:
    return Flatten(), (math.prod(shape),)


class Flatten(nn.Module):
    """Flattens `(B, *)` to `(B, N)`; the gradient of an image is returned in channels-last layout."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and x.dim() == 4:
            x = x.view_as(x)  # so that the hook belongs to this pass and does not stay on the caller's images
            x.register_hook(lambda grad: grad.contiguous(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]
        return x.flatten(1)


class GroupNorm(nn.GroupNorm):
    """Group normalisation, which on a CPU takes images in bfloat16 channel by channel.

    With several groups, PyTorch's kernel for channels-last images in bfloat16 takes 2 to 3.5 times as long as its other
    kernel between two copies.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.num_groups == 1 or x.dtype != torch.bfloat16 or x.is_contiguous() or not own_kernels(x):
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


@layer("bn")
def _bn(spec: Spec, shape: Shape) -> Made:
    return (nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d)(shape[0]), shape


@layer("ln")
def _ln(spec: Spec, shape: Shape) -> Made:
    # One group over all channels and positions: layer normalisation with a gain and a bias per channel.
    return GroupNorm(1, shape[0]), shape


@layer("gn")
def _gn(spec: Spec, shape: Shape) -> Made:
    groups = spec.size(8)
    if shape[0] % groups:
        raise UserError(f"'gn {groups}' needs a multiple of {groups} channels, but gets {shape[0]}")
    return GroupNorm(groups, shape[0]), shape


@layer("dropout")
def _dropout(spec: Spec, shape: Shape) -> Made:
    return Dropout(spec.number(0.5, 0, 0.99)), shape


class Dropout(nn.Dropout):
    """Dropout that on a CPU uses one random byte per element: the probability is rounded to a multiple of 1/256.

    PyTorch samples one number per element and reads channels-last tensors against their layout: forward and backward
    pass of 32x64x14x14 took 21 ms in float32 and 4.3 ms in bfloat16 on one core; this takes 1.2 ms in both.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(256 * self.p)
        if not self.training or not dropped or not own_kernels(x):
            return super().forward(x)
        return x * kept(x, dropped).to(x.dtype).mul_(256 / (256 - dropped))


def kept(x: Tensor, dropped: int) -> Tensor:
    """Returns a random mask of the shape of a tensor, in which `dropped` of 256 values are False on average.

    As a function that can be overridden like PyTorch's own, it also serves processes that share a batch.
    """
    if has_torch_function_unary(x):
        overridden: Tensor = handle_torch_function(kept, (x,), x, dropped)
        return overridden
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    strides = torch.empty_like(x, device="meta").stride()
    return words.view(torch.uint8)[: x.numel()].as_strided(x.shape, strides) >= dropped


def _pool(kind: type[nn.MaxPool2d] | type[nn.AvgPool2d]) -> Maker:
    def make(spec: Spec, shape: Shape) -> Made:
        channels, height, width = image_shape(shape, spec.word)
        k = spec.size(2)
        return kind(k), (channels, height // k, width // k)

    return make


layer("maxpool")(_pool(nn.MaxPool2d))
layer("avgpool")(_pool(nn.AvgPool2d))
layer("down")(_pool(nn.AvgPool2d))


class GlobalPool(nn.Module):
    """Takes the maximum or mean over positions: `(B, C, H, W)` to `(B, C)`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return torch.amax(x, dim=(2, 3)) if self.kind == "max" else x.mean(dim=(2, 3))


@layer("globalmax")
def _globalmax(spec: Spec, shape: Shape) -> Made:
    return GlobalPool("max"), (image_shape(shape, "globalmax")[0],)


@layer("globalavg")
def _globalavg(spec: Spec, shape: Shape) -> Made:
    return GlobalPool("mean"), (image_shape(shape, "globalavg")[0],)


@layer("lrelu")
def _lrelu(spec: Spec, shape: Shape) -> Made:
    return nn.LeakyReLU(spec.number(0.2, 0, 1)), shape


@layer("softmax")
def _softmax(spec: Spec, shape: Shape) -> Made:
    return nn.Softmax(dim=1), shape


def _activation(kind: type[nn.Module]) -> Maker:
    return lambda spec, shape: (kind(), shape)


for _name, _kind in {
    "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
}.items():  # fmt: skip
    layer(_name)(_activation(_kind))
