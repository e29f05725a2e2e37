"""A recipe to begin with: a commented file, whose comments are settings that can be switched on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from zeuxis.data import SOURCES
from zeuxis.errors import UserError, shown
from zeuxis.files import exists, name_fault, write_file
from zeuxis.recipe import DataOptions

__all__ = ["TEMPLATE", "write_starter"]

# Lines that begin with `#!` are settings: without these two characters they are valid, one by one and all together.
TEMPLATE = """\
# A recipe of your own. It has what it extends, but for what stands here:
#   zeuxis summary {file}      the networks, layer by layer
#   zeuxis train {file}        a run, in the folder runs
# Lines with #! are further settings, at the values that they have; remove the #! to change one.
# docs/recipes.md describes every key; `zeuxis recipes` lists what can be extended.

extends = "modern-gan-32"       # or modern-vae-32, or any other
description = "My first recipe"

[data]
{data}
size = 32                       # a side, or "96x64"; `zeuxis train FILE --size 64` changes networks as well
channels = {channels}                    # 1: grey, 3: colour, 4: colour and transparency
convert = true                  # turn grey images into colour, or colour ones grey
flip = {flip:<24} # mirror half of the images: not for letters, digits or text
#! classes = []                 # only these classes, such as ["rose", "tulip"]; empty: all
#! test_fraction = 0.1          # held out to test with, if the data has no test set

[model]
#! latent = 64                  # dimensions of the noise
#! r1_penalty = 0.1             # larger: calmer and slower; smaller: sharper, until it breaks
#! r2_penalty = 0.1
#! augmentation = ["color", "translation"]    # for few images; [] for many thousands

[training]
minutes = 30                    # or epochs, or steps; exactly one of them
#! batch_size = 32
#! ema = 0.998                  # decay of the averaged weights that samples are made with; 0: none
#! seed = 1
#! snapshot_every = "10 epochs"    # also "500 steps", "2 minutes" or "never"
#! checkpoint_every = "1 epoch"
#! callbacks = []               # such as ["tensorboard"], ["mlflow"] or ["wandb"]

[training.optimizer]
#! learning_rate = 1e-3
#! betas = [0.5, 0.99]
"""


def write_starter(name: str, data: Mapping[str, Any] | None = None, folder: Path = Path()) -> Path:
    """Writes a commented recipe into a new file and returns its path.

    Args:
        name: of the recipe; the file is `NAME.toml`.
        data: what it trains on, as `zeuxis.data.choose` returns it; the digits that come with the package if None.
        folder: where to write.

    Raises:
        UserError: if the file exists, for a name that is none, or if the images are not available.
    """
    name = name.removesuffix(".toml")
    if fault := name_fault(name):
        raise UserError(f"{shown(name)} cannot name a recipe: {fault}.")
    path = folder / f"{name}.toml"
    if exists(path):
        raise UserError(f"{path} exists already; choose another name, or remove it.")
    options = DataOptions(**{key.removeprefix("data."): value for key, value in (data or {}).items()})
    origin = SOURCES[options.source]
    collection = origin.open(options.model_copy(update={"convert": True}))
    source = options.source
    lines = [f'source = "{source}"' + (" " * max(32 - 11 - len(source), 2) + "# `zeuxis data` lists sources")]
    path_text = json.dumps(options.path, ensure_ascii=False)  # JSON's strings are TOML's as well
    lines.append(f'path = {path_text:<24} # of a folder or zip of images, with source = "folder"')
    flip = collection.channels == 3 and origin.mirrors
    text = TEMPLATE.format(
        file=quote(path.name), data="\n".join(lines), channels=collection.channels, flip=str(flip).lower()
    )  # fmt: skip
    return write_file(path, text)
