"""The base class of models: networks and a list of phases.

A phase is one optimiser update: the networks it updates, how often, and the loss. The trainer knows nothing
else of a model, so update ratios, critics, third optimisers and alternating schedules are data. Protocols such as
`Generates` and `Encodes` declare what a model can do; figures and measures ask for such an ability, never for a class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

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
    "LearnsPrior",
    "Model",
    "ModelOptions",
    "Phase",
    "Posterior",
    "Role",
    "Selects",
    "Terms",
    "Weighted",
    "configured",
    "log_normal",
    "phase",
    "total",
]


class ModelOptions(Section):
    """Base of every model's options: all keys of a recipe's `model` section but `name`, which chooses the model."""


class ConditionalOptions(ModelOptions):
    """Options of conditional models and of classifiers."""

    classes: int = Field(10, ge=2, le=10_000, description="number of classes, where no data is loaded to count them")


class Weighted(NamedTuple):
    """A loss term with its weight: the loss adds the weighted value, the journal records the unweighted one."""

    value: Tensor
    weight: float | Tensor = 1.0


# The role of a logged number; `zeuxis.training.journal` describes each.
Role = Literal[
    "loss", "term", "accuracy", "distance", "kl", "information", "share", "diagnostic", "gradient", "rate", "test",
    "error", "cost",
]  # fmt: skip
T = TypeVar("T")
C = TypeVar("C")
Terms = Mapping[str, "Tensor | Weighted"]


class Input(NamedTuple):
    """The inputs of a network.

    Attributes:
        shape: of its main input, without the batch dimension.
        conditioning: which time and condition it also takes.
    """

    shape: Shape
    conditioning: Conditioning


# Inputs by network; a function if the shape depends on an earlier network.
Inputs = Mapping[str, "Shape | Input | Callable[[], Shape]"]


def total(terms: Mapping[str, Tensor | Weighted]) -> Tensor:
    """Returns the loss of a phase: the weighted sum of its terms."""
    weighted = [term if isinstance(term, Weighted) else Weighted(term) for term in terms.values()]
    return torch.stack([value * weight for value, weight in weighted]).sum()


@dataclass
class Iteration:
    """The input of a phase: one batch, the random generator, and a memo shared by the phases of a step.

    Where phases repeat within a step, each repeat has an iteration of its own.

    Attributes:
        epoch: epochs trained so far, with the fraction; a tensor, `()`, so that a captured iteration sees it change.
        generator: samples all random numbers of the losses, on the device.
        device: of all tensors.
        loss_scale: that the loss will be multiplied by, as gradients inside a loss should be; 1 except in float16.
        due: names of the phases of this step; None stands for all of the model's.
    """

    epoch: Tensor
    generator: torch.Generator
    device: torch.device
    batch_size: int
    _fetch: Callable[[], Batch]
    _batch: Batch | None = None
    _memo: dict[str, tuple[Any, frozenset[str]]] = field(default_factory=dict)
    logged: dict[str, tuple[Tensor, Role]] = field(default_factory=dict)
    loss_scale: float = 1.0
    due: frozenset[str] | None = None

    @property
    def is_read(self) -> bool:
        """Whether a phase has asked for the batch."""
        return self._batch is not None

    @property
    def batch(self) -> Batch:
        """The batch; it is loaded on first access."""
        if self._batch is None:
            self._batch = self._fetch()
        return self._batch

    @property
    def images(self) -> Tensor:
        """Real images, `(B, C, H, W)` in the recipe's range."""
        return self.batch.images

    @property
    def labels(self) -> Tensor:
        """Class indices, `(B,)`, or the numbers of `data.numbers`, `(B, K)`."""
        if self.batch.labels is None:
            raise UserError(
                "This model learns classes and needs images with classes or an attribute (--attribute NAME)."
            )
        return self.batch.labels

    def randn(self, *shape: int) -> Tensor:
        """Returns standard normal numbers from the iteration's generator."""
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def once(self, name: str, make: Callable[[], T], *, through: str = "") -> T:
        """Returns what `make` returns, computed once and shared by the phases of this iteration.

        Args:
            name: of the value, such as `"fake"`.
            make: computes it.
            through: networks, separated by spaces, that it was computed with; after an update of one of them, it is
                computed anew.
        """
        if name not in self._memo:
            self._memo[name] = (make(), frozenset(through.split()))
        value: T = self._memo[name][0]
        return value

    def forget(self, updated: tuple[str, ...] | None = None) -> None:
        """Drops shared values that were computed through updated networks; all values, if `updated` is None."""
        if updated is None:
            self._memo.clear()
        else:
            self._memo = {k: v for k, v in self._memo.items() if not v[1] & set(updated)}

    def log(self, name: str, value: Tensor, role: Role = "diagnostic") -> None:
        """Logs a number under the running phase without adding it to the loss.

        Args:
            name: of the number.
            value: a tensor, `()`.
            role: by which figures and monitors select it.
        """
        self.logged[name] = (value.detach(), role)


