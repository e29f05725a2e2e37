"""A network built from layer specs: a trunk, and optional named heads that share it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from zeuxis.errors import UserError, quoted
from zeuxis.nets.context import Conditioning, Context, Embedding, as_vectors, beside
from zeuxis.nets.layers import ACTIVATIONS, WEIGHTED, Shape, embeds, make_layer, require_parameters, show
from zeuxis.recipe import NetworkOptions
from zeuxis.trust import NOTHING, Call, Trust

__all__ = ["Network", "Output", "Reading", "Row"]

# Activations that can overwrite what the layer before put out, which neither that layer's backward pass nor anybody
# else reads: 2.4 ms of memory traffic become 0.7 ms for 128x32x28x28 in bfloat16 on two cores.
IN_PLACE = (nn.ReLU, nn.LeakyReLU)
OVERWRITABLE = WEIGHTED | {"bn", "ln", "gn", "res"}
# Last activations, computed in float32 whatever the precision: in bfloat16 a tanh above 0.998 is 1, and its slope 0.
SQUASHING = (nn.Tanh, nn.Sigmoid, nn.Softmax)


@dataclass(frozen=True)
class Row:
    """A line of the summary table."""

    layer: str
    output: Shape
    parameters: int
    trainable: int


class Reading:
    """An output of a network, with and without the sigmoid or softmax that it ends in."""

    def __init__(self, before: Tensor, squash: nn.Module | None) -> None:
        self._before, self._squash = before, squash

    @property
    def logits(self) -> Tensor:
        """The output `(B, *)` before a sigmoid or softmax at the end; the output itself where there is none."""
        return self._before.float()

    @cached_property
    def value(self) -> Tensor:
        """The output, `(B, *)`."""
        if self._squash is None:
            return self.logits
        squashed: Tensor = self._squash(self.logits)
        return squashed.float()


class Output(Reading):
    """What a network makes of its input; heads are computed when they are first asked for.

    Attributes:
        features: what its heads share; of a network without heads, what its last dense layer decides by.
    """

    def __init__(
        self, network: Network, before: Tensor, squash: nn.Module | None, features: Tensor, context: Context
    ) -> None:
        super().__init__(before, squash)
        self._network, self._features, self._context = network, features, context

    @property
    def features(self) -> Tensor:
        """`(B, *)`."""
        return self._features.float()

    @cached_property
    def heads(self) -> dict[str, Reading]:
        """The outputs of the heads, by name."""
        network = self._network
        with network.multiplying(self._features.device):
            return {
                name: Reading(*run(head, self._features, self._context)[:2]) for name, head in network.heads.items()
            }


class Network(nn.Module):
    """A stack of layers with shapes worked out from the input.

    Args:
        options: the recipe's layers, or a dotted path to the user's own module.
        shape: shape of the input without the batch dimension, `(C, H, W)` or `(N,)`.
        symbols: sizes the specs may write by name, such as `latent`.
        where: `"recipe NAME, network NAME"`, for messages.
        conditioning: what it takes beside its input.
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
        conditioning: Conditioning | None = None,
        trust: Trust = NOTHING,
    ) -> None:
        super().__init__()
        self.where, self.conditioning = where, conditioning or Conditioning()
        # What matrices are multiplied in while it trains; weights, outputs and all losses stay float32.
        self.precision = torch.float32
        self.rows: list[Row] = []
        self.heads = nn.ModuleDict()
        self.head_shapes: dict[str, Shape] = {}
        self.trunk: nn.Sequential | Imported
        self.output_shape: Shape
        layers = _written_out(options.layers, options)
        # Shapes of what was kept, by name, for layers that take it up; the same for trunk and heads.
        self._kept: dict[str, Shape] = {}
        everything = [*layers, *(text for head in options.heads.values() for text in head)]
        self._width = options.embedding if self.conditioning.size and embeds(everything) else 0
        self.embedding = Embedding(self.conditioning, self._width) if self._width else None
        if self.embedding:
            self.rows.append(_row("embedding", self.embedding, (self._width,)))
        self.input_shape = shape
        if options.call:
            self.trunk = imported = Imported(options.call, trust, where, shape, symbols, self.conditioning)
            shapes = imported.tried(shape)
            self.output_shape = next(iter(shapes.values()))
            self.head_shapes = shapes if "" not in shapes else {}
            self.rows.append(_row(options.module, self.trunk, self.output_shape))
        else:
            if not self._width:  # the conditioning stands beside the input
                self.input_shape = (shape[0] + self.conditioning.size, *shape[1:])
            self.trunk, self.output_shape = self._stack(layers, self.input_shape, symbols, "")
        for name, texts in options.heads.items():
            stack, self.head_shapes[name] = self._stack(
                _written_out(texts, options), self.output_shape, symbols, f"{name}: "
            )
            try:
                self.heads[name] = stack
            except KeyError as error:  # PyTorch's own names, and dots
                raise UserError(f"In {where}, a head cannot be called '{quoted(name)}'.") from error
        _initialise(nn.ModuleList(self.heads.values()) if options.call else self, options.init)
        self.train()

    __call__: Callable[..., Output]

    def _stack(
        self, layers: list[str], shape: Shape, symbols: Mapping[str, int], head: str
    ) -> tuple[nn.Sequential, Shape]:
        modules = []
        for position, text in enumerate(layers, 1):
            try:
                module, out = make_layer(text, shape, symbols, embedding=self._width, kept=self._kept)
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

    def forward(self, x: Tensor, *, time: Tensor | None = None, condition: Tensor | None = None) -> Output:
        """Runs the network.

        Args:
            x: `(B, *)`, without the conditioning.
            time: `(B, 1)` in 0..1, where the network takes one.
            condition: `(B, K)`, where the network takes one.
        """
        if isinstance(self.trunk, Imported):
            return ImportedOutput(self, self.trunk, x, {"time": time, "condition": condition})
        context = Context()
        if self.embedding is None:
            x = beside(x, as_vectors({"time": time, "condition": condition}))
        with self.multiplying(x.device):
            if self.embedding is not None:
                context.embedding = self.embedding(time, condition)
            before, squash, features = run(self.trunk, x, context)
        if self.heads:
            features = before if squash is None else squash(before.float())
        return Output(self, before, squash, features, context)

    def multiplying(self, device: torch.device) -> AbstractContextManager[object]:
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
    def may_be_bounded(self) -> bool:
        """Whether its output may lie in 0..1: of a module of the user's own, nobody knows."""
        return isinstance(self.trunk, Imported) or isinstance(self.trunk[-1], nn.Sigmoid | nn.Softmax)

    @property
    def feature_shape(self) -> Shape | None:
        """Shape of `Output.features`; None of a network with neither heads nor a dense layer."""
        if self.head_shapes or isinstance(self.trunk, Imported):
            return self.output_shape
        dense = [layer for layer in self.trunk if isinstance(layer, nn.Linear)]
        return (dense[-1].in_features,) if dense else None

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


