"""A network built from layer specs: a trunk and optional named heads on top of it."""

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
from zeuxis.nets.convolution import Upsample
from zeuxis.nets.layers import ACTIVATIONS, WEIGHTED, Block, Shape, embeds, make_layer, require_parameters, show
from zeuxis.recipe import NetworkOptions
from zeuxis.trust import NOTHING, Call, Trust

__all__ = ["Network", "Output", "Reading", "Row"]

# Activations that may overwrite the output of the layer before: neither its backward pass nor anything else reads that
# output. For 128x32x28x28 in bfloat16 on two cores, memory traffic falls from 2.4 ms to 0.7 ms.
IN_PLACE = (nn.ReLU, nn.LeakyReLU)
OVERWRITABLE = WEIGHTED | {"bn", "ln", "gn", "res"}
# Final activations are computed in float32 at any precision: in bfloat16, a tanh above 0.998 is 1 and its slope 0.
SQUASHING = (nn.Tanh, nn.Sigmoid, nn.Softmax)
# Iterations that estimate the spectral norm of initial weights, as many as PyTorch's own.
POWER_ITERATIONS = 15


@dataclass(frozen=True)
class Row:
    """A line of the summary table."""

    layer: str
    output: Shape
    parameters: int
    trainable: int


class Reading:
    """An output of a network, with and without its final sigmoid or softmax."""

    def __init__(self, before: Tensor, squash: nn.Module | None) -> None:
        self._before, self._squash = before, squash

    @property
    def logits(self) -> Tensor:
        """The output `(B, *)` before the final sigmoid or softmax; the output itself if there is none."""
        return self._before.float()

    @cached_property
    def value(self) -> Tensor:
        """The output, `(B, *)`."""
        if self._squash is None:
            return self.logits
        squashed: Tensor = self._squash(self.logits)
        return squashed.float()


class Output(Reading):
    """The output of a network for a batch; heads are computed on first access.

    Attributes:
        features: the input of its heads; in a network without heads, the input of its last dense layer.
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
    """A stack of layers whose shapes follow from the shape of the input.

    Args:
        options: the recipe's layers, or a dotted path to the user's own module.
        shape: shape of the input without the batch dimension, `(C, H, W)` or `(N,)`.
        symbols: sizes that specs may write by name, such as `latent`.
        where: `"recipe NAME, network NAME"`, for messages.
        conditioning: which time and condition it takes.
        trust: which modules may be imported.

    Raises:
        UserError: if a layer cannot be built (the message names recipe, network, layer and input shape), or if the
            module is not trusted.
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
        # Number format of matrix products in training; weights, outputs and all losses stay float32.
        self.precision = torch.float32
        self.rows: list[Row] = []
        self.heads = nn.ModuleDict()
        self.head_shapes: dict[str, Shape] = {}
        self.trunk: nn.Sequential | Imported
        self.output_shape: Shape
        layers = _written_out(options.layers, options)
        # Shapes of stored outputs, by name, for the layers that read them; shared by trunk and heads.
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
            if not self._width:  # the conditioning is concatenated to the input
                self.input_shape = (shape[0] + self.conditioning.size, *shape[1:])
            self.trunk, self.output_shape = self._stack(layers, self.input_shape, symbols, "")
        for name, texts in options.heads.items():
            stack, self.head_shapes[name] = self._stack(
                _written_out(texts, options), self.output_shape, symbols, f"{name}: "
            )
            try:
                self.heads[name] = stack
            except KeyError as error:  # a name that PyTorch uses itself, or one with a dot
                raise UserError(f"In {where}, a head cannot be called '{quoted(name)}'.") from error
        for module in self.modules():
            if isinstance(module, Block):
                module.recompute = options.recompute
        _initialise(nn.ModuleList(self.heads.values()) if options.call else self, options.init)
        self.train()

    __call__: Callable[..., Output]

    def _stack(
        self, layers: list[str], shape: Shape, symbols: Mapping[str, int], head: str
    ) -> tuple[nn.Sequential, Shape]:
        modules: list[nn.Module] = []
        for position, text in enumerate(layers, 1):
            try:
                module, out = make_layer(text, shape, symbols, embedding=self._width, kept=self._kept)
                row = _row(head + text, module, out)
                require_parameters(row.parameters + sum(other.parameters for other in self.rows))
            except UserError as error:
                place = f"{head and f'head {head}'}layer {position} ('{quoted(text)}') at input {show(shape)}"
                words = str(error).rstrip(".")
                raise UserError(f"In {self.where}, {place}: {words}{'' if words.endswith('?') else '.'}") from None
            if position > 1 and layers[position - 2].split()[0] in OVERWRITABLE and isinstance(module, IN_PLACE):
                module.inplace = True
            if modules and isinstance(modules[-1], Upsample):
                modules[-1].before(module)
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
        """Sets the number format of matrix products to the network's precision in training; else changes nothing."""
        reduced = self.training and self.precision != torch.float32
        return torch.autocast(device.type, self.precision) if reduced else nullcontext()

    @property
    def gives_logits(self) -> bool:
        """Whether it ends in a sigmoid and can also return the logits before it."""
        if isinstance(self.trunk, Imported):
            return self.trunk.takes_logits
        return isinstance(self.trunk[-1], nn.Sigmoid)

    @property
    def may_be_bounded(self) -> bool:
        """Whether its output may be bounded to 0..1; True for a user's own module, where this is not known."""
        return isinstance(self.trunk, Imported) or isinstance(self.trunk[-1], nn.Sigmoid | nn.Softmax)

    @property
    def feature_shape(self) -> Shape | None:
        """Shape of `Output.features`; None for a network with neither heads nor a dense layer."""
        if self.head_shapes or isinstance(self.trunk, Imported):
            return self.output_shape
        dense = [layer for layer in self.trunk if isinstance(layer, nn.Linear)]
        return (dense[-1].in_features,) if dense else None

    @property
    def kept_values(self) -> int:
        """Lower bound on the values stored per image for a backward pass: outputs of layers that nothing overwrites."""
        free = ACTIVATIONS | {"flatten", "up"}
        return sum(math.prod(row.output) for row in self.rows if row.layer.split(": ")[-1].split()[0] not in free)

    def require_output(self, shape: Shape, meaning: str) -> None:
        """Raises a `UserError` unless the output has this shape."""
        if self.output_shape != shape:
            last = f" after '{self.rows[-1].layer}'" if self.rows else ""
            raise UserError(
                f"In {self.where}, the output{last} is {show(self.output_shape)}, but {meaning} needs {show(shape)}."
            )


