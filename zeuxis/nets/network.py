"""A network built from layer specs: a trunk, and optional named heads that share it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from zeuxis.errors import UserError
from zeuxis.nets.layers import ACTIVATIONS, WEIGHTED, Residual, Shape, make_layer, show
from zeuxis.recipe import NetworkOptions

__all__ = ["Network", "Row"]

# Activations that can overwrite what the layer before put out, which neither that layer's backward pass nor anybody
# else reads: 2.4 ms of memory traffic become 0.7 ms for 128x32x28x28 in bfloat16 on two cores.
IN_PLACE = (nn.ReLU, nn.LeakyReLU)
OVERWRITABLE = WEIGHTED | {"bn", "ln", "res"}
# Last activations, computed in float32 whatever the precision: in bfloat16 a tanh above 0.998 is 1, and its slope 0.
SQUASHING = (nn.Tanh, nn.Sigmoid, nn.Softmax)


@dataclass(frozen=True)
class Row:
    """A line of the summary table."""

    layer: str
    output: Shape
    parameters: int
    trainable: int


class Network(nn.Module):
    """A stack of layers with shapes worked out from the input.

    Args:
        options: the recipe's layers, or a dotted path to the user's own module.
        shape: shape of the input without the batch dimension, `(C, H, W)` or `(N,)`.
        symbols: sizes the specs may write by name, such as `latent`.
        where: `"recipe NAME, network NAME"`, for messages.

    Raises:
        UserError: names recipe, network, layer position and the shape it met.
    """

    def __init__(self, options: NetworkOptions, shape: Shape, symbols: Mapping[str, int], where: str) -> None:
        super().__init__()
        self.where = where
        # What matrices are multiplied in while it trains; weights, outputs and all losses stay float32.
        self.precision = torch.float32
        self.input_shape = shape
        self.rows: list[Row] = []
        self.heads = nn.ModuleDict()
        self.head_shapes: dict[str, Shape] = {}
        if options.module:
            self.trunk: nn.Sequential = nn.Sequential(_imported(options, where))
            with torch.no_grad():
                self.output_shape: Shape = tuple(self.trunk.eval()(torch.zeros(1, *shape)).shape[1:])
            self.rows.append(_row(options.module, self.trunk, self.output_shape))
        else:
            self.trunk, self.output_shape = self._stack(_written_out(options.layers, options), shape, symbols, "")
            for name, layers in options.heads.items():
                stack, self.head_shapes[name] = self._stack(
                    _written_out(layers, options), self.output_shape, symbols, f"{name}: "
                )
                self.heads[name] = stack
            _initialise(self, options.init)
        self.train()

    def _stack(
        self, layers: list[str], shape: Shape, symbols: Mapping[str, int], head: str
    ) -> tuple[nn.Sequential, Shape]:
        modules = []
        for position, text in enumerate(layers, 1):
            try:
                module, out = make_layer(text, shape, symbols)
            except UserError as error:
                raise UserError(
                    f"In {self.where}, {head and f'head {head}'}layer {position} ('{text}') at input {show(shape)}: "
                    f"{str(error).rstrip('.')}."
                ) from None
            if position > 1 and layers[position - 2].split()[0] in OVERWRITABLE and isinstance(module, IN_PLACE):
                module.inplace = True
            self.rows.append(_row(head + text, module, out))
            modules.append(module)
            shape = out
        return nn.Sequential(*modules), shape

    @overload
    def forward(self, x: Tensor, *, logits: bool = ...) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, *, logits: bool = ..., heads: Literal[True]) -> dict[str, Tensor]: ...
    def forward(self, x: Tensor, *, logits: bool = False, heads: bool = False) -> Tensor | dict[str, Tensor]:
        """Runs the network.

        Args:
            x: `(B, *input_shape)`.
            logits: leave out a sigmoid or softmax at the end, for losses computed from logits.
            heads: return the outputs of all heads by name.
        """
        with self._multiplying(x.device):
            if heads:
                features = self.trunk(x)
                return {name: _run(head, features, logits).float() for name, head in self.heads.items()}
            return _run(self.trunk, x, logits).float()

    def features(self, x: Tensor, layers: int | None = None) -> Tensor:
        """What the trunk makes of `(B, *input_shape)`: its output, or that of its first layers."""
        with self._multiplying(x.device):
            return _run(self.trunk[:layers], x, logits=False).float()

    def _multiplying(self, device: torch.device) -> AbstractContextManager[object]:
        """In training, products in the network's precision; else as the caller has it."""
        reduced = self.training and self.precision != torch.float32
        return torch.autocast(device.type, self.precision) if reduced else nullcontext()

    def require_output(self, shape: Shape, meaning: str) -> None:
        """Raises a `UserError` unless the output has this shape."""
        if self.output_shape != shape:
            last = f" after '{self.rows[-1].layer}'" if self.rows else ""
            raise UserError(
                f"In {self.where}, the output{last} is {show(self.output_shape)}, but {meaning} needs {show(shape)}."
            )


def _written_out(layers: list[str], options: NetworkOptions) -> list[str]:
    """Layers with what the recipe says of all of them at once."""
    written: list[str] = []
    for i, text in enumerate(layers, 1):
        word = (text.split() or [""])[0]
        written.append(
            f"{text} sn" if options.spectral_norm and word in WEIGHTED and "sn" not in text.split() else text
        )
        if options.dropout and word in ACTIVATIONS and i < len(layers):
            written.append(f"dropout {options.dropout:g}")
    return written


def _run(stack: nn.Module, x: Tensor, logits: bool) -> Tensor:
    layers = list(stack.children())
    if logits and layers and isinstance(layers[-1], nn.Sigmoid | nn.Softmax):
        layers.pop()
    for layer in layers:
        x = layer(x.float() if isinstance(layer, SQUASHING) and layer is layers[-1] else x)
    return x


def _row(layer: str, module: nn.Module, shape: Shape) -> Row:
    """Counts as the Keras summary does: the moving mean and variance of a batch norm are parameters."""
    trainable = sum(p.numel() for p in module.parameters())
    moving = sum(
        int(m.running_mean.numel() + m.running_var.numel())
        for m in module.modules()
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.running_mean is not None and m.running_var is not None
    )
    return Row(layer, shape, trainable + moving, trainable)


def _initialise(network: nn.Module, how: str) -> None:
    """Sets weights of dense and convolutional layers; biases start at zero but for torch's own way."""
    if how == "torch":
        return
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            # Under spectral normalisation `weight` is computed; the parameter behind it is the original.
            normed = nn.utils.parametrize.is_parametrized(module, "weight")
            weight: Any = module.parametrizations.weight.original if normed else module.weight  # type: ignore[union-attr]
            if how == "glorot":
                nn.init.xavier_uniform_(weight)
            elif how == "he":
                nn.init.kaiming_normal_(weight, a=0.2)
            else:
                nn.init.normal_(weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Residual):  # every block begins as its shortcut, so depth costs nothing at first
            nn.init.zeros_(module.last.weight)


def _imported(options: NetworkOptions, where: str) -> nn.Module:
    path, _, name = options.module.rpartition(".")
    try:
        module = getattr(import_module(path), name)(**options.arguments)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"In {where}, the module '{options.module}' cannot be made: {error}.") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"In {where}, '{options.module}' makes a {type(module).__name__}, not a torch.nn.Module.")
    return module
