"""What a model is: networks, and a list of phases.

A phase is one optimiser update: the networks it updates, how often, and the loss. The trainer knows nothing
else of a model, so update ratios, critics, third optimisers and alternating schedules are data. What a model
can do is said by protocols (`Generates`, `Encodes`): figures and metrics ask for a capability, never for a
class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from zeuxis.data import Batch, combinations
from zeuxis.errors import UserError, quoted
from zeuxis.models.conditions import Condition, of_attributes, of_classes, of_numbers
from zeuxis.nets import Conditioning, Network, Shape
from zeuxis.recipe import Choice, NetworkOptions, Recipe, Section
from zeuxis.registry import Registry

__all__ = [
    "Classifies",
    "Code",
    "ConditionalOptions",
    "Encodes",
    "Generates",
    "HasCodes",
    "HasDensity",
    "HasFeatures",
    "HasLikelihood",
    "HasPrior",
    "Input",
    "Inputs",
    "Iteration",
    "Model",
    "ModelOptions",
    "Phase",
    "Posterior",
    "Role",
    "Terms",
    "Weighted",
    "configured",
    "log_normal",
    "phase",
    "total",
]


class ModelOptions(Section):
    """Base of every model's options; `model.name` chooses the model, the rest is validated here."""


class ConditionalOptions(ModelOptions):
    """Options of conditional models and of classifiers."""

    classes: int = Field(10, ge=2, le=10_000, description="assumed without data; the data's own count rules")


class Weighted(NamedTuple):
    """A loss term that enters the sum with a weight, and the journal without."""

    value: Tensor
    weight: float | Tensor = 1.0


# What a journalled number is: the head of `zeuxis.training.journal` says what each means.
Role = Literal[
    "loss", "term", "accuracy", "distance", "kl", "information", "share", "diagnostic", "gradient", "rate", "test",
    "error", "cost",
]  # fmt: skip
T = TypeVar("T")
C = TypeVar("C")
Terms = Mapping[str, "Tensor | Weighted"]


class Input(NamedTuple):
    """What a network is given.

    Attributes:
        shape: of its main input, without the batch dimension.
        conditioning: what else it takes: a time, a condition.
    """

    shape: Shape
    conditioning: Conditioning


# Inputs by network; a function where the shape follows from a network before it.
Inputs = Mapping[str, "Shape | Input | Callable[[], Shape]"]


def total(terms: Mapping[str, Tensor | Weighted]) -> Tensor:
    """The loss that a phase's terms add up to."""
    weighted = [term if isinstance(term, Weighted) else Weighted(term) for term in terms.values()]
    return torch.stack([value * weight for value, weight in weighted]).sum()


@dataclass
class Iteration:
    """What a phase is given: one batch, the random generator, and a memo shared by the iteration's phases.

    Where a phase repeats within an iteration, each repeat has one of its own.

    Attributes:
        epoch: training so far, in epochs, as a fraction; a tensor, `()`, so that a captured iteration sees it change.
        generator: draws all random numbers of the losses, on the device.
        device: where tensors live.
    """

    epoch: Tensor
    generator: torch.Generator
    device: torch.device
    batch_size: int
    _fetch: Callable[[], Batch]
    _batch: Batch | None = None
    _memo: dict[str, tuple[Any, frozenset[str]]] = field(default_factory=dict)
    logged: dict[str, tuple[Tensor, Role]] = field(default_factory=dict)

    @property
    def is_read(self) -> bool:
        """Whether a phase has asked for the batch."""
        return self._batch is not None

    @property
    def batch(self) -> Batch:
        """The batch; images are read when a phase first asks for them."""
        if self._batch is None:
            self._batch = self._fetch()
        return self._batch

    @property
    def images(self) -> Tensor:
        """Real images, `(B, C, H, W)` in the recipe's range."""
        return self.batch.images

    @property
    def labels(self) -> Tensor:
        """Class indices, `(B,)`, or numbers in their place, `(B, K)`."""
        if self.batch.labels is None:
            raise UserError(
                "This model learns classes and needs images with classes or an attribute (--attribute NAME)."
            )
        return self.batch.labels

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers from the iteration's generator."""
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def once(self, name: str, make: Callable[[], T], *, through: str = "") -> T:
        """Returns what `make` gives, computed once and shared by the phases of this iteration.

        Args:
            name: what it is, such as `"fake"`.
            make: computes it.
            through: the network whose output it is; once that network is updated it is computed anew.
        """
        if name not in self._memo:
            self._memo[name] = (make(), frozenset(through.split()))
        made: T = self._memo[name][0]
        return made

    def forget(self, updated: tuple[str, ...] | None = None) -> None:
        """Drops what was computed through networks that have been updated since; everything, if none are named."""
        if updated is None:
            self._memo.clear()
        else:
            self._memo = {k: v for k, v in self._memo.items() if not v[1] & set(updated)}

    def log(self, name: str, value: Tensor, role: Role = "diagnostic") -> None:
        """Journals a number under the running phase without adding it to the loss.

        Args:
            name: of the number.
            value: a tensor, `()`.
            role: what figures and monitors take it for.
        """
        self.logged[name] = (value.detach(), role)


