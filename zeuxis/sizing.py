"""The size of images as a setting: how networks follow from it.

Networks change their resolution in stages: an encoder or discriminator halves it from the image down to a small grid,
a decoder or generator doubles it from that grid up. A recipe says the grid g at its own size. At another size s there
are

    n = floor(log2(s / g)) stages, from a grid of s / 2^n pixels a side,

so that the grid is at least g and less than 2 g: s = 32, 64 and 128 have g = 4 with 3, 4 and 5 stages, and s = 96 has
a grid of 6 with 4. Of images that are not square, s and g are the shorter sides; both sides halve together, so that
96x64 has a grid 6 wide and 4 high. Stages are added and removed next to the grid, where they are cheap and as wide as
the grid, so that all others stay as the recipe has them.

A U-Net keeps its depth, and works on patches of s / 32 pixels a side, s being the longer side of the images, so that
its first resolution stays at 32 pixels or less; patches are larger where these do not fit both sides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from zeuxis.errors import UserError
from zeuxis.recipe import NetworkOptions, Recipe, Size

__all__ = ["LARGEST", "SMALLEST", "require_size", "resized", "size_of", "velocity_layers"]

# Largest first resolution of a U-Net, and the sizes that every chosen or modern recipe can have.
FIRST = 32
SMALLEST, LARGEST, STEP = 16, 512, 8
# A U-Net of three resolutions halves each side twice.
DEEP = 4
# Words of a stage.
STAGE = {"conv", "res", "bn", "ln", "gn", "dropout", "relu", "lrelu", "elu", "silu", "gelu", "tanh"}


def size_of(value: int | str | Size) -> Size:
    """Returns the size that a side in pixels or `"WIDTHxHEIGHT"` names; raises a `UserError` for anything else."""
    try:
        return Size.of(value)
    except ValueError as error:
        raise UserError(f"A{str(error).removeprefix('a')}.") from None


T = TypeVar("T")


class _UnfitError(UserError):
    """Networks cannot have a size; the message says why."""


def resized(recipe: Recipe, size: int | str | Size) -> Recipe:
    """Returns a recipe for images of another size.

    Args:
        recipe: of networks of layers.
        size: of the images: a side in pixels, or `"WIDTHxHEIGHT"`.

    Raises:
        UserError: if the networks cannot have this size, or do not show how they depend on it.
    """
    before, size = recipe.data.size, size_of(size)
    if size == before:
        return recipe
    require_size(size)
    old, new = str(before.setting), str(size.setting)
    changes: dict[str, Any] = {"data.size": size.setting, "name": re.sub(rf"-{old}\b", f"-{new}", recipe.name)}
    # A decoder that begins with its grid has it as its latent.
    latent_grid = next((m.size for o in recipe.networks.values() if (m := _grid(o.layers, 0))), None)
    for name, network in recipe.networks.items():
        if network.module:
            raise UserError(f"The network '{name}' of {recipe.name} is a module of your own: set its size there.")

    def layers_at(size: Size) -> list[list[str]]:
        return [_resized(network, before, size, latent_grid) for network in recipe.networks.values()]

    for (name, network), layers in zip(recipe.networks.items(), _fitting(layers_at, size), strict=True):
        if layers != network.layers:
            changes[f"networks.{name}"] = network.model_dump() | {"layers": layers}
    for key, value in recipe.model.options.items():  # a model built on a run gets the run of this size
        if isinstance(value, str) and re.search(rf"-{old}-\d+$", value):
            changes[f"model.{key}"] = re.sub(rf"-{old}(-\d+)$", rf"-{new}\1", value)
    if latent_grid and "latent" in recipe.model.options:
        ratio = math.prod(_stages(size, min(latent_grid))[1]) / math.prod(latent_grid)
        changes["model.latent"] = round(recipe.model.options["latent"] * ratio)
    return recipe.updated(changes)


def require_size(size: Size) -> None:
    """Raises a `UserError` for a size that no network can follow."""
    if any(side % STEP or not SMALLEST <= side <= LARGEST for side in size):
        near = Size(*(min(max(round(side / STEP) * STEP, SMALLEST), LARGEST) for side in size))
        raise UserError(
            f"The sides of images should be multiples of {STEP} from {SMALLEST} to {LARGEST}, not {size.setting}; the "
            f"nearest size is {near.setting}."
        )


def velocity_layers(size: Size) -> list[str]:
    """Returns the layers of a flow's velocity for images of a size: a U-Net, on patches if they are large.

    Raises:
        UserError: if no patch fits both sides.
    """
    return _fitting(_velocity, size)


def _velocity(size: Size) -> list[str]:
    patch = _patch(size)
    if patch == 0:
        raise _UnfitError(f"Images of {size.setting} pixels do not fit the U-Net of a flow")
    if patch == 1:
        return ["unet 32 d3 h4", "conv channels k3"]
    return [
        f"conv 64 k{2 * patch} s{patch}", "silu", "unet 64 d3 h4",
        f"deconv 32 k{2 * patch} s{patch}", "silu", "conv channels k3",
    ]  # fmt: skip


def _patch(size: Size) -> int:
    """Returns the side of a flow's patches; 0 if none fits."""
    least = max(max(size) // FIRST, 1)
    fitting = (p for p in range(least, min(size) // DEEP + 1) if not any(side % (p * DEEP) for side in size))
    return next(fitting, 0)


def _resized(network: NetworkOptions, before: Size, size: Size, latent_grid: Size | None) -> list[str]:
    """Returns the layers of a network at another size."""
    layers = network.layers
    if _patch(before) and layers == _velocity(before):
        return _velocity(size)
    place = next((i for i in range(len(layers)) if _grid(layers, i)), None)
    if place is not None:
        return _decoder(layers, place, before, size, latent_grid)
    return _encoder(network, before, size)


def _decoder(layers: Sequence[str], place: int, before: Size, size: Size, latent_grid: Size | None) -> list[str]:
    """Resizes layers that begin at a grid: `reshape CxHxW`, then stages that double it."""
    found = _grid(layers, place)
    assert found is not None
    channels, grid = found
    stages = [i for i in range(place, len(layers)) if _doubles(layers[i])]
    if Size(*(side * 2 ** len(stages) for side in grid)) not in (before, latent_grid):
        raise UserError(f"'{layers[place]}' and {len(stages)} doublings do not make images of {before} pixels.")
    if stages:
        count, new_grid = _stages(size, min(grid))
    else:  # dense, or on the latent grid alone
        count, new_grid = 0, size if grid == before else _stages(size, min(grid))[1]
    result = list(layers[: place + 1])
    result[place] = f"reshape {channels}x{new_grid.height}x{new_grid.width}"
    for i in reversed(range(place)):  # the layer that makes the grid's values
        if dense := re.fullmatch(r"dense (\d+)(.*)", layers[i]):
            result[i] = f"dense {int(dense[1]) * math.prod(new_grid) // math.prod(grid)}{dense[2]}"
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


def _encoder(network: NetworkOptions, before: Size, size: Size) -> list[str]:
    """Resizes layers that halve the image in stages, which may go on in heads."""
    layers = network.layers
    stages = [i for i, layer in enumerate(layers) if _halves(layer)]
    if not stages:
        return list(layers)
    further = max((sum(map(_halves, head)) for head in network.heads.values()), default=0)
    count = _stages(size, min(before) / 2 ** (len(stages) + further))[0] - further
    last = stages[-1]
    stage = next((i for i in range(last + 1, len(layers)) if _ends(layers[i])), len(layers))
    if count >= len(stages):
        return [*layers[:stage], *(list(layers[last:stage]) * (count - len(stages))), *layers[stage:]]
    return [*layers[: stages[max(count, 0)]], *layers[stage:]]


class _Grid(NamedTuple):
    """What `reshape CxHxW` makes."""

    channels: str
    size: Size


def _grid(layers: Sequence[str], place: int) -> _Grid | None:
    """Reads `reshape CxHxW` at a place."""
    match = re.fullmatch(r"reshape (\w+?)x(\d+)x(\d+)", layers[place]) if place < len(layers) else None
    return _Grid(match[1], Size(int(match[3]), int(match[2]))) if match else None


def _stages(size: Size, grid: float) -> tuple[int, Size]:
    """Returns how many stages lie between images of a size and their grid, and that grid, for the side of another."""
    count = int(math.log2(min(size) / grid))
    if any(side % 2**count for side in size):
        raise _UnfitError(f"Images of {size.setting} pixels cannot be halved {count} times")
    return count, Size(*(side // 2**count for side in size))


def _fitting(make: Callable[[Size], T], size: Size) -> T:
    """Returns what is made for a size; if it does not fit, the error names the nearest smaller and larger that do."""
    try:
        return make(size)
    except _UnfitError as error:
        steps = range(0, LARGEST, STEP)
        apart = sorted(((a, b) for a in steps for b in steps if a == b or size.width != size.height), key=sum)
        nearest = [
            next((near for a, b in apart if _fits(make, near := Size(size.width + s * a, size.height + s * b))), None)
            for s in (-1, 1)
        ]
        names = [str(near.setting) for near in nearest if near]
        raise UserError(f"{error}; the nearest sizes that fit: {' and '.join(names) or 'none'}.") from None


def _fits(make: Callable[[Size], object], size: Size) -> bool:
    try:
        return min(size) >= SMALLEST and max(size) <= LARGEST and bool(make(size))
    except _UnfitError:
        return False


def _doubles(layer: str) -> bool:
    return bool(re.match(r"deconv .*\bs2\b", layer)) or layer in ("up", "up 2")


def _halves(layer: str) -> bool:
    return bool(re.match(r"conv .*\bs2\b", layer)) or layer == "down"


def _ends(layer: str) -> bool:
    """Whether a layer ends a stage: neither a convolution, nor a norm or an activation after one."""
    return layer.split(maxsplit=1)[0] not in STAGE
