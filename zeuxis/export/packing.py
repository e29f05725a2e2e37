"""A run made small enough to hand on: its weights in half precision, its recipe, its numbers, and a thinned journal.

A discriminator has a byte for each weight: it is kept to be looked at, unless samples are chosen by it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

from zeuxis.errors import UserError
from zeuxis.files import make_folder, write_file
from zeuxis.models.gan import SECOND
from zeuxis.run import Run
from zeuxis.training.checkpoint import Checkpoint, best_checkpoint

__all__ = ["pack"]

# Journal lines that are kept: enough for the curves of a report.
LINES = 150
# What is kept of `environment.json`.
KNOWN = ("versions", "processor", "gpu", "threads", "seed", "data", "from_run")


def pack(run: Run, target: Path) -> None:
    """Fills an empty folder with a run that opens, samples and is measured like any other; it cannot be resumed.

    Averaged weights take the place of the others, where a run has them.

    Args:
        run: the run; without plugins and modules of the user's own, which would be code.
        target: an existing folder.

    Raises:
        UserError: if the run needs code of the user's own, or has no checkpoint.
    """
    if run.recipe.calls:
        raise UserError(f"{run.path} needs Python code of yours ({', '.join(map(str, run.recipe.calls))}), so others "
                        "cannot open it without trust; hand on the run folder itself.")  # fmt: skip
    path = best_checkpoint(run.path / "checkpoints")
    if path is None:
        raise UserError(f"{run.path} has no checkpoint yet; let it train longer, or resume it.")
    if (run.path / "evaluation.json").is_file():
        shutil.copyfile(run.path / "evaluation.json", target / "evaluation.json")
    recipe = run.recipe_in_use
    if Path(recipe.data.path).is_absolute():  # where the images lie here concerns nobody else
        data = recipe.data.model_copy(update={"path": Path(recipe.data.path).name})
        recipe = recipe.model_copy(update={"data": data})
    write_file(target / "recipe.toml", recipe.to_toml())
    known = {key: run.environment[key] for key in KNOWN if key in run.environment}
    write_file(target / "environment.json", json.dumps(known, indent=1) + "\n")
    lines, every = run.journal, max(len(run.journal) // LINES, 1)
    kept = [dict(line) for i, line in enumerate(lines) if i % every == 0 or line is lines[-1]]
    if kept:
        kept[0] |= {"roles": run.journal.roles}
    write_file(target / "journal.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
    bytewise = {"discriminator"} if run.candidates > 1 else {"discriminator", SECOND}
    weights = {
        f"networks/{name}": _smaller(
            value, torch.float8_e4m3fn if name.partition(".")[0] in bytewise else torch.float16
        )
        for name, value in run.model.networks.state_dict().items()
    }
    state = Checkpoint.read(path, parts=()).state | {"recipe": recipe.model_dump(mode="json", exclude_none=True)}
    written = Checkpoint(weights, state).save(make_folder(target / "checkpoints"))
    written.rename(target / "checkpoints" / "best.safetensors")


def _smaller(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a copy in fewer bytes; as it is where it holds no such numbers, or some that the format lacks."""
    whole = value.to("cpu", copy=True)
    if not whole.is_floating_point():
        return whole
    small = whole.to(dtype)
    # A weight among many may vanish; a scale or a variance, of which there is one for each channel, may not.
    lost = not small.float().isfinite().all() or (whole.dim() == 1 and ((small.float() == 0) & (whole != 0)).any())
    return whole if lost else small
