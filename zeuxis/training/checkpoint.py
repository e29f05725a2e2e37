"""Checkpoints: one safetensors file each, with the trainer's counters as JSON in its header.

Tensors are named `networks/NAME/...`, `average/NAME/...` (the moving average of those that generate) and
`optimizers/PHASE/INDEX/...`. A file is written beside its place and renamed, the last two are kept, and the
best by the recipe's test term stands as `best.safetensors`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zeuxis.errors import UserError
from zeuxis.files import write_file
from zeuxis.models import Model

__all__ = ["Checkpoint", "best_checkpoint", "checkpoints", "load_weights"]

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors by name, and counters."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def save(self, folder: Path, *, best: bool) -> Path:
        """Writes `step-N.safetensors`, and `best.safetensors` too if asked; drops older ones."""
        from safetensors.torch import save_file

        path = folder / f"step-{self.state['step']:08d}.safetensors"
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        write_file(path, lambda p: save_file(whole, p, {"zeuxis": json.dumps(self.state)}))
        if best:
            write_file(folder / "best.safetensors", lambda p: shutil.copyfile(path, p))
        for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT]:
            old.unlink()
        return path

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Reads a checkpoint file.

        Raises:
            UserError: if it is damaged, cut short, or no checkpoint of a run.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads((file.metadata() or {})["zeuxis"])
                return cls({name: file.get_tensor(name) for name in file.keys()}, state)  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UserError(f"The checkpoint {path} is damaged or no checkpoint of a run ({error}).") from error

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Returns the tensors below a prefix, which is taken off their names."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def checkpoints(folder: Path) -> list[Path]:
    """Returns the kept checkpoints of a run's `checkpoints` folder, newest first, without the best."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def best_checkpoint(folder: Path) -> Path | None:
    """Returns the best checkpoint, else the newest, else None."""
    best = folder / "best.safetensors"
    return best if best.exists() else next(iter(checkpoints(folder)), None)


def load_weights(model: Model, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights into a model, for use: averaged ones where there are any.

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
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise UserError(f"The checkpoint does not fit the networks of its recipe: {detail}") from error