@dataclass(frozen=True)
class Phase:
    """One optimiser update of a model.

    Attributes:
        name: as in the journal, `PHASE/TERM`, and in `training.optimizers`.
        updates: names of the networks whose parameters it updates.
        repeat: updates an iteration.
        interval: it is due every so many iterations.
        optimizer: the phase whose optimiser takes its steps; its own, as a rule.
        loss: from an iteration to named terms, which are summed.
    """

    name: str
    updates: tuple[str, ...]
    repeat: int
    interval: int
    optimizer: str
    loss: Callable[[Iteration], Terms]


def configured(registry: Registry[type[C]], choice: Choice, recipe: Recipe, key: str) -> C:
    """Builds what a recipe chooses by name, from the options that stand beside the name.

    Args:
        registry: of classes with `Options`.
        choice: name and options.
        recipe: that it stands in.
        key: where in the recipe, such as `"model.loss"`.

    Raises:
        UserError: for an unknown name, and for wrong options.
    """
    kind: Any = registry[choice.name]
    options = choice.read(kind.Options, f"Recipe {recipe.name}", key)
    instance: C = kind(**options.model_dump())
    return instance


Loss = TypeVar("Loss", bound=Callable[..., Terms])


def phase(
    name: str, *, updates: str, repeat: str = "", interval: str = "", optimizer: str = ""
) -> Callable[[Loss], Loss]:
    """Marks a method as a phase; phases run in the order they are defined.

    Args:
        name: name of the phase.
        updates: the networks it updates, separated by spaces.
        repeat: the option that holds its number of updates an iteration; once, if empty.
        interval: the option that says every how many iterations it is due, and 0 that there is no such phase; every
            iteration, if empty.
        optimizer: the phase whose optimiser it uses; one of its own, if empty.
    """

    def mark(method: Loss) -> Loss:
        method._phase = (name, tuple(updates.split()), repeat, interval, optimizer or name)  # type: ignore[attr-defined]
        return method

    return mark