def _written_out(layers: list[str], options: NetworkOptions) -> list[str]:
    """Adds the network's `spectral_norm` and `dropout` to its layer specs."""
    specs: list[str] = []
    for i, text in enumerate(layers, 1):
        word = (text.split() or [""])[0]
        specs.append(f"{text} sn" if options.spectral_norm and word in WEIGHTED and "sn" not in text.split() else text)
        if options.dropout and word in ACTIVATIONS and i < len(layers):
            specs.append(f"dropout {options.dropout:g}")
    return specs


def run(stack: nn.Module, x: Tensor, context: Context) -> tuple[Tensor, nn.Module | None, Tensor]:
    """Runs a stack of layers.

    Returns:
        The output before the final sigmoid or softmax, that layer or None, and the input of the last dense layer.
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
    """Returns whether a layer with this `forward` is called with the context."""
    return "context" in inspect.signature(forward).parameters


def _row(layer: str, module: nn.Module, shape: Shape) -> Row:
    """Counts parameters as the Keras summary does: a batch norm's moving mean and variance are included."""
    trainable = sum(p.numel() for p in module.parameters())
    moving = sum(
        int(m.running_mean.numel() + m.running_var.numel())
        for m in module.modules()
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.running_mean is not None and m.running_var is not None
    )
    return Row(layer, shape, trainable + moving, trainable)


def _initialise(network: nn.Module, how: str) -> None:
    """Initialises dense and convolutional layers: weights as `how` says, biases to zero; "torch" changes nothing."""
    if how == "torch":
        return
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            # Under spectral normalisation, `weight` is computed from the parameter `original`.
            normed = nn.utils.parametrize.is_parametrized(module, "weight")
            weight: Any = module.parametrizations.weight.original if normed else module.weight  # type: ignore[union-attr]
            if how == "glorot":
                nn.init.xavier_uniform_(weight)
            elif how == "he":
                nn.init.kaiming_normal_(weight, a=0.2)
            else:
                nn.init.normal_(weight, 0.0, 0.02)
            if normed:
                with torch.no_grad():
                    for _ in range(POWER_ITERATIONS):  # each access improves the estimate of the norm by one
                        _ = module.weight
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        begin = getattr(module, "begin", None)
        if callable(begin):  # a block with its own initialisation
            begin()


