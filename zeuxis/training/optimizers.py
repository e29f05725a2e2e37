"""Optimisers by name: `training.optimizer.name`, with its options beside it.

All are those of PyTorch. PyTorch wraps their methods to exclude them from its compiler, and the wrappers import the
compiler, which takes 1.5 of the 3.3 seconds from the start of a training to its first step. Nothing is compiled here,
so the methods are unwrapped (`unwrapped`).

Sources: D. P. Kingma and J. Ba, Adam, ICLR 2015; I. Loshchilov and F. Hutter, Decoupled Weight Decay Regularization,
ICLR 2019 (AdamW, which without weight decay is Adam); T. Dozat, Incorporating Nesterov Momentum into Adam, 2016
(NAdam); L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020 (RAdam); T. Tieleman and
G. Hinton, Lecture 6.5, RMSProp, 2012.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from zeuxis.errors import UserError, quoted
from zeuxis.models import Model
from zeuxis.recipe import OptimizerOptions, Recipe
from zeuxis.registry import Registry
from zeuxis.training.engine import Update

__all__ = ["OPTIMIZERS", "OptimizerKind", "build_updates", "optimizer_of", "unwrapped"]


class AdamOptions(OptimizerOptions):
    """Adam and its relatives."""

    betas: tuple[float, float] = Field((0.9, 0.999), description="decay of the gradient's first and second moment")

    @field_validator("betas")
    @classmethod
    def _in_range(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("each beta must be in 0 <= beta < 1")
        return betas


class RMSpropOptions(OptimizerOptions):
    """RMSprop."""

    alpha: float = Field(0.99, ge=0, lt=1, description="decay of the squared gradient's mean")
    momentum: float = Field(0.0, ge=0, lt=1)


class SGDOptions(OptimizerOptions):
    """Stochastic gradient descent."""

    momentum: float = Field(0.0, ge=0, lt=1)
    nesterov: bool = Field(False, description="look ahead along the momentum")

    @model_validator(mode="after")
    def _has_momentum(self) -> SGDOptions:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov looks ahead along the momentum, which is 0; set momentum as well, such as 0.9")
        return self


@dataclass(frozen=True)
class OptimizerKind:
    """An optimiser that a recipe may name.

    Attributes:
        Options: its options in a recipe.
        make: builds it from parameter groups, options, and whether a GPU will capture its steps.
        description: one line of text.
    """

    Options: type[OptimizerOptions]
    make: Callable[[list[dict[str, Any]], Any, bool], torch.optim.Optimizer]
    description: str


OPTIMIZERS: Registry[OptimizerKind] = Registry("optimizer", "zeuxis.training.optimizers")


def optimizer_of(recipe: Recipe, phase: str = "") -> tuple[OptimizerKind, OptimizerOptions]:
    """Returns the optimiser of a phase and its options; without a phase, the one shared by phases without their own.

    Raises:
        UserError: for an unknown optimiser or invalid options.
    """
    own = phase in recipe.training.optimizers
    choice = recipe.training.optimizers[phase] if own else recipe.training.optimizer
    kind = OPTIMIZERS[choice.name]
    key = f"training.optimizers.{phase}" if own else "training.optimizer"
    return kind, choice.read(kind.Options, f"Recipe {recipe.name}", key)


def build_updates(model: Model) -> dict[str, Update]:
    """Returns the updates of a model's phases, by the name of the phase that owns the optimiser.

    Raises:
        UserError: for an unknown optimiser or phase, or invalid options.
    """
    recipe = model.recipe
    phases = {phase.name: phase for phase in model.phases if phase.optimizer == phase.name}
    for name in recipe.training.optimizers:
        if name not in phases:
            raise UserError(
                f"training.optimizers.{quoted(name)} names no phase of this model; its phases are {', '.join(phases)}."
            )
    updates = {}
    for name, phase in phases.items():
        kind, options = optimizer_of(recipe, name)
        parameters = [p for network in phase.updates for p in model.networks[network].parameters()]
        optimizer = kind.make(parameter_groups(parameters, options), options, recipe.training.capture)
        reduced = {model.net(network).precision for network in phase.updates}
        scaler = torch.amp.GradScaler(parameters[0].device.type) if torch.float16 in reduced else None
        updates[name] = Update(parameters, optimizer, options.clip, scaler)
    return updates


def parameter_groups(parameters: Iterable[nn.Parameter], options: OptimizerOptions) -> list[dict[str, Any]]:
    """Groups parameters by weight decay: in one group, or with vectors and scalars in a second one without decay."""
    parameters = list(parameters)
    if options.decay == "all":
        return [{"params": parameters, "weight_decay": options.weight_decay}]
    weights = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    groups = [(weights, options.weight_decay), (others, 0.0)]
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]


@cache
def unwrapped(kind: Any) -> Callable[..., torch.optim.Optimizer]:
    """Returns an optimiser class of PyTorch with methods that do not import its compiler."""
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


def _rate(groups: list[dict[str, Any]], options: OptimizerOptions, capturable: bool) -> Any:
    """Returns the learning rate; if steps are captured, as a tensor on the device, which a schedule can change."""
    if not capturable:
        return options.learning_rate
    device = groups[0]["params"][0].device
    # GPU kernels read a float32 from memory. CPU kernels take the number: in float64 it is exactly the recipe's.
    return torch.tensor(
        options.learning_rate, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device
    )


def _adam(kind: Any, description: str, **fixed: Any) -> OptimizerKind:
    def make(groups: list[dict[str, Any]], options: AdamOptions, capturable: bool) -> torch.optim.Optimizer:
        rate = _rate(groups, options, capturable)
        return unwrapped(kind)(groups, lr=rate, betas=options.betas, capturable=capturable, **fixed)

    return OptimizerKind(AdamOptions, make, description)


OPTIMIZERS.register("adamw", _adam(torch.optim.AdamW, "Adam with decoupled weight decay", fused=True))
OPTIMIZERS.register("adam", _adam(torch.optim.Adam, "Adam, with weight decay added to the gradient", fused=True))
OPTIMIZERS.register("nadam", _adam(torch.optim.NAdam, "Adam with Nesterov momentum", decoupled_weight_decay=True))
OPTIMIZERS.register("radam", _adam(torch.optim.RAdam, "Adam with a rectified start", decoupled_weight_decay=True))


def _rmsprop(groups: list[dict[str, Any]], options: RMSpropOptions, capturable: bool) -> torch.optim.Optimizer:
    return unwrapped(torch.optim.RMSprop)(
        groups,
        lr=_rate(groups, options, capturable),
        alpha=options.alpha,
        momentum=options.momentum,
        capturable=capturable,
    )


def _sgd(groups: list[dict[str, Any]], options: SGDOptions, capturable: bool) -> torch.optim.Optimizer:
    return unwrapped(torch.optim.SGD)(
        groups, lr=_rate(groups, options, capturable), momentum=options.momentum, nesterov=options.nesterov, fused=True
    )


OPTIMIZERS.register("rmsprop", OptimizerKind(RMSpropOptions, _rmsprop, "RMSprop, as used by the first Wasserstein GAN"))
OPTIMIZERS.register("sgd", OptimizerKind(SGDOptions, _sgd, "stochastic gradient descent, with optional momentum"))
