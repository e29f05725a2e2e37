"""Checkpoints: one safetensors file each, with the trainer's counters as JSON in its header.

Tensors are named `networks/NAME/...`, `average/NAME/...` (the moving average of the networks that generate) and
`optimizers/PHASE/INDEX/...`. The header holds a checksum of each tensor and of itself, so that a flipped bit is
detected. The last two files are kept.

The newest file records which step was the best by the recipe's test term, and only that counts: `best.safetensors` is a
copy of the file of that step, made after it. If the process is killed between the two, the newest file is the best.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeuxis.errors import UserError
from zeuxis.files import regular, write_file
from zeuxis.models import Model
from zeuxis.recipe import BUDGETS, Recipe, flat

__all__ = ["Checkpoint", "best_checkpoint", "changes", "checkpoints", "load_weights", "tidy"]

KEPT = 2
BEST = "best.safetensors"
# Keys of a valid header: a file with any others, or with fewer, is not a checkpoint.
PLAIN, CHECKED = {"zeuxis"}, {"zeuxis", "checksums", "checksum"}


@dataclass(frozen=True)
class Checkpoint:
    """State that a run needs to continue: tensors by name, and counters."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def save(self, folder: Path) -> Path:
        """Writes `step-N.safetensors`, removes later ones, and tidies.

        Raises:
            WriteError: if it cannot be written; older files stay.
        """
        path = folder / f"step-{self.state['step']:08d}.safetensors"
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        state, sums = json.dumps(self.state), json.dumps({name: checksum(tensor) for name, tensor in tensors.items()})
        header = {"zeuxis": state, "checksums": sums, "checksum": _text_checksum(state, sums)}
        write_file(path, partial(_save, tensors, header))
        for later in (other for other in checkpoints(folder) if _step(other) > self.state["step"]):
            later.unlink(missing_ok=True)  # it was damaged: training would have gone on from it
        tidy(folder, self.state["step"])
        return path

    @classmethod
    def read(cls, path: Path, parts: tuple[str, ...] = ("",)) -> Checkpoint:
        """Reads a checkpoint file, with only those tensors whose names begin with one of `parts`.

        Raises:
            UserError: if it is damaged, truncated, or not a checkpoint of a run.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(regular(path), framework="pt") as file:
                state, sums = _header(file.metadata())
                names = list(file.keys())
                if sums is not None and sorted(sums) != sorted(names):
                    raise ValueError("tensors are missing")
                tensors = {name: file.get_tensor(name) for name in names if name.startswith(parts)}
            for name, tensor in tensors.items():
                if sums is not None and checksum(tensor) != sums[name]:
                    raise ValueError(f"the checksum of {name} does not match")
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"The checkpoint {path} is damaged or not a checkpoint of a run ({error}).") from error
        return cls(tensors, state)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Returns the tensors below a prefix, which is removed from their names."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def _save(tensors: dict[str, Tensor], header: dict[str, str], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, header)
    except SafetensorError as error:  # reports a full disk in its own words
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def checksum(tensor: Tensor) -> str:
    """Returns the CRC-32 of a tensor's type, shape and content, which detects damage, not tampering."""
    content = tensor.detach().cpu().contiguous()
    seed = zlib.crc32(f"{content.dtype} {tuple(content.shape)}".encode())
    return f"{zlib.crc32(content.reshape(-1).view(torch.uint8).numpy().data, seed):08x}"


def _text_checksum(*texts: str) -> str:
    return f"{zlib.crc32('|'.join(texts).encode()):08x}"


def _header(metadata: dict[str, str] | None) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Returns counters and checksums from a file's header; files of older versions have no checksums."""
    header = metadata or {}
    if set(header) not in (PLAIN, CHECKED):
        raise ValueError("its header is not that of a run")
    if set(header) == CHECKED and header["checksum"] != _text_checksum(header["zeuxis"], header["checksums"]):
        raise ValueError("the checksum of its header does not match")
    state = json.loads(header["zeuxis"])
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise ValueError("its header holds no step")
    return state, json.loads(header["checksums"]) if set(header) == CHECKED else None


def checkpoints(folder: Path) -> list[Path]:
    """Returns the numbered checkpoints in a run's `checkpoints` folder, newest first, without the best."""
    return sorted((path for path in folder.glob("step-*.safetensors") if _step(path) >= 0), key=_step, reverse=True)


def _step(path: Path) -> int:
    """Returns the step in a checkpoint's name; -1 for other files."""
    number = re.fullmatch(r"step-(\d{8,15})\.safetensors", path.name)
    return int(number[1]) if number else -1


def best_checkpoint(folder: Path) -> Path | None:
    """Returns the best checkpoint, else the newest, else None."""
    newest, best = next(iter(checkpoints(folder)), None), folder / BEST
    if newest is None or (best.exists() and not _is_best(newest)):
        return best if best.exists() else None
    return newest


def tidy(folder: Path, step: int) -> None:
    """Updates a `checkpoints` folder after the good file of a step: copies it if it is the best, and removes old files.

    Raises:
        WriteError: if the copy cannot be written.
    """
    files = [path for path in checkpoints(folder) if _step(path) <= step]
    if files and _is_best(files[0]):
        write_file(folder / BEST, partial(shutil.copyfile, files[0]))
    for old in files[KEPT:]:
        old.unlink(missing_ok=True)


def _is_best(path: Path) -> bool:
    """Whether a file records its own step as the best so far; False if it is damaged."""
    try:
        state = Checkpoint.read(path, parts=()).state
    except UserError:
        return False
    best = state.get("best")  # value and step
    return best is not None and bool(best[1] == state["step"])


def changes(state: dict[str, Any], recipe: Recipe, recorded: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Lists how a recipe differs from the one saved in a checkpoint's state, except for budgets.

    Args:
        state: of the checkpoint.
        recipe: the run's recipe now.
        recorded: the lines of its `changes.jsonl`; what they changed at the checkpoint's step or later is not listed.
    """
    then, now = flat(state.get("recipe") or {}), flat(recipe.model_dump(mode="json", exclude_none=True))
    known = {f"training.{name}" for name in BUDGETS}
    known |= {key for line in recorded if line["step"] >= state["step"] for key in line["changes"]}
    changed = [key for key in then if key in now and then[key] != now[key] and key not in known]
    return [
        key if isinstance(now[key], list | dict) else f"{key} is {now[key]!r} and was {then[key]!r}" for key in changed
    ]


def load_weights(model: Model, checkpoint: Checkpoint) -> None:
    """Loads a checkpoint's weights into a model for use; averaged weights if there are any.

    Raises:
        UserError: if the checkpoint belongs to other networks.
    """
    load_into(model.networks, checkpoint.part("networks/"))
    average = checkpoint.part("average/")
    if average:
        load_into(nn.ModuleDict({name: model.net(name) for name in model.generating_networks}), average)


def load_into(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Loads a state dict into a module.

    Raises:
        UserError: if names or shapes differ.
    """
    own = module.state_dict()
    faults = [f"it lacks {name}" for name in own if name not in tensors]
    faults += [f"it has {name}, which they lack" for name in tensors if name not in own]
    faults += [
        f"{name} is {_dimensions(tensors[name])} in place of {_dimensions(own[name])}"
        for name in own if name in tensors and tensors[name].shape != own[name].shape
    ]  # fmt: skip
    if faults:
        raise UserError(f"The checkpoint does not fit the networks of its recipe: {faults[0]}.")
    module.load_state_dict(tensors)


def _dimensions(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
