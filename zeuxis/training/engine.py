"""The loop over a model's phases, used for training, for capture on a GPU, and to count multiply-adds.

    for each phase:
        for each of its repeats:
            loss = sum of the phase's terms         (averaged over several batches if gradients are accumulated)
            gradient of the loss -> mean over the processes -> clipping -> update by the phase's optimiser

A phase updates only its own networks; gradients pass through the others without changing them. After an update, shared
values that were computed through the updated networks are dropped.

In float16, numbers below 6e-8 are 0 and numbers above 65,504 infinite. So the loss is multiplied by a scale before the
backward pass, and the mean gradient divided by it. If a gradient is not finite, the step is skipped and the scale
halved; after many steps without that it is doubled (`torch.amp.GradScaler`). Each optimiser has its own scale.
Gradients are averaged over the processes before they are divided, so all of them skip the same steps.

Source: P. Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zeuxis.models import Iteration, Phase, Weighted
from zeuxis.models.base import Role, total
from zeuxis.training.checkpoint import Checkpoint
from zeuxis.training.distributed import ALONE, Share

__all__ = ["Number", "Update", "iterate"]


class Number(NamedTuple):
    """A number logged in a step.

    Attributes:
        name: `PHASE/TERM`.
        value: a tensor, `()`.
        role: what kind of number it is.
    """

    name: str
    value: Tensor
    role: Role


class Update:
    """The parameters of a phase and the optimiser that updates them.

    Args:
        parameters: of the networks that the phase updates.
        optimizer: None to compute gradients without changing any parameter.
        clip: largest norm of the gradient, to which it is clipped; 0 for no clipping.
        scaler: scales the loss, for training in float16; None for the other formats.

    Attributes:
        scale: that the next loss is multiplied by.
        skips: how many steps were skipped, because a gradient was not finite.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer | None = None,
        clip: float = 0.0,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.parameters, self.optimizer, self.clip, self.scaler = list(parameters), optimizer, clip, scaler
        self.scale, self.skips = scaler.get_scale() if scaler else 1.0, 0
        # The recipe's learning rate; a schedule multiplies it.
        self.full_rate = float(optimizer.param_groups[0]["lr"]) if optimizer else 0.0
        self.rate = self.full_rate

    def set_rate(self, factor: float) -> None:
        """Sets the learning rate to a multiple of the recipe's."""
        self.rate = self.full_rate * factor
        for group in self.optimizer.param_groups if self.optimizer else []:
            if isinstance(group["lr"], Tensor):  # a captured graph reads it from this memory
                group["lr"].fill_(self.rate)
            else:
                group["lr"] = self.rate

    def state(self, prefix: str) -> dict[str, Any]:
        """Returns the optimiser's state: tensors and plain values by `PREFIX/INDEX/KEY`, its class name by `PREFIX`."""
        if self.optimizer is None:
            return {}
        state: dict[str, Any] = {prefix: type(self.optimizer).__name__}
        if self.scaler:
            state[f"scale/{prefix}"] = self.scaler.state_dict()
        for index, entries in self.optimizer.state_dict()["state"].items():
            state |= {f"{prefix}/{index}/{key}": value for key, value in entries.items() if value is not None}
        return state

    def restore(self, checkpoint: Checkpoint, prefix: str) -> None:
        """Restores the optimiser's state from a checkpoint; does nothing if the checkpoint is of another optimiser."""
        if self.scaler and (scaling := checkpoint.state.get(f"scale/{prefix}")):
            self.scaler.load_state_dict(scaling)
            self.scale = self.scaler.get_scale()
        # Early versions had only AdamW and did not store its name.
        if self.optimizer is None or checkpoint.state.get(prefix, "AdamW") != type(self.optimizer).__name__:
            return
        state: dict[int, dict[str, Any]] = {}
        for name, value in {**checkpoint.state, **checkpoint.tensors}.items():
            if name.startswith(f"{prefix}/"):
                index, key = name.removeprefix(f"{prefix}/").split("/")
                state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        for parameter, entries in self.optimizer.state.items():
            for key, value in entries.items():
                # Moments get the memory layout of their parameter, as when they were saved.
                if isinstance(value, Tensor) and value.dim() and value.shape == parameter.shape:
                    entries[key] = torch.empty_like(parameter).copy_(value)

    def clear(self) -> None:
        """Clears the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def backward(self, loss: Tensor, batches: int) -> None:
        """Adds the gradient of one batch's loss, divided by the number of batches that are accumulated."""
        loss = loss / batches if batches > 1 else loss
        loss = self.scaler.scale(loss) if self.scaler else loss
        loss.backward(inputs=self.parameters)  # type: ignore[no-untyped-call]

    def step(self, measure: bool, share: Share) -> Tensor | None:
        """Updates the parameters; returns the gradient's norm before clipping if it was computed, else None."""
        norm = None
        share.average([p.grad for p in self.parameters if p.grad is not None])
        if self.scaler and self.optimizer:
            self.scaler.unscale_(self.optimizer)
        if measure or self.clip:
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if norm is not None and self.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        if self.scaler and self.optimizer:
            before = self.scale
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.scale = self.scaler.get_scale()
            self.skips += self.scale < before
        elif self.optimizer:
            self.optimizer.step()
        return norm


def iterate(
    phases: Sequence[Phase],
    updates: Mapping[str, Update],
    iterations: Sequence[Sequence[Iteration]],
    *,
    norms: bool = False,
    share: Share = ALONE,
) -> list[Number]:
    """Runs every phase with all its repeats.

    Args:
        phases: those that are due, in order.
        updates: by the name of the phase that owns the optimiser.
        iterations: for the r-th repeat of every phase, one iteration, or several whose gradients are accumulated.
        norms: whether to measure the gradients' norms.
        share: of the batches, where several processes train together.

    Returns:
        The logged numbers of every repeat and batch.
    """
    numbers: list[Number] = []
    for phase in phases:
        update = updates[phase.optimizer]
        for parts in iterations[: phase.repeat]:
            skips = update.skips
            update.clear()
            for iteration in parts:
                iteration.loss_scale = update.scale
                terms = phase.loss(iteration)
                loss = total(terms)
                update.backward(loss, len(parts))
                for name, term in terms.items():
                    value = term.value if isinstance(term, Weighted) else term
                    numbers.append(Number(f"{phase.name}/{name}", value.detach(), "term"))
                numbers.append(Number(f"{phase.name}/loss", loss.detach(), "loss"))
                numbers += [Number(f"{phase.name}/{name}", *logged) for name, logged in iteration.logged.items()]
                iteration.logged.clear()
                if len(parts) > 1:  # accumulation is meant to hold one batch in memory at a time
                    iteration.forget()
            norm = update.step(norms, share)
            if norm is not None:
                numbers.append(Number(f"{phase.name}/gradient_norm", norm, "gradient"))
            if update.scaler:
                scaling = {"loss_scale": update.scale, "skipped": float(update.skips - skips)}
                for name, number in scaling.items():
                    kept = torch.tensor(number, device=loss.device)
                    numbers.append(Number(f"{phase.name}/{name}", kept, "diagnostic"))
            for other in (iteration for parts in iterations for iteration in parts):
                other.forget(phase.updates)
    return numbers
