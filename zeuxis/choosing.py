"""Chooses a recipe for images of the user's own, where none is named.

What is chosen is a flow with a U-Net: one network, a loss that falls steadily, nothing to balance. It is conditional
where images have classes, so that each can be asked for. What follows from the images and the time:

- size: the largest of 16, 32, 64, 128 and 256 pixels that most images have and that the minutes allow. An image of
  twice the side takes four times the work, and needs more of it.
- network: that of the recipe modern-flow-28, at this size (`zeuxis.sizing`).
- channels: 1 or 3; transparency is kept only if the user asks for 4.
- mirroring: images in colour are mirrored, unless their source says that a mirrored one is no longer valid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeuxis.data import SOURCES, Collection
from zeuxis.data.labels import rare_class
from zeuxis.errors import UserError, quoted
from zeuxis.files import path_part
from zeuxis.recipe import DataOptions, Recipe, Size
from zeuxis.sizing import require_size, size_of, velocity_layers

__all__ = ["SIZES", "choose_recipe"]

SIZES = (16, 32, 64, 128, 256)
# Minutes from which on a size is chosen, on a CPU.
MINUTES = {16: 0.0, 32: 5.0, 64: 60.0, 128: 600.0, 256: 6000.0}
DEFAULT_MINUTES = 30.0
# More classes are not told apart in this time.
MOST_CLASSES = 200


def choose_recipe(
    data: Mapping[str, Any], *, minutes: float | None = None, size: int | str | None = None
) -> tuple[Recipe, str]:
    """Chooses a recipe for some images.

    Args:
        data: keys of the recipe's data section as `zeuxis.data.choose` returns them, such as `data.source`, and others
            that the user has set.
        minutes: for which it is chosen; 30 if None.
        size: of the generated images, a side or `"WIDTHxHEIGHT"`; chosen if None.

    Returns:
        The recipe, and sentences that say what was chosen and why.

    Raises:
        UserError: if the images are not available, for a size that the network cannot have, or without any time.
    """
    if minutes is not None and not minutes > 0:
        raise UserError(f"A training takes more than 0 minutes, not {minutes:g}.")
    named = {key.removeprefix("data."): value for key, value in data.items()}
    options, size = DataOptions(**named), named.get("size") if size is None else size
    origin = SOURCES[options.source]
    collection = origin.open(options.model_copy(update={"convert": True}))
    time = minutes or DEFAULT_MINUTES
    usual = collection.side or min(map(int, re.findall(r"\d+", collection.sizes)), default=32)
    held = [s for s in SIZES if s == SIZES[0] or s <= max(usual, 16) * 1.5]
    side = max(s for s in held if MINUTES[s] <= time)
    chosen = size_of(size) if size is not None else Size(side, side)
    require_size(chosen)
    unfit = _unfit(collection)
    conditional = bool(options.numbers or options.attributes or not unfit)
    count = {"classes": len(collection.classes)} if len(collection.classes) > 1 else {}
    colour = (options.channels if "channels" in named else collection.channels) > 1
    flips = colour and origin.mirrors
    name = path_part(f"{Path(options.path).stem or options.source}-flow-{chosen.setting}")
    recipe = Recipe.model_validate({
        "name": name,
        "description": f"Flow matching on {Path(options.path).name or options.source}, chosen for these images",
        "data": options.model_dump() | {
            "channels": collection.channels, "range": "-1..1", "convert": True, "flip": flips,
        } | named | {"size": chosen.setting},
        "model": {"name": "conditional-flow", "guidance": 1.5} | count if conditional else {"name": "flow"},
        "networks": {"velocity": {"init": "he", "layers": velocity_layers(chosen)}},
        "training": {
            "minutes": time, "batch_size": 64, "ema": 0.998, "snapshot_every": _every(time / 12),
            "checkpoint_every": _every(min(time / 6, 10)), "test_every": _every(time / 6),
            "optimizer": {"learning_rate": 1e-3}, "schedule": {"name": "cosine"},
        },
    })  # fmt: skip
    kind = "in colour" if collection.channels == 3 else "grey"
    asked = (
        f"in {len(collection.classes)} classes, each of which can be asked for" if conditional and collection.classes
        else "given what the recipe names" if conditional else unfit
    )  # fmt: skip
    sentences = (
        f"{collection.count:,} images of {collection.sizes} pixels, {kind}, {asked}. Chosen: a flow with a U-Net "
        f"at {chosen} pixels{'' if size else _reason(side, held)}, for {time:g} minutes"
        f"{'' if minutes else ' (--minutes changes that)'}"
        f"{'' if size else '; --size asks for another size'}. Ctrl-C stops at any time and keeps what is trained."
    )
    if collection.transparent and options.channels != 4:
        sentences += " Some images are transparent, and lose that; --set data.channels=4 keeps it."
    return recipe, sentences


def _reason(side: int, held: list[int]) -> str:
    """Returns why a side was chosen, of those that the images have."""
    larger = next((s for s in held if s > side), None)
    return f" (the time allows no more; {larger} from {MINUTES[larger]:g} minutes on)" if larger else ""


def _every(minutes: float) -> str:
    return f"{max(minutes, 0.05):.2f} minutes"


def _unfit(collection: Collection) -> str:
    """Returns why none of the images' classes can be asked for, in words; empty if they can."""
    count = len(collection.classes)
    if collection.labels is None or not count:
        return "without classes"
    if count == 1:
        return "in one class"
    if count > MOST_CLASSES:
        return f"in {count} classes, too many to ask for one"
    if rare := rare_class(collection.labels, collection.classes):
        return f"in {count} classes, with too few images of '{quoted(rare)}' to ask for one"
    return ""
