r"""Layer words that go beyond a chain: skips, modulation, attention, and whole networks.

A layer that reads the context is called with it, `module(x, context)` (`zeuxis.nets.context`). Blocks are plain
modules, and their sizes may be symbols, as for other layers.

Sources: O. Ronneberger, P. Fischer and T. Brox, U-Net, MICCAI 2015; J. Ho, A. Jain and P. Abbeel, Denoising Diffusion
Probabilistic Models, NeurIPS 2020, appendix B (its residual blocks and attention); W. Peebles and S. Xie, Scalable
Diffusion Models with Transformers, ICCV 2023, figure 3 (DiT with adaLN-Zero); E. Perez et al., FiLM, AAAI 2018.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeuxis.errors import UserError, nearest
from zeuxis.nets.backend import own_kernels
from zeuxis.nets.context import Context
from zeuxis.nets.convolution import Conv
from zeuxis.nets.layers import Block, GroupNorm, Made, Residual, Shape, Spec, image_shape, layer, show

__all__ = ["Attention", "DiT", "Film", "ResidualNorm", "UNet"]

# Positions up to which attention is computed as products.
FEW = 128


# -- skips --------------------------------------------------------------------------------------------


class Keep(nn.Module):
    """Stores its input, `(B, *)`, in the context under a name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor, context: Context) -> Tensor:
        context.kept[self.name] = x
        return x


class Join(nn.Module):
    """Concatenates a stored output to its input along the channels, or adds it."""

    def __init__(self, name: str, add: bool) -> None:
        super().__init__()
        self.name, self.add = name, add

    def forward(self, x: Tensor, context: Context) -> Tensor:
        skip = context.kept[self.name]
        return x + skip if self.add else torch.cat([x, skip], dim=1)


@layer("keep")
def _keep(spec: Spec, shape: Shape) -> Made:
    spec.kept[spec.name()] = shape
    return Keep(spec.name()), shape


def _kept(spec: Spec) -> Shape:
    name = spec.name()
    if name not in spec.kept:
        raise UserError(f"no earlier layer is 'keep {name}'.{nearest(name, spec.kept)}")
    return spec.kept[name]


@layer("cat")
def _cat(spec: Spec, shape: Shape) -> Made:
    skip = _kept(spec)
    if skip[1:] != shape[1:]:
        raise UserError(f"'{spec.name()}' was kept at {show(skip)}, which cannot be concatenated to {show(shape)}")
    return Join(spec.name(), add=False), (shape[0] + skip[0], *shape[1:])


@layer("add")
def _add(spec: Spec, shape: Shape) -> Made:
    skip = _kept(spec)
    if skip != shape:
        raise UserError(f"'{spec.name()}' was kept at {show(skip)}, which cannot be added to {show(shape)}")
    return Join(spec.name(), add=True), shape


# -- modulation ---------------------------------------------------------------------------------------


class Film(nn.Module):
    """Computes `x (1 + s) + t`, with scale s and shift t of each channel projected from the embedding; both start at 0.

    Args:
        channels: C of the input, `(B, C, *)`.
        width: E of the embedding, `(B, E)`.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.project = Zero(width, 2 * channels)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        assert context.embedding is not None, "a network with modulated layers embeds its conditioning"
        scale, shift = self.project(F.silu(context.embedding)).chunk(2, dim=1)
        broadcast = (slice(None), slice(None), *[None] * (x.dim() - 2))
        modulated: Tensor = x * (1 + scale[broadcast]) + shift[broadcast]
        return modulated


class Zero(nn.Linear):
    """A dense layer that starts at zero, whatever the network's `init`."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    begin = reset_parameters


@layer("film", embeds=True)
def _film(spec: Spec, shape: Shape) -> Made:
    return Film(shape[0], _width(spec)), shape


def _width(spec: Spec) -> int:
    if not spec.embedding:
        raise UserError("'film' modulates by a time or a condition, but this network takes neither")
    return spec.embedding


# -- residual blocks and attention --------------------------------------------------------------------