def run(stack: nn.Module, x: Tensor, context: Context) -> tuple[Tensor, nn.Module | None, Tensor]:
    """Runs a stack of layers.

    Returns:
        The output before a sigmoid or softmax at its end, that layer or None, and what its last dense layer took.
    """
    layers = list(stack.children())
    squash = layers.pop() if layers and isinstance(layers[-1], nn.Sigmoid | nn.Softmax) else None
    features = x
    for layer in layers:
        if isinstance(layer, nn.Linear):
            features = x
        if isinstance(layer, SQUASHING) and layer is layers[-1]:
            x = x.float()
        forward: Any = type(layer).forward
        x = layer(x, context) if _takes_context(forward) else layer(x)
    return x, squash, features


@cache
def _takes_context(forward: Callable[..., object]) -> bool:
    """Whether a layer with this method is called with the context."""
    return "context" in inspect.signature(forward).parameters


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
        begin = getattr(module, "begin", None)
        if callable(begin):  # a block that begins in a way of its own
            begin()


class Imported(nn.Module):
    """A module of the user's own, whose errors read as those of layers do.

    It is made with the recipe's `arguments`, and with `shape`, `conditioning` and symbols such as `latent` where its
    `__init__` has parameters of these names. It is called with its input, and with `time`, `condition` and `logits`
    where its `forward` has them. It returns a tensor, or tensors of its heads by name.

    Args:
        call: names it.
        trust: whose modules may be imported.
        where: for messages.
        shape: of its input, without the batch dimension.
        symbols: sizes of the recipe, by name.
        conditioning: what it takes beside its input.

    Raises:
        UserError: if it is not trusted, is no class of `torch.nn.Module`, or cannot be made.
    """

    def __init__(
        self, call: Call, trust: Trust, where: str, shape: Shape, symbols: Mapping[str, int], conditioning: Conditioning
    ) -> None:
        trust.require(call, where)
        super().__init__()
        self.place, self.conditioning = f"In {where}, the module '{call.module}'", conditioning
        self.shapes: dict[str, Shape] | None = None
        path, _, name = call.module.rpartition(".")
        with self._explained("cannot be made"):
            kind = getattr(import_module(path), name)
            if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
                raise UserError(f"{self.place} is no class of torch.nn.Module, so it is not called.")
            self.takes = set(inspect.signature(kind.forward).parameters)
            self.takes_logits = "logits" in self.takes
            # What it has no argument for stands beside its input.
            unasked = Conditioning(
                0 if "condition" in self.takes else conditioning.condition,
                conditioning.time and "time" not in self.takes,
            )
            offered = {**symbols, "shape": (shape[0] + unasked.size, *shape[1:]), "conditioning": conditioning}
            wanted = inspect.signature(kind.__init__).parameters
            self.add_module("0", kind(**{k: v for k, v in offered.items() if k in wanted} | dict(call.arguments)))

    def tried(self, shape: Shape) -> dict[str, Shape]:
        """Returns the shapes of its outputs, found by running it as when used, and as in training with a backward pass.

        Args:
            shape: of its input, without the batch dimension.

        Returns:
            By name; of a single tensor, under "".

        Raises:
            UserError: if it fails, gives no tensor of `(B, N)` or `(B, C, H, W)`, or cannot learn.
        """

        def of(count: int) -> dict[str, Tensor]:
            conditioning = {
                "time": torch.zeros(count, 1) if self.conditioning.time else None,
                "condition": torch.zeros(count, self.conditioning.condition) if self.conditioning.condition else None,
            }
            return self.forward(torch.zeros(count, *shape), conditioning)

        self.eval()
        with torch.no_grad():
            outs = of(1)
        for out in outs.values():
            if out.dim() not in (2, 4) or len(out) != 1 or not out.numel() or not out.is_floating_point():
                raise UserError(
                    f"{self.place} at input {show(shape)} gives {tuple(out.shape)} of {out.dtype} for a batch of 1; "
                    "a network gives floating numbers, (B, N) or (B, C, H, W)."
                )
        self.shapes = {name: tuple(out.shape[1:]) for name, out in outs.items()}
        moving = [buffer.clone() for buffer in self.buffers()]
        self.train()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            outs = of(2)
            if weights := [p for p in self.parameters() if p.requires_grad]:
                with self._explained(f"fails at input {show(shape)}, backwards"):
                    torch.autograd.grad(
                        torch.stack([out.sum() for out in outs.values()]).sum(), weights, allow_unused=True
                    )
        for buffer, before in zip(self.buffers(), moving, strict=True):
            buffer.copy_(before)
        return self.shapes

    def forward(
        self, x: Tensor, conditioning: Mapping[str, Tensor | None], *, logits: bool = False
    ) -> dict[str, Tensor]:
        """Runs the module on `(B, *)`; returns its outputs by name, a single one under ""."""
        if logits and not self.takes_logits and isinstance([*self.modules()][-1], nn.Sigmoid | nn.Softmax):
            raise UserError(
                f"{self.place} ends in an activation that the loss wants left out: give its forward an argument "
                "'logits', and leave it out where that is true."
            )
        given: dict[str, Any] = {name: value for name, value in conditioning.items() if name in self.takes}
        x = beside(x, as_vectors({name: value for name, value in conditioning.items() if name not in self.takes}))
        if self.takes_logits:
            given["logits"] = logits
        with self._explained(f"fails at input {show(tuple(x.shape[1:]))}"):
            made: Any = self.get_submodule("0")(x, **given)
        outs = made if isinstance(made, dict) and made else {"": made}
        for name, out in outs.items():
            if not isinstance(out, Tensor):
                raise UserError(f"{self.place} gives a {type(out).__name__}, not a tensor.")
            if self.shapes is not None and (self.shapes.get(name) != tuple(out.shape[1:]) or len(out) != len(x)):
                raise UserError(
                    f"{self.place} gives {tuple(out.shape)} for {tuple(x.shape)}, and gave "
                    f"{(1, *self.shapes.get(name, ()))} for a batch of 1 when it was made."
                )
        return outs

    @contextmanager
    def _explained(self, how: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the user's code may raise anything
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(f"{self.place} {how}: {quoted(said.rstrip('.'), 300)}.") from error


class ImportedOutput(Output):
    """What a module of the user's own makes of its input; it is called when it is known what is wanted of it."""

    def __init__(
        self, network: Network, module: Imported, x: Tensor, conditioning: Mapping[str, Tensor | None]
    ) -> None:
        self._network, self._module, self._x, self._conditioning = network, module, x, conditioning

    def _called(self, logits: bool) -> dict[str, Tensor]:
        with self._network.multiplying(self._x.device):
            outs = self._module(self._x, self._conditioning, logits=logits)
            return {name: out.float() for name, out in outs.items()}

    @cached_property
    def logits(self) -> Tensor:
        return next(iter(self._called(logits=True).values()))

    @cached_property
    def value(self) -> Tensor:
        return next(iter(self._called(logits=False).values()))

    @property
    def features(self) -> Tensor:
        return self.value

    @cached_property
    def heads(self) -> dict[str, Reading]:
        return {name: Reading(out, None) for name, out in self._called(logits=self._module.takes_logits).items()}