@dataclass(frozen=True)
class Phase:
    """One optimiser update of a model.

    Attributes:
        name: used in the journal, `PHASE/TERM`, and in `training.optimizers`.
        updates: names of the networks whose parameters it updates.
        repeat: number of updates per step.
        interval: number of steps from one time that it is due to the next.
        start: share of the training's budget, 0..1, before it is due for the first time.
        optimizer: the phase whose optimiser it uses; usually its own.
        loss: returns named terms, which are summed, for an iteration.
    """

    name: str
    updates: tuple[str, ...]
    repeat: int
    interval: int
    start: float
    optimizer: str
    loss: Callable[[Iteration], Terms]

    def is_due(self, step: int, used: float) -> bool:
        """Returns whether it is due in a step, counted from 0, when a share of the training's budget is used."""
        return step % self.interval == 0 and used >= self.start


def configured(registry: Registry[type[C]], choice: Choice, recipe: Recipe, key: str) -> C:
    """Builds an instance of the class that a recipe chooses by name, with the options given there.

    Args:
        registry: of classes with `Options`.
        choice: name and options.
        recipe: the recipe, for messages.
        key: the recipe key, such as `"model.loss"`.

    Raises:
        UserError: for an unknown name or wrong options.
    """
    kind: Any = registry[choice.name]
    options = choice.read(kind.Options, f"Recipe {recipe.name}", key)
    instance: C = kind(**options.model_dump())
    return instance


Loss = TypeVar("Loss", bound=Callable[..., Terms])


def phase(
    name: str, *, updates: str, repeat: str = "", interval: str = "", start: str = "", optimizer: str = ""
) -> Callable[[Loss], Loss]:
    """Marks a method as a phase; phases run in the order they are defined.

    Args:
        name: name of the phase.
        updates: the networks it updates, separated by spaces.
        repeat: the option that holds its number of updates per step; if empty, one.
        interval: the option that holds its interval in steps, where 0 switches the phase off; if empty, it is due in
            every step.
        start: the option that holds the share of the budget before it is due for the first time; if empty, 0.
        optimizer: the phase whose optimiser it uses; if empty, its own.
    """

    def mark(method: Loss) -> Loss:
        method._phase = (name, tuple(updates.split()), repeat, interval, start, optimizer or name)  # type: ignore[attr-defined]
        return method

    return mark