class Imported(nn.Module):
    """A module of the user's own; its errors are reported like those of layers.

    It is constructed with the recipe's `arguments`, and with `shape`, `conditioning` and symbols such as `latent` if
    its `__init__` has parameters of these names. It is called with its input, and with `time`, `condition` and `logits`
    if its `forward` has them. It returns a tensor, or the tensors of its heads by name.

    Args:
        call: path and arguments of the module.
        trust: which modules may be imported.
        where: for messages.
        shape: of its input, without the batch dimension.
        symbols: sizes of the recipe, by name.
        conditioning: which time and condition it takes.

    Raises:
        UserError: if it is not trusted, is not a subclass of `torch.nn.Module`, or cannot be constructed.
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
                raise UserError(f"{self.place} is not a subclass of torch.nn.Module, so it is not called.")
            self.takes = set(inspect.signature(kind.forward).parameters)
            self.takes_logits = "logits" in self.takes
            # Conditioning for which `forward` has no argument is concatenated to the input.
            concatenated = Conditioning(
                0 if "condition" in self.takes else conditioning.condition,
                conditioning.time and "time" not in self.takes,
            )
            offered = {**symbols, "shape": (shape[0] + concatenated.size, *shape[1:]), "conditioning": conditioning}
            parameters = inspect.signature(kind.__init__).parameters
            self.add_module("0", kind(**{k: v for k, v in offered.items() if k in parameters} | dict(call.arguments)))

    def tried(self, shape: Shape) -> dict[str, Shape]:
        """Returns the shapes of its outputs after a trial run in evaluation mode and one in training, with gradients.

        Args:
            shape: of its input, without the batch dimension.

        Returns:
            Shapes by name; that of a single tensor under "".

        Raises:
            UserError: if a run fails, or an output is not a tensor of `(B, N)` or `(B, C, H, W)`.
        """

        def outputs(count: int) -> dict[str, Tensor]:
            conditioning = {
                "time": torch.zeros(count, 1) if self.conditioning.time else None,
                "condition": torch.zeros(count, self.conditioning.condition) if self.conditioning.condition else None,
            }
            return self.forward(torch.zeros(count, *shape), conditioning)

        self.eval()
        with torch.no_grad():
            outs = outputs(1)
        for out in outs.values():
            if out.dim() not in (2, 4) or len(out) != 1 or not out.numel() or not out.is_floating_point():
                raise UserError(
                    f"{self.place} at input {show(shape)} returns {tuple(out.shape)} of {out.dtype} for a batch of 1; "
                    "a network returns floating-point numbers, (B, N) or (B, C, H, W)."
                )
        self.shapes = {name: tuple(out.shape[1:]) for name, out in outs.items()}
        before = [buffer.clone() for buffer in self.buffers()]
        self.train()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            outs = outputs(2)
            if weights := [p for p in self.parameters() if p.requires_grad]:
                with self._explained(f"fails at input {show(shape)}, backwards"):
                    torch.autograd.grad(
                        torch.stack([out.sum() for out in outs.values()]).sum(), weights, allow_unused=True
                    )
        for buffer, saved in zip(self.buffers(), before, strict=True):
            buffer.copy_(saved)
        return self.shapes

    def forward(
        self, x: Tensor, conditioning: Mapping[str, Tensor | None], *, logits: bool = False
    ) -> dict[str, Tensor]:
        """Runs the module on `(B, *)` and returns its outputs by name, a single one under ""."""
        if logits and not self.takes_logits and isinstance([*self.modules()][-1], nn.Sigmoid | nn.Softmax):
            raise UserError(
                f"{self.place} ends in an activation, but the loss needs the logits: give its forward an argument "
                "'logits', and leave the activation out where that is true."
            )
        arguments: dict[str, Any] = {name: value for name, value in conditioning.items() if name in self.takes}
        x = beside(x, as_vectors({name: value for name, value in conditioning.items() if name not in self.takes}))
        if self.takes_logits:
            arguments["logits"] = logits
        with self._explained(f"fails at input {show(tuple(x.shape[1:]))}"):
            output: Any = self.get_submodule("0")(x, **arguments)
        outs = output if isinstance(output, dict) and output else {"": output}
        for name, out in outs.items():
            if not isinstance(out, Tensor):
                raise UserError(f"{self.place} returns a {type(out).__name__}, not a tensor.")
            if self.shapes is not None and (self.shapes.get(name) != tuple(out.shape[1:]) or len(out) != len(x)):
                raise UserError(
                    f"{self.place} returns {tuple(out.shape)} for {tuple(x.shape)}, but returned "
                    f"{(1, *self.shapes.get(name, ()))} for a batch of 1 when it was constructed."
                )
        return outs

    @contextmanager
    def _explained(self, how: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the user's code may raise anything
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(f"{self.place} {how}: {quoted(message.rstrip('.'), 300)}.") from error


class ImportedOutput(Output):
    """The output of a user's own module, which is called on first access, with or without its final activation."""

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