class Model(nn.Module):
    """Base of all models.

    A subclass sets `Options`, names its networks with the shape of each one's input in `inputs`, checks what
    comes out in `check`, and defines phases. One that is `conditional` has classes and is asked with a condition,
    `(B, K)`: the vector of a class (`zeuxis.models.conditions`), or a mixture for what lies between.

    Args:
        recipe: the run's recipe; its networks are built here.
        classes: names of the data's classes; where data is not at hand, as for a summary, None.
    """

    Options: ClassVar[type[ModelOptions]] = ModelOptions
    # Networks that samples pass through, of which a moving average is kept where the recipe says so.
    generating_networks: ClassVar[tuple[str, ...]] = ()
    conditional: ClassVar[bool] = False
    # Options that change how a trained model samples, and may be changed for a trained run.
    sampling_options: ClassVar[tuple[str, ...]] = ()
    # Whether it needs classes themselves, where a conditional model may also be given numbers.
    needs_classes: ClassVar[bool] = False
    # Whether it learns from the classes of its images; a conditional model does in any case.
    labelled: ClassVar[bool] = False
    # Networks that come, trained, from another run, and the option that names it; no phase updates them.
    trained_networks: ClassVar[tuple[str, ...]] = ()
    trained_option: ClassVar[str] = ""

    def __init__(self, recipe: Recipe, classes: tuple[str, ...] | None = None) -> None:
        super().__init__()
        where = f"recipe {recipe.name}"
        self.options = self.read_options(recipe)
        # Everything needed to run it again: the defaults of this version are written out.
        self.recipe = recipe.model_copy(update={"model": recipe.model.completed(self.options)})
        self.image_shape = recipe.data.shape
        numbers = recipe.data.numbers
        if numbers and self.needs_classes:
            raise UserError(
                f"The model '{recipe.model.name}' learns classes, and data.numbers gives it numbers; drop data.numbers."
            )
        if (self.conditional or self.labelled) and classes is not None and len(classes) < 2 and not numbers:
            raise UserError(
                f"The model '{recipe.model.name}' learns classes and needs images of at least two classes, or an "
                f"attribute (--attribute NAME); this data has {len(classes) or 'none'}."
            )
        self.class_names: tuple[str, ...] = classes if classes is not None else self.default_classes()
        self.networks = nn.ModuleDict()
        self.conditions = self.make_condition()
        self.register_buffer("condition_vectors", torch.from_numpy(self.conditions.vectors), persistent=False)
        symbols = {
            "channels": recipe.data.channels, "classes": max(len(self.class_names), 1),
            "condition": max(self.conditions.size, 1),
        }  # fmt: skip
        if "latent" in self.Options.model_fields:
            symbols["latent"] = self.options.latent  # type: ignore[attr-defined]
        # Weights are a function of the recipe's seed, whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.training.seed)
            shapes = self.inputs()
            self._require_networks(shapes)
            for name, given in shapes.items():
                # A shape that follows from a network before it is worked out once that network stands.
                shape, conditioning = (
                    given if isinstance(given, Input) else (given() if callable(given) else given, Conditioning())
                )
                self.networks[name] = Network(
                    self.layers(name),
                    shape,
                    symbols,
                    f"{where}, network {name}",
                    conditioning=conditioning,
                    trust=recipe.trust,
                )
        self.check()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def read_options(cls, recipe: Recipe) -> ModelOptions:
        """Returns a recipe's options of this model; raises a `UserError` for wrong ones."""
        return recipe.model.read(cls.Options, f"Recipe {recipe.name}", "model")

    def default_classes(self) -> tuple[str, ...]:
        """Class names assumed where no data is at hand."""
        data = self.recipe.data
        if data.numbers:
            return ()
        if data.attributes:
            return tuple(combinations(data.attributes))
        return tuple(data.classes) or tuple(map(str, range(getattr(self.options, "classes", 0))))

    def inputs(self) -> Inputs:
        """Shape of the input of each network, in the order they are built.

        A network that also takes a time or a condition has an `Input`. A shape that follows from what another network
        puts out is given as a function, called once those before it are built.
        """
        raise NotImplementedError

    def layers(self, name: str) -> NetworkOptions:
        """What a network is built from: the recipe's layers, to which a model may add."""
        return self.recipe.networks[name]

    def check(self) -> None:
        """Raises a `UserError` where a network's output does not fit its use."""

    def net(self, name: str) -> Network:
        """Returns a network by name."""
        network = self.networks[name]
        assert isinstance(network, Network)
        return network

    @property
    def phases(self) -> list[Phase]:
        """The phases in the order of their definition, base classes first."""
        found: dict[str, Phase] = {}
        for cls in reversed(type(self).__mro__):
            for attribute, method in vars(cls).items():
                if hasattr(method, "_phase"):
                    name, updates, repeat, interval, optimizer = method._phase
                    times = getattr(self.options, repeat) if repeat else 1
                    every = getattr(self.options, interval) if interval else 1
                    if every:
                        found[name] = Phase(name, updates, times, every, optimizer, getattr(self, attribute))
        return list(found.values())

    def conditioned(self, shape: Shape) -> Input:
        """The input of a network that takes the condition, where the model is conditional."""
        return Input(shape, Conditioning(condition=self.condition_size))

    def make_condition(self) -> Condition:
        """How classes become the vectors that its networks take."""
        if self.recipe.data.numbers:
            return of_numbers(self.recipe.data.numbers)
        several = len(self.recipe.data.attributes) > 1
        return of_attributes(self.recipe.data.attributes) if several else of_classes(self.class_names)

    @property
    def condition_size(self) -> int:
        """Numbers that tell a network the class; none where the model is not conditional."""
        return self.conditions.size if self.conditional else 0

    def condition_of(self, classes: Sequence[int] | Tensor) -> Tensor:
        """The condition `(N, K)` of classes by their indices; numbers `(N, K)` are a condition as they are."""
        vectors: Any = self.condition_vectors
        if isinstance(classes, Tensor) and classes.is_floating_point():
            return classes.to(vectors.device)
        chosen: Tensor = vectors[torch.as_tensor(classes, device=vectors.device)]
        return chosen

    def condition(self, iteration: Iteration) -> Tensor | None:
        """The condition `(B, K)` of the iteration's images; None where the model is not conditional."""
        if not self.conditional:
            return None
        return iteration.once("condition", lambda: self.condition_of(iteration.labels))

    def test(self, iteration: Iteration) -> dict[str, Tensor]:
        """Terms measured on a held-out batch, without gradients; empty if there are none."""
        return {}

    def _require_networks(self, shapes: Mapping[str, Any]) -> None:
        name = self.recipe.name
        for network in shapes:
            if network not in self.recipe.networks:
                raise UserError(
                    f"Recipe {name}: the model '{self.recipe.model.name}' needs networks.{network}, which is missing."
                )
        for network in self.recipe.networks:
            if network not in shapes:
                raise UserError(
                    f"Recipe {name}: the model '{self.recipe.model.name}' has no network '{quoted(network)}'; "
                    f"its networks are {', '.join(shapes)}."
                )