class Model(nn.Module):
    """Base of all models.

    A subclass sets `Options`, names its networks and the shapes of their inputs in `inputs`, checks the shapes of their
    outputs in `check`, and defines phases. A `conditional` model takes a condition, `(B, K)`: the vector of a class
    (`zeuxis.models.conditions`), or a mixture of several.

    Args:
        recipe: the run's recipe, whose networks are built.
        classes: names of the data's classes; None if no data is loaded, as for a summary.
    """

    Options: ClassVar[type[ModelOptions]] = ModelOptions
    # Networks that generate samples; their weights are averaged if the recipe asks for a moving average.
    generating_networks: ClassVar[tuple[str, ...]] = ()
    conditional: ClassVar[bool] = False
    # Options of sampling, which may be changed for a trained run.
    sampling_options: tuple[str, ...] = ()
    # Whether it needs classes; other conditional models also take numbers (`data.numbers`).
    needs_classes: ClassVar[bool] = False
    # Whether it learns from the classes of its images; a conditional model always does.
    labelled: ClassVar[bool] = False
    # Networks taken from another, trained run, and the option that names this run; no phase updates them.
    trained_networks: ClassVar[tuple[str, ...]] = ()
    trained_option: ClassVar[str] = ""
    # Monitors (`zeuxis.training.monitors`) whose finding is normal for the model.
    healthy: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, recipe: Recipe, classes: tuple[str, ...] | None = None) -> None:
        super().__init__()
        where = f"recipe {recipe.name}"
        self.options = self.read_options(recipe)
        # With this version's defaults written out, so that the run can be repeated.
        self.recipe = recipe.model_copy(update={"model": recipe.model.completed(self.options)})
        self.image_shape = recipe.data.shape
        numbers = recipe.data.numbers
        if numbers and self.needs_classes:
            raise UserError(
                f"The model '{recipe.model.name}' learns classes, but data.numbers gives it numbers; drop data.numbers."
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
        # Weights depend only on the recipe's seed, not on random numbers sampled before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.training.seed)
            shapes = self.inputs()
            self._require_networks(shapes)
            for name, source in shapes.items():
                # A function is called only now, after the networks it depends on have been built.
                shape, conditioning = (
                    source if isinstance(source, Input) else (source() if callable(source) else source, Conditioning())
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
        """Returns a recipe's options of this model; raises a `UserError` if they are wrong."""
        return recipe.model.read(cls.Options, f"Recipe {recipe.name}", "model")

    def default_classes(self) -> tuple[str, ...]:
        """Returns the class names to assume if no data is loaded."""
        data = self.recipe.data
        if data.numbers:
            return ()
        if data.attributes:
            return tuple(combinations(data.attributes))
        return tuple(data.classes) or tuple(map(str, range(getattr(self.options, "classes", 0))))

    def inputs(self) -> Inputs:
        """Returns the shape of each network's input, in the order in which the networks are built.

        For a network that also takes a time or a condition, the value is an `Input`. For one whose input shape depends
        on earlier networks, it is a function, which is called after those have been built.
        """
        raise NotImplementedError

    def layers(self, name: str) -> NetworkOptions:
        """Returns what a network is built from: the recipe's layers, to which a model may add."""
        return self.recipe.networks[name]

    def check(self) -> None:
        """Raises a `UserError` if a network's output does not fit its use."""

    def require_packages(self) -> None:
        """Raises a `UserError` if training needs a package that is not installed; sampling may not need it."""

    def train(self, mode: bool = True) -> Self:
        """Switches to training or evaluation mode, in which networks of another run always stay."""
        super().train(mode)
        for name in self.trained_networks:
            self.net(name).eval()
        return self

    def net(self, name: str) -> Network:
        """Returns a network by name."""
        network = self.networks[name]
        assert isinstance(network, Network)
        return network

    @property
    def phases(self) -> list[Phase]:
        """The phases in the order of their definition, base classes first; not those of a network that it lacks."""
        phases: dict[str, Phase] = {}
        for cls in reversed(type(self).__mro__):
            for attribute, method in vars(cls).items():
                if hasattr(method, "_phase"):
                    name, updates, repeat, interval, start, optimizer = method._phase
                    times = getattr(self.options, repeat) if repeat else 1
                    every = getattr(self.options, interval) if interval else 1
                    first = getattr(self.options, start) if start else 0
                    if every and all(network in self.networks for network in updates):
                        phases[name] = Phase(name, updates, times, every, first, optimizer, getattr(self, attribute))
        return list(phases.values())

    def conditioned(self, shape: Shape) -> Input:
        """Returns the input of a network that takes the condition if the model is conditional."""
        return Input(shape, Conditioning(condition=self.condition_size))

    def make_condition(self) -> Condition:
        """Returns how classes become vectors for the networks."""
        if self.recipe.data.numbers:
            return of_numbers(self.recipe.data.numbers)
        several = len(self.recipe.data.attributes) > 1
        return of_attributes(self.recipe.data.attributes) if several else of_classes(self.class_names)

    @property
    def condition_size(self) -> int:
        """Length of the condition vector; 0 if the model is not conditional."""
        return self.conditions.size if self.conditional else 0

    def condition_of_labels(self, classes: Sequence[int] | Tensor) -> Tensor:
        """Returns the condition `(N, K)` for class indices `(N,)`; numbers `(N, K)` are returned as they are."""
        vectors: Any = self.condition_vectors
        if isinstance(classes, Tensor) and classes.is_floating_point():
            return classes.to(vectors.device)
        condition: Tensor = vectors[torch.as_tensor(classes, device=vectors.device)]
        return condition

    def condition(self, iteration: Iteration) -> Tensor | None:
        """Returns the condition `(B, K)` of the iteration's images; None if the model is not conditional."""
        if not self.conditional:
            return None
        return iteration.once("condition", lambda: self.condition_of_labels(iteration.labels))

    def test(self, iteration: Iteration) -> dict[str, Tensor]:
        """Returns the test terms of a held-out batch, without gradients; empty if the model has none."""
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
        """Samples `z = mu + sigma * eps` with `eps ~ N(0, 1)`, `(B, Z)`: the reparameterisation."""
        eps = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + torch.exp(self.logvar / 2) * eps

    def log_density(self, latents: Tensor) -> Tensor:
        """Returns the log-density `(B,)` of latents `(B, Z)`, in nats."""
        scaled = (latents - self.mean) * torch.exp(-self.logvar / 2)
        return log_normal(scaled) - 0.5 * self.logvar.sum(dim=1)

    def kl(self) -> Tensor:
        """Returns the KL divergence to the standard normal for each dimension, `(B, Z)`, in nats."""
        return 0.5 * (self.logvar.exp() + self.mean.square() - 1 - self.logvar)


def log_normal(x: Tensor) -> Tensor:
    """Returns the log-density `(B,)` of `(B, N)` vectors under the standard normal distribution, in nats."""
    return -0.5 * (x.square() + math.log(2 * math.pi)).sum(dim=1)


@runtime_checkable
class Generates(Protocol):
    """A model that generates images from latents."""

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Samples latents `(count, Z)` from the prior."""
        ...

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        """Returns `(B, C, H, W)` images for `(B, Z)` latents and, if conditional, a `(B, K)` condition."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """A model that encodes images as latents."""

    def encode(self, images: Tensor, condition: Tensor | None = None) -> Posterior:
        """Returns the posterior of `(B, C, H, W)` images."""
        ...


@runtime_checkable
class HasPrior(Protocol):
    """A model with a posterior and with a density of the prior from which `sample_latents` samples."""

    @property
    def prior_density(self) -> Literal["normal", "exact", "estimated"]:
        """What `log_prior` returns: log-density of N(0, 1), of another prior, or an unbiased estimate of it."""
        ...

    def encode(self, images: Tensor, condition: Tensor | None = None) -> Posterior:
        """Returns the posterior of `(B, C, H, W)` images."""
        ...

    def log_prior(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the log-density `(B,)` of latents under the prior, in nats.

        Args:
            latents: `(B, Z)`.
            generator: samples the random numbers of an estimate, on the CPU.
        """
        ...


@runtime_checkable
class LearnsPrior(Protocol):
    """A model whose latents are not sampled from a fixed distribution, but made of noise."""

    def latents_of(self, noise: Tensor) -> Tensor:
        """Returns latents `(B, Z)` for noise `(B, Z)` of N(0, 1)."""
        ...


@runtime_checkable
class HasLikelihood(HasPrior, Protocol):
    """A model whose decoder gives a distribution of images."""

    @property
    def pixels(self) -> Literal["bernoulli", "gaussian", ""]:
        """The distribution of a pixel; "" where the decoder gives none."""
        ...

    def log_likelihood(self, images: Tensor, latents: Tensor, condition: Tensor | None) -> Tensor:
        """Returns log p(x|z), `(B,)` in nats, of `(B, C, H, W)` images: a density in the recipe's range, or a mass."""
        ...


@runtime_checkable
class HasDensity(Protocol):
    """A model that estimates the density of an image directly, without latents."""

    def log_density(self, images: Tensor, generator: torch.Generator, condition: Tensor | None = None) -> Tensor:
        """Returns an unbiased estimate of log p(x), `(B,)` in nats.

        Args:
            images: `(B, C, H, W)` in the recipe's range.
            generator: samples the random numbers of the estimate, on the CPU.
            condition: `(B, K)`, of a conditional model.
        """
        ...


@runtime_checkable
class Classifies(Protocol):
    """A model that classifies images."""

    def classify(self, images: Tensor) -> Tensor:
        """Returns `(B, K)` logits for `(B, C, H, W)` images."""
        ...


@runtime_checkable
class Selects(Protocol):
    """A model whose samples are the best of several images."""

    @property
    def candidates(self) -> int:
        """Number of images that are generated for a sample; 1 if it does not select."""
        ...

    def preference(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """Returns scores `(B,)` of `(B, C, H, W)` images; the candidate with the highest is kept."""
        ...


@runtime_checkable
class Discriminates(Protocol):
    """A model with a discriminator, or critic, of images."""

    @property
    def discriminates_images(self) -> bool:
        """Whether it scores images; a discriminator of latents does not."""
        ...

    def realness(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """Returns scores `(B,)` of `(B, C, H, W)` images; higher ones look more real to it, on a scale of its own."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A classifier with features in which distances between images can be measured."""

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `(B, F)` features and `(B, K)` logits of `(B, C, H, W)` images."""
        ...


class Code(NamedTuple):
    """A part of the latent vector with a meaning of its own.

    Attributes:
        name: for figures.
        start: its first index in the latent vector.
        size: number of values of a categorical code, a one-hot vector; 1 for a continuous code in -1..1.
    """

    name: str
    start: int
    size: int

    @property
    def categorical(self) -> bool:
        """Whether it takes one of several values; else it is a number."""
        return self.size > 1


@runtime_checkable
class HasCodes(Protocol):
    """A model whose latent vector holds codes."""

    def codes(self) -> tuple[Code, ...]:
        """Returns its codes in the order of the latent vector."""
        ...

    def read_codes(self, images: Tensor) -> Tensor:
        """Returns `(B, K)`: for each image, the likeliest value of each categorical code and the mean of each other."""
        ...
