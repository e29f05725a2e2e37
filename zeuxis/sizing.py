"""The size of images as a setting: how networks follow from it.

Networks change their resolution in stages: an encoder or discriminator halves it from the image down to a small grid,
a decoder or generator doubles it from that grid up. A recipe says the grid g at its own size. At another size s there
are

    n = floor(log2(s / g)) stages, from a grid of s / 2^n pixels a side,

so that the grid is at least g and less than 2 g: s = 32, 64 and 128 have g = 4 with 3, 4 and 5 stages, and s = 96 has
a grid of 6 with 4. Stages are added and removed next to the grid, where they are cheap and as wide as the grid, so
that all others stay as the recipe has them.

A U-Net keeps its depth, and works on patches of s / 32 pixels a side, so that its first resolution stays at 32 pixels
or less.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from zeuxis.errors import UserError
from zeuxis.recipe import NetworkOptions, Recipe

__all__ = ["LARGEST", "require_size", "resized", "velocity_layers"]

# Largest first resolution of a U-Net, and the sizes that every chosen or modern recipe can have.
FIRST = 32
SMALLEST, LARGEST = 16, 512
# Words of a stage.
STAGE = {"conv", "res", "bn", "ln", "gn", "dropout", "relu", "lrelu", "elu", "silu", "gelu", "tanh"}


def resized(recipe: Recipe, size: int) -> Recipe:
    """Returns a recipe for images of another size.

    Args:
        recipe: of networks of layers.
        size: side of the images in pixels.

    Raises:
        UserError: if the networks cannot have this size, or do not show how they depend on it.
    """
    before = recipe.data.size
    if size == before:
        return recipe
    require_size(size)
    changes: dict[str, Any] = {"data.size": size, "name": re.sub(rf"-{before}\b", f"-{size}", recipe.name)}
    # A decoder that begins with its grid has it as its latent.
    latent_grid = next((int(m[2]) for o in recipe.networks.values() if (m := _grid(o.layers, 0))), 0)
    for name, network in recipe.networks.items():
        if network.module:
            raise UserError(f"The network '{name}' of {recipe.name} is a module of your own: set its size there.")
        layers = _resized(network, before, size, latent_grid)
        if layers != network.layers:
            changes[f"networks.{name}"] = network.model_dump() | {"layers": layers}
    for key, value in recipe.model.options.items():  # a model built on a run gets the run of this size
        if isinstance(value, str) and re.search(rf"-{before}-\d+$", value):
            changes[f"model.{key}"] = re.sub(rf"-{before}(-\d+)$", rf"-{size}\1", value)
    if latent_grid and "latent" in recipe.model.options:
        ratio = _stages(size, latent_grid)[1] / latent_grid
        changes["model.latent"] = round(recipe.model.options["latent"] * ratio**2)
    return recipe.updated(changes)


def require_size(size: int) -> None:
    """Raises a `UserError` for a size that no network can follow."""
    if size % 8 or not SMALLEST <= size <= LARGEST:
        raise UserError(f"The size of images should be a multiple of 8 from {SMALLEST} to {LARGEST}, not {size}.")


def velocity_layers(size: int) -> list[str]:
    """Returns the layers of a flow's velocity for images of a size: a U-Net, on patches if they are large."""
    patch = max(size // FIRST, 1)
    if patch == 1:
        return ["unet 32 d3 h4", "conv channels k3"]
    return [
        f"conv 64 k{2 * patch} s{patch}", "silu", "unet 64 d3 h4",
        f"deconv 32 k{2 * patch} s{patch}", "silu", "conv channels k3",
    ]  # fmt: skip


def _resized(network: NetworkOptions, before: int, size: int, latent_grid: int) -> list[str]:
    """Returns the layers of a network at another size."""
    layers = network.layers
    if layers == velocity_layers(before):
        return velocity_layers(size)
    place = next((i for i in range(len(layers)) if _grid(layers, i)), None)
    if place is not None:
        return _decoder(layers, place, before, size, latent_grid)
    return _encoder(network, before, size)


def _decoder(layers: Sequence[str], place: int, before: int, size: int, latent_grid: int) -> list[str]:
    """Resizes layers that begin at a grid: `reshape CxHxW`, then stages that double it."""
    match = _grid(layers, place)
    assert match is not None
    channels, grid = match[1], int(match[2])
    stages = [i for i in range(place, len(layers)) if _doubles(layers[i])]
    if grid * 2 ** len(stages) not in (before, latent_grid):
        raise UserError(f"'{layers[place]}' and {len(stages)} doublings do not make images of {before} pixels.")
    if stages:
        count, new_grid = _stages(size, grid)
    else:  # dense, or on the latent grid alone
        count, new_grid = 0, size if grid == before else _stages(size, latent_grid)[1]
    result = list(layers[: place + 1])
    result[place] = f"reshape {channels}x{new_grid}x{new_grid}"
    for i in reversed(range(place)):  # the layer that makes the grid's values
        if dense := re.fullmatch(r"dense (\d+)(.*)", layers[i]):
            result[i] = f"dense {int(dense[1]) * new_grid**2 // grid**2}{dense[2]}"
            break
    first = stages[0] if stages else len(layers)
    between = list(layers[place + 1 : first])
    if stages and count > len(stages):
        # As wide as what comes before, with norm and activation of the stage that follows.
        width = next(
            (m[1] for layer in reversed(between) if (m := re.match(r"(?:conv|deconv|res) (\d+)", layer))), channels
        )
        words = layers[first + 1 : stages[1]] if len(stages) > 1 else between
        between += [re.sub(r"^(deconv) \w+", rf"\1 {width}", layers[first]), *words] * (count - len(stages))
    if stages and count < len(stages):
        first = stages[len(stages) - count] if count else len(layers)
    return [*result, *between, *layers[first:]]


def _encoder(network: NetworkOptions, before: int, size: int) -> list[str]:
    """Resizes layers that halve the image in stages, which may go on in heads."""
    layers = network.layers
    stages = [i for i, layer in enumerate(layers) if _halves(layer)]
    if not stages:
        return list(layers)
    further = max((sum(map(_halves, head)) for head in network.heads.values()), default=0)
    count = _stages(size, before / 2 ** (len(stages) + further))[0] - further
    last = stages[-1]
    stage = next((i for i in range(last + 1, len(layers)) if _ends(layers[i])), len(layers))
    if count >= len(stages):
        return [*layers[:stage], *(list(layers[last:stage]) * (count - len(stages))), *layers[stage:]]
    return [*layers[: stages[max(count, 0)]], *layers[stage:]]


def _grid(layers: Sequence[str], place: int) -> re.Match[str] | None:
    """Matches `reshape CxHxH` at a place."""
    return re.fullmatch(r"reshape (\w+?)x(\d+)x\2", layers[place]) if place < len(layers) else None


def _stages(size: int, grid: float) -> tuple[int, int]:
    """Returns how many stages lie between images of a size and their grid, and that grid, for a recipe's grid."""
    count = int(math.log2(size / grid))
    if size % 2**count:
        step = 2**count
        low, high = size // step * step, -(-size // step) * step
        raise UserError(f"Images of {size} pixels cannot be halved {count} times; those of {low} and {high} can.")
    return count, size // 2**count


def _doubles(layer: str) -> bool:
    return bool(re.match(r"deconv .*\bs2\b", layer)) or layer in ("up", "up 2")


def _halves(layer: str) -> bool:
    return bool(re.match(r"conv .*\bs2\b", layer)) or layer == "down"


def _ends(layer: str) -> bool:
    """Whether a layer ends a stage: neither a convolution, nor a norm or an activation after one."""
    return layer.split(maxsplit=1)[0] not in STAGE