class Posterior(NamedTuple):
    """A diagonal normal distribution over latents; `mean` and `logvar` are `(B, Z)`."""

    mean: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws `z = mu + sigma * eps` with `eps ~ N(0, 1)`, `(B, Z)`: the reparameterisation."""
        eps = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + torch.exp(self.logvar / 2) * eps

    def log_density(self, latents: Tensor) -> Tensor:
        """Log-density `(B,)` of latents `(B, Z)`, in nats."""
        scaled = (latents - self.mean) * torch.exp(-self.logvar / 2)
        return log_normal(scaled) - 0.5 * self.logvar.sum(dim=1)

    def kl(self) -> Tensor:
        """KL divergence to the standard normal for each dimension, `(B, Z)`, in nats."""
        return 0.5 * (self.logvar.exp() + self.mean.square() - 1 - self.logvar)


def log_normal(x: Tensor) -> Tensor:
    """Log-density `(B,)` of `(B, N)` vectors under the standard normal distribution, in nats."""
    return -0.5 * (x.square() + math.log(2 * math.pi)).sum(dim=1)


@runtime_checkable
class Generates(Protocol):
    """A model that makes images from latents."""

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns `(count, Z)` draws from the prior."""
        ...

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        """Returns `(B, C, H, W)` images for `(B, Z)` latents and, if conditional, `(B, K)` class weights."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """A model that finds the latents of images."""

    def encode(self, images: Tensor, condition: Tensor | None = None) -> Posterior:
        """Returns the posterior of `(B, C, H, W)` images."""
        ...


@runtime_checkable
class HasPrior(Protocol):
    """A model with a posterior, and with a density of the prior that `sample_latents` draws from."""

    @property
    def prior_density(self) -> Literal["normal", "exact", "estimated"]:
        """What `log_prior` gives: that of N(0, 1), another density, or an estimate of its logarithm without bias."""
        ...

    def encode(self, images: Tensor, condition: Tensor | None = None) -> Posterior:
        """Returns the posterior of `(B, C, H, W)` images."""
        ...

    def log_prior(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Log-density `(B,)` of latents `(B, Z)` under the prior, in nats.

        Args:
            latents: where.
            generator: draws what an estimate needs, on the CPU.
        """
        ...


@runtime_checkable
class HasLikelihood(HasPrior, Protocol):
    """A model whose decoder gives a distribution of images."""

    @property
    def pixels(self) -> Literal["bernoulli", "gaussian", ""]:
        """The distribution of a pixel; "" where the decoder gives none."""
        ...

    def log_likelihood(self, images: Tensor, latents: Tensor, condition: Tensor | None) -> Tensor:
        """Log p(x|z) `(B,)` of `(B, C, H, W)` images, in nats: densities of pixels in the recipe's range, or masses."""
        ...


@runtime_checkable
class HasDensity(Protocol):
    """A model that estimates the density of an image itself, without latents."""

    def log_density(self, images: Tensor, generator: torch.Generator, condition: Tensor | None = None) -> Tensor:
        """Estimates log p(x) `(B,)` of `(B, C, H, W)` images, in nats, without bias.

        Args:
            images: in the recipe's range.
            generator: samples what the estimate needs, on the CPU.
            condition: `(B, K)`, of a conditional model.
        """
        ...


@runtime_checkable
class Classifies(Protocol):
    """A model that tells classes apart."""

    def classify(self, images: Tensor) -> Tensor:
        """Returns `(B, K)` logits for `(B, C, H, W)` images."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A model whose inner features are a space to measure distances in."""

    def features(self, images: Tensor) -> Tensor:
        """Returns `(B, F)` features of `(B, C, H, W)` images."""
        ...


class Code(NamedTuple):
    """A part of the latent vector with a meaning of its own.

    Attributes:
        name: for figures.
        start: its first place in the latent vector.
        size: values of a categorical code, held as a one-hot vector; 1 for a continuous one in -1..1.
    """

    name: str
    start: int
    size: int

    @property
    def categorical(self) -> bool:
        """Whether it takes one of several values, rather than a number."""
        return self.size > 1


@runtime_checkable
class HasCodes(Protocol):
    """A model whose latent vector holds codes."""

    def codes(self) -> tuple[Code, ...]:
        """Returns its codes in the order of the latent vector."""
        ...

    def read_codes(self, images: Tensor) -> Tensor:
        """Returns `(B, K)`: of each image the likeliest value of every categorical code, the mean of the others."""
        ...
