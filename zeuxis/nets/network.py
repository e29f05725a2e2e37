"""A network built from layer specs: a trunk, and optional named heads that share it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from zeuxis.errors import UserError, quoted
from zeuxis.nets.layers import ACTIVATIONS, WEIGHTED, Residual, Shape, make_layer, require_parameters, show
from zeuxis.recipe import NetworkOptions
from zeuxis.trust import NOTHING, Call, Trust

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
        trust: whose modules may be imported.

    Raises:
        UserError: names recipe, network, layer position and the shape it met; or the module, where it is not trusted.
    """

    def __init__(
        self,
        options: NetworkOptions,
        shape: Shape,
        symbols: Mapping[str, int],
        where: str,
        *,
        trust: Trust = NOTHING,
    ) -> None:
        super().__init__()
        self.where = where
        # What matrices are multiplied in while it trains; weights, outputs and all losses stay float32.
        self.precision = torch.float32
        self.input_shape = shape
        self.rows: list[Row] = []
        self.heads = nn.ModuleDict()
        self.head_shapes: dict[str, Shape] = {}
        self.trunk: nn.Sequential
        self.output_shape: Shape
        if options.call:
            self.trunk = imported = Imported(options.call, trust, where)
            self.output_shape = imported.tried(shape)
            self.rows.append(_row(options.module, self.trunk, self.output_shape))
        else:
            self.trunk, self.output_shape = self._stack(_written_out(options.layers, options), shape, symbols, "")
        for name, layers in options.heads.items():
            stack, self.head_shapes[name] = self._stack(
                _written_out(layers, options), self.output_shape, symbols, f"{name}: "
            )
            try:
                self.heads[name] = stack
            except KeyError as error:  # PyTorch's own names, and dots
                raise UserError(f"In {where}, a head cannot be called '{quoted(name)}'.") from error
        _initialise(self.heads if options.call else self, options.init)
        self.train()

    def _stack(
        self, layers: list[str], shape: Shape, symbols: Mapping[str, int], head: str
    ) -> tuple[nn.Sequential, Shape]:
        modules = []
        for position, text in enumerate(layers, 1):
            try:
                module, out = make_layer(text, shape, symbols)
                row = _row(head + text, module, out)
                require_parameters(row.parameters + sum(other.parameters for other in self.rows))
            except UserError as error:
                place = f"{head and f'head {head}'}layer {position} ('{quoted(text)}') at input {show(shape)}"
                raise UserError(f"In {self.where}, {place}: {str(error).rstrip('.')}.") from None
            if position > 1 and layers[position - 2].split()[0] in OVERWRITABLE and isinstance(module, IN_PLACE):
                module.inplace = True
            self.rows.append(row)
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
            stack = self.trunk if layers is None else nn.Sequential(*list(self.trunk)[:layers])
            return _run(stack, x, logits=False).float()

    def _multiplying(self, device: torch.device) -> AbstractContextManager[object]:
        """In training, products in the network's precision; else as the caller has it."""
        reduced = self.training and self.precision != torch.float32
        return torch.autocast(device.type, self.precision) if reduced else nullcontext()

    @property
    def gives_logits(self) -> bool:
        """Whether it ends in a sigmoid that it can leave out."""
        if isinstance(self.trunk, Imported):
            return self.trunk.takes_logits
        return isinstance(self.trunk[-1], nn.Sigmoid)

    @property
    def kept_values(self) -> int:
        """Numbers that a backward pass needs of one image, at the least: outputs of layers that nothing overwrites."""
        free = ACTIVATIONS | {"flatten"}
        return sum(math.prod(row.output) for row in self.rows if row.layer.split(": ")[-1].split()[0] not in free)

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
    if isinstance(stack, Imported):
        made: Tensor = stack(x, logits=logits)
        return made
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


class Imported(nn.Sequential):
    """A module of the user's own, whose mistakes are told as those of layers are.

    Args:
        call: names it.
        trust: whose modules may be imported.
        where: for messages.

    Raises:
        UserError: if it is not trusted, is no class of `torch.nn.Module`, or cannot be made.
    """

    def __init__(self, call: Call, trust: Trust, where: str) -> None:
        trust.require(call, where)
        super().__init__()
        self.place = f"In {where}, the module '{call.module}'"
        self.output_shape: Shape | None = None
        path, _, name = call.module.rpartition(".")
        with self._told("cannot be made"):
            kind = getattr(import_module(path), name)
            if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
                raise UserError(f"{self.place} is no class of torch.nn.Module, so it is not called.")
            self.append(kind(**call.arguments))
            self.takes_logits = "logits" in inspect.signature(self[0].forward).parameters

    def tried(self, shape: Shape) -> Shape:
        """Returns the shape of its output, found by running it as when used, and as in training with a backward pass.

        Args:
            shape: of its input, without the batch dimension.

        Raises:
            UserError: if it fails, gives no tensor of `(B, N)` or `(B, C, H, W)`, or cannot learn.
        """
        with torch.no_grad():
            out = self.eval()(torch.zeros(1, *shape))
        if out.dim() not in (2, 4) or len(out) != 1 or not out.numel() or not out.is_floating_point():
            raise UserError(
                f"{self.place} at input {show(shape)} gives {tuple(out.shape)} of {out.dtype} for a batch of 1; "
                "a network gives floating numbers, (B, N) or (B, C, H, W)."
            )
        self.output_shape = tuple(out.shape[1:])
        moving = [buffer.clone() for buffer in self.buffers()]
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            out = self.train()(torch.zeros(2, *shape))
            if weights := [p for p in self.parameters() if p.requires_grad]:
                with self._told(f"fails at input {show(shape)}, backwards"):
                    torch.autograd.grad(out.sum(), weights, allow_unused=True)
        for buffer, before in zip(self.buffers(), moving, strict=True):
            buffer.copy_(before)
        return self.output_shape

    def forward(self, x: Tensor, *, logits: bool = False) -> Tensor:
        """Runs the module on `(B, *)`; one whose `forward` has an argument `logits` is told it."""
        if logits and not self.takes_logits and isinstance([*self.modules()][-1], nn.Sigmoid | nn.Softmax):
            raise UserError(
                f"{self.place} ends in an activation that the loss wants left out: give its forward an argument "
                "'logits', and leave it out where that is true."
            )
        with self._told(f"fails at input {show(tuple(x.shape[1:]))}"):
            out: Any = self[0](x, logits=logits) if self.takes_logits else self[0](x)
        if not isinstance(out, Tensor):
            raise UserError(f"{self.place} gives a {type(out).__name__}, not a tensor.")
        if self.output_shape not in (None, tuple(out.shape[1:])) or len(out) != len(x):
            raise UserError(
                f"{self.place} gives {tuple(out.shape)} for {tuple(x.shape)}, and gave "
                f"{(1, *(self.output_shape or ()))} for a batch of 1 when it was made."
            )
        return out

    @contextmanager
    def _told(self, how: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the user's code may raise anything
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(f"{self.place} {how}: {quoted(said.rstrip('.'), 300)}.") from error