def _groups(channels: int) -> int:
    """Returns the number of groups for group normalisation: at most 32, of at least four channels each."""
    fitting = (groups for groups in (32, 16, 8, 4, 2) if channels % groups == 0 and channels // groups >= 4)
    return next(fitting, 1)


class ResidualNorm(Block):
    """Residual block: group normalisation, SiLU and convolution, twice; may be modulated after the second norm.

    The last convolution starts at zero, so the block starts as its shortcut.

    Args:
        channels: C of the input, `(B, C, H, W)`.
        filters: channels of the output.
        kernel: side of the kernel, odd.
        width: of the embedding; 0 for a block that is not modulated.
    """

    def __init__(self, channels: int, filters: int, kernel: int = 3, width: int = 0) -> None:
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(_groups(channels), channels), GroupNorm(_groups(filters), filters)
        self.first = Conv(channels, filters, kernel, padding=kernel // 2)
        self.last = Conv(filters, filters, kernel, padding=kernel // 2)
        self.film = Film(filters, width) if width else None
        self.shortcut = Conv(channels, filters, 1, bias=False) if channels != filters else nn.Identity()

    def begin(self) -> None:
        """Sets the last convolution to zero: the block starts as its shortcut, so depth costs nothing at first."""
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        inner = self.norm2(self.first(F.silu(self.norm1(x))))
        if self.film is not None:
            inner = self.film(inner, context)
        joined: Tensor = self.shortcut(x) + self.last(F.silu(inner))
        return joined


@layer("res", "k", "gn", "film")
def _res(spec: Spec, shape: Shape) -> Made:
    channels, height, width = image_shape(shape, "res")
    if spec.kernel % 2 == 0:
        raise UserError(f"'res' needs an odd kernel size, not {spec.kernel}")
    out = (spec.size(), height, width)
    if not spec.flags:
        return Residual(channels, spec.size(), spec.kernel), out
    modulated = _width(spec) if "film" in spec.flags else 0
    return ResidualNorm(channels, spec.size(), spec.kernel, modulated), out


class Attention(Block):
    """Group normalisation and self-attention over all positions of `(B, C, H, W)`, added to the input.

    Args:
        channels: C.
        heads: number of heads; must divide C.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(_groups(channels), channels)
        self.mix = nn.Linear(channels, 3 * channels)
        self.out = Zero(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, P, C)
        attended = self.out(attend(self.mix(tokens), self.heads))
        joined: Tensor = x + attended.transpose(1, 2).reshape(batch, channels, height, width)
        return joined


def attend(mixed: Tensor, heads: int) -> Tensor:
    """Returns scaled dot-product attention, `(B, P, C)`, for queries, keys and values in one tensor, `(B, P, 3 C)`.

    For up to `FEW` positions in bfloat16 on a CPU, products take a fifth of the time of PyTorch's kernels or less.
    """
    batch, positions, triple = mixed.shape
    q, k, v = mixed.reshape(batch, positions, 3, heads, triple // 3 // heads).permute(2, 0, 3, 1, 4)
    if own_kernels(mixed) and mixed.dtype == torch.bfloat16 and mixed.requires_grad and positions <= FEW:
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]), dim=3)
        attended: Tensor = weights.to(v.dtype) @ v
    else:
        attended = F.scaled_dot_product_attention(q, k, v)
    return attended.transpose(1, 2).reshape(batch, positions, triple // 3)


def _require_heads(channels: int, heads: int, word: str) -> None:
    if channels % heads:
        raise UserError(f"'{word}' with {heads} heads needs a multiple of {heads} channels, but there are {channels}")


@layer("attend")
def _attend(spec: Spec, shape: Shape) -> Made:
    channels, _, _ = image_shape(shape, "attend")
    heads = spec.size(4)
    _require_heads(channels, heads, "attend")
    return Attention(channels, heads), shape


# -- whole networks -----------------------------------------------------------------------------------


class UNet(nn.Module):
    """U-Net of residual blocks, with a skip connection at each resolution and attention at the lowest.

    Args:
        channels: C of the input, `(B, C, H, W)`.
        filters: N at the first resolution and in the output; doubled at each further resolution.
        depth: number of resolutions; each has half the side of the one before.
        heads: number of attention heads.
        width: of the embedding; 0 where there is no conditioning.
    """

    def __init__(self, channels: int, filters: int, depth: int, heads: int, width: int) -> None:
        super().__init__()
        sizes = [filters * 2**i for i in range(depth)]
        self.enter = Conv(channels, filters, 3, padding=1)
        self.down = nn.ModuleList(ResidualNorm(sizes[max(i - 1, 0)], size, width=width) for i, size in enumerate(sizes))
        self.middle = nn.ModuleList([Attention(sizes[-1], heads), ResidualNorm(sizes[-1], sizes[-1], width=width)])
        self.up = nn.ModuleList(
            ResidualNorm(size + sizes[min(i + 1, depth - 1)], size, width=width)
            for i, size in reversed(list(enumerate(sizes)))
        )
        self.norm = GroupNorm(_groups(filters), filters)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x, skips = self.enter(x), []
        for i, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if i else x, context)
            skips.append(x)
        attention, block = self.middle
        x = block(attention(x), context)
        for block in self.up:
            skip = skips.pop()
            if x.shape[2:] != skip.shape[2:]:
                x = F.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([x, skip], dim=1), context)
        return F.silu(self.norm(x))


@layer("unet", "d", "h", embeds=True)
def _unet(spec: Spec, shape: Shape) -> Made:
    channels, *sides = image_shape(shape, "unet")
    depth, heads, filters = spec.numbers.get("d", 3), spec.numbers.get("h", 4), spec.size()
    if any(side % 2 ** (depth - 1) for side in sides):
        raise UserError(f"'unet' of {depth} resolutions needs sides divisible by {2 ** (depth - 1)}, not {show(shape)}")
    _require_heads(filters * 2 ** (depth - 1), heads, "unet")
    return UNet(channels, filters, depth, heads, spec.embedding), (filters, *sides)


class DiTBlock(Block):
    """Self-attention and an MLP over tokens, each scaled, shifted and gated by the embedding.

    Args:
        size: numbers in a token.
        heads: number of attention heads.
        width: of the embedding; 0 where there is no conditioning.
    """

    def __init__(self, size: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(size, elementwise_affine=not width)
        self.mix, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.dense = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(approximate="tanh"), nn.Linear(4 * size, size))
        self.modulate = Zero(width, 6 * size) if width else None

    def forward(self, tokens: Tensor, context: Context) -> Tensor:
        if self.modulate is None or context.embedding is None:
            tokens = tokens + self.out(attend(self.mix(self.norm(tokens)), self.heads))
            return torch.add(tokens, self.dense(self.norm(tokens)))
        parts = self.modulate(F.silu(context.embedding))[:, None].chunk(6, dim=2)
        modulated = self.norm(tokens) * (1 + parts[0]) + parts[1]
        tokens = tokens + parts[2] * self.out(attend(self.mix(modulated), self.heads))
        modulated = self.norm(tokens) * (1 + parts[3]) + parts[4]
        return torch.add(tokens, parts[5] * self.dense(modulated))


class DiT(nn.Module):
    """A transformer over patches; the output has the shape of the input, `(B, C, H, W)`.

    Args:
        shape: C, H and W.
        size: numbers in a token.
        depth: number of blocks.
        patch: side of a patch in pixels.
        heads: number of attention heads.
        width: of the embedding; 0 where there is no conditioning.
    """

    def __init__(self, shape: Shape, size: int, depth: int, patch: int, heads: int, width: int) -> None:
        super().__init__()
        channels, height, columns = shape
        self.patch, self.rows, self.columns = patch, height // patch, columns // patch
        self.enter = nn.Linear(channels * patch**2, size)
        self.places = nn.Parameter(_places(self.rows, self.columns, size))
        self.blocks = nn.ModuleList(DiTBlock(size, heads, width) for _ in range(depth))
        self.norm = nn.LayerNorm(size)
        self.leave = nn.Linear(size, channels * patch**2)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        tokens = self.enter(F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)) + self.places
        for block in self.blocks:
            tokens = block(tokens, context)
        pixels = self.leave(self.norm(tokens)).transpose(1, 2)
        size = (self.rows * self.patch, self.columns * self.patch)
        return F.fold(pixels.float(), size, self.patch, stride=self.patch)


def _places(rows: int, columns: int, size: int) -> Tensor:
    """Returns initial position embeddings, `(P, size)`: sines and cosines of each token's row and column."""
    if torch.get_default_device().type == "meta":
        return torch.empty(rows * columns, size)
    quarter = size // 4
    rates = torch.exp(-math.log(10_000) * torch.arange(quarter) / quarter)
    down, right = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [index.flatten()[:, None] * rates for index in (down, right)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)


@layer("dit", "d", "p", "h", embeds=True)
def _dit(spec: Spec, shape: Shape) -> Made:
    _, *sides = image_shape(shape, "dit")
    depth, patch, heads, size = (*(spec.numbers.get(key, 4) for key in "dph"), spec.size())
    if any(side % patch for side in sides):
        raise UserError(f"'dit' cuts patches of {patch}x{patch} pixels, but {show(shape)} does not divide into them")
    if size % 4:
        raise UserError(f"'dit' needs a width that is a multiple of 4, not {size}")
    _require_heads(size, heads, "dit")
    return DiT(shape, size, depth, patch, heads, spec.embedding), shape
