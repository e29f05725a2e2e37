"""Writes the journal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zeuxis.errors import DivergedError
from zeuxis.files import write_file
from zeuxis.models.base import Role
from zeuxis.threads import threads
from zeuxis.training.callbacks.base import Callback
from zeuxis.training.checkpoint import checkpoints
from zeuxis.training.hardware import peak_memory
from zeuxis.training.journal import Line, read_warnings
from zeuxis.training.monitors import not_finite

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["Records", "note"]

# A loss whose scale has been halved so often, from 65,536, does not overflow because of its scale.
LEAST_SCALE = 2.0**-24


class Records(Callback):
    """Writes journal lines: means of the numbers since the previous line, tests, rates and costs."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int, Role]] = {}
        self._last: dict[str, float] = {}  # last value of numbers that are written only on change

    def begin(self, trainer: Trainer) -> None:
        for line in trainer.journal.lines:
            self._last |= {name: line[name] for name in line if trainer.journal.roles.get(name) in ("rate", "cost")}

    def iterated(self, trainer: Trainer) -> None:
        for phase, update in trainer.updates.items():
            if update.scale < LEAST_SCALE:
                raise DivergedError(_divergence(trainer, f"{phase}/loss_scale"))
        if trainer.saves and (broken := _broken_network(trainer)):
            raise DivergedError(_divergence(trainer, broken))
        for name, value, role in trainer.numbers:
            total, count, _ = self._sums.get(name, (0.0, 0, role))
            self._sums[name] = (value + total, count + 1, role)
        options = trainer.options
        if trainer.tests or trainer.saves or trainer.step % options.log_every == 0:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        line: Line = {
            "step": trainer.step, "epoch": round(trainer.epoch, 6), "images": trainer.images,
            "seconds": round(trainer.seconds, 3),
        }  # fmt: skip
        roles: dict[str, Role] = {name: role for name, (_, _, role) in self._sums.items()}
        # One transfer for all terms: waits for a GPU once per line, not once per term.
        means = torch.stack([(total / count).float() for total, count, _ in self._sums.values()]).tolist()
        line |= dict(zip(self._sums, means, strict=True))
        self._sums.clear()
        for name, value in trainer.tests.items():
            line[f"test/{name}"] = value
            roles[f"test/{name}"] = "error" if name.endswith("_stderr") else "test"
        broken_term = not_finite(line)
        if broken_term:
            raise DivergedError(_divergence(trainer, broken_term))
        changing: dict[str, tuple[float, Role]] = {
            f"{phase}/learning_rate": (update.rate, "rate") for phase, update in trainer.updates.items()
        }
        for name, (value, role) in {**changing, "cost/threads": (threads.number, "cost")}.items():
            if self._last.get(name) != value:
                line[name] = self._last[name] = value
                roles[name] = role
        if trainer.tests or trainer.complete:
            line["cost/peak_memory_mib"], roles["cost/peak_memory_mib"] = round(peak_memory(trainer.device), 1), "cost"
        trainer.journal.write(line, roles)
        for callback in trainer.callbacks:
            callback.logged(trainer, line)


def _broken_network(trainer: Trainer) -> str:
    """Returns the name of a network with weights that are not finite; "" if there is none.

    A gradient can be NaN where the loss is not, and the next checkpoint must be one to go on from.
    """
    for name, network in trainer.model.networks.items():
        if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
            return name
    return ""


def _divergence(trainer: Trainer, broken: str) -> str:
    """Records why a training cannot continue, and returns the message; `broken` is a term, PHASE/TERM, or a network."""
    saved = checkpoints(trainer.folder / "checkpoints")
    checkpoint_text = f"Its last good checkpoint, {saved[0].name}, is kept." if saved else "There is no checkpoint yet."
    phase, is_term, _ = broken.partition("/")
    update = trainer.updates.get(phase) if is_term else None
    rate = update.full_rate if update else next(iter(trainer.updates.values())).full_rate
    what = f"the term {broken}" if is_term else f"a weight of the {broken}"
    how = "whatever its scale, it overflows" if broken.endswith("/loss_scale") else "became NaN or infinite"
    wider = ", or training.precision=float32" if update and update.scaler else ""
    message = (
        f"Training of {trainer.folder} stopped at step {trainer.step}: {what} {how}. {checkpoint_text} Try a "
        f"lower learning rate (training.optimizer.learning_rate={rate / 4:g}){wider}."
    )
    note(trainer, message)
    return message


def note(trainer: Trainer, words: str) -> None:
    """Adds a message to the run's warnings."""
    path = trainer.folder / "warnings.jsonl"
    lines = [*read_warnings(path), {"step": trainer.step, "epoch": round(trainer.epoch, 3), "warning": words}]
    write_file(path, "".join(json.dumps(line) + "\n" for line in lines))
