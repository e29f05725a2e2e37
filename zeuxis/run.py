"""A run, read from its folder: its history, and the trained model's operations.

Images here are NumPy arrays `(N, H, W, C)` of float32 in 0..1, latents are `(N, Z)`. Tensors, devices and the
recipe's pixel range are handled internally.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zeuxis import data, pretrained
from zeuxis.arguments import checked
from zeuxis.data import Dataset, on_white, to_unit
from zeuxis.data.arrays import as_array
from zeuxis.data.batches import from_unit, make_batch
from zeuxis.errors import NoWeightsError, UserError, nearest, one_of, require_whole, require_within, shown
from zeuxis.files import exists, regular, why
from zeuxis.models import (
    Classifies,
    Code,
    Encodes,
    Generates,
    HasCodes,
    HasFeatures,
    Model,
    Posterior,
    Selects,
    build_model,
)
from zeuxis.models.base import Role
from zeuxis.models.conditions import of_numbers
from zeuxis.nets import summary
from zeuxis.progress import TROUBLE, say
from zeuxis.recipe import ModelChoice, Recipe, run_recipe
from zeuxis.stores import at_hand, is_address, local_folder
from zeuxis.system import freed_memory_kept
from zeuxis.threads import paced, threads
from zeuxis.training.changing import CHANGES
from zeuxis.training.checkpoint import BEST, Checkpoint, best_checkpoint, changes, checkpoints, load_weights
from zeuxis.training.hardware import pick_device
from zeuxis.training.journal import Lines, read_changes, read_journal, read_warnings
from zeuxis.training.snapshots import read_snapshots
from zeuxis.trust import NOTHING, Trust

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Batches", "Run", "find_run", "slerp"]

# Batch size of sampling and encoding.
CHUNK = 256
# Limits of one request: latent vectors, images in a row, and GiB of images.
MOST_LATENTS, MOST_STEPS, MOST_MEMORY = 100_000, 1000, 16
# What rounding, as of bfloat16, may add to a pixel of 0..1.
ROUNDING = 0.01
# Limits of a latent's values (the prior is about 1 wide) and of a seed (a generator takes 64 bits).
MOST_LATENT, LAST_SEED = 1e6, 2**63 - 1


class _Record(BaseModel):
    """A part of what a run recorded; values of other types are errors, unknown keys are kept."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Data(_Record):
    fingerprint: str
    classes: list[str]
    attributes: list[str] = []
    factors: list[str] = []
    # Name, mean and deviation of each.
    numbers: list[tuple[str, float, float]] = []
    train_images: int = Field(ge=1)
    test_images: int = Field(ge=1)
    sizes: str
    notes: list[str] = []


class _Environment(_Record):
    data: _Data
    processor: str
    python: str = ""
    versions: dict[str, str] = {}
    threads: int = 1
    gpu: str | None = None


class Batches:
    """Images in batches, each made when it is asked for, and the same whenever it is.

    Args:
        count: number of images.
        make: makes the images of a slice, `(N, H, W, C)` in 0..1.
    """

    def __init__(self, count: int, make: Callable[[slice], np.ndarray]) -> None:
        self.count, self.make = count, make

    def __len__(self) -> int:
        return math.ceil(self.count / CHUNK)

    def __iter__(self) -> Iterator[np.ndarray]:
        with freed_memory_kept() if len(self) > 1 else nullcontext():
            yield from map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> np.ndarray:
        """Returns the images of a batch, counted from 0."""
        if not isinstance(number, int | np.integer) or not 0 <= number < len(self):
            raise UserError(f"A batch is chosen by its number, from 0 to {len(self) - 1:,}, not by {shown(number)}.")
        return self.make(self.part(number))

    def part(self, number: int) -> slice:
        """Returns where a batch stands among all images."""
        return slice(number * CHUNK, min((number + 1) * CHUNK, self.count))


class Run:
    """A trained model with its history.

    Args:
        path: the run folder.
        trust: which modules named in its recipe may run, beyond those of runs that this user trained here.

    Raises:
        UserError: if the folder is not a run.
    """

    def __init__(self, path: str | Path, *, trust: Trust = NOTHING) -> None:
        if not isinstance(path, str | Path):
            raise UserError(f"A run is opened by the path of its folder, not by {shown(path)}.")
        self.path, self.trust = at_hand(Path(path)), trust
        missing = [name for name in ("recipe.toml", "environment.json") if not (self.path / name).is_file()]
        if missing:
            if exists(self.path) and not self.path.is_dir():
                raise UserError(f"{self.path} is a file; a run is a folder that `zeuxis train` makes.")
            raise UserError(f"{self.path} is not a run: it has no {missing[0]}. `zeuxis train` makes runs.")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    # -- what was recorded ----------------------------------------------------------------------------

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return run_recipe(self.path, trust=self.trust)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware and data, as recorded when training started."""
        path = self.path / "environment.json"
        try:
            return _Environment.model_validate_json(regular(path).read_bytes()).model_dump()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {why(error)}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(f"{path} is damaged: {place + ': ' if place else ''}{first['msg']}.") from error

    @cached_property
    def journal(self) -> Lines:
        """All journal lines, oldest first, with the roles of their numbers."""
        newest = next(iter(checkpoints(self.path / "checkpoints")), None)
        step = 0
        if newest is not None:
            with suppress(UserError):  # a damaged checkpoint is reported when its weights are loaded
                step = Checkpoint.read(newest, parts=()).state["step"]
        return read_journal(self.path / "journal.jsonl", step)

    @cached_property
    def warnings(self) -> list[str]:
        """The monitors' warnings during training, each once."""
        return list(dict.fromkeys(line["warning"] for line in read_warnings(self.path / "warnings.jsonl")))

    @cached_property
    def changes(self) -> list[dict[str, Any]]:
        """What was changed when it was resumed: `step`, `epoch`, and `changes` as `{KEY: [OLD, NEW]}`, oldest first."""
        return read_changes(self.path / CHANGES)

    @checked
    def figure(self, name: str, **options: Any) -> Figure:
        """Returns one of its figures, such as `latents`; `zeuxis figures` lists the names.

        Args:
            name: of the figure.
            options: of the figure, such as `points=500`.

        Raises:
            UserError: for a figure that does not apply, or an option that it does not have.
        """
        from zeuxis import notebook

        return notebook.draw(self, name, options)

    @checked
    def show(self, count: int = 32, *, columns: int = 16, seed: int = 1) -> Figure:
        """Returns a figure of samples.

        Raises:
            UserError: if the model makes no images.
        """
        from zeuxis import notebook

        return notebook.show(self, count, columns, seed)

    def _repr_html_(self) -> str:
        from zeuxis import notebook

        return notebook.page(self)

    @cached_property
    def snapshots(self) -> list[tuple[int, np.ndarray]]:
        """Step and `(N, H, W, C)` bytes of every snapshot, oldest first."""
        return read_snapshots(self.path / "snapshots", self.recipe.data.size)

    @checked
    def series(self, term: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns steps and values of a term, such as `"vae/kl"`; both are empty if it was never logged."""
        pairs = [(line["step"], line[term]) for line in self.journal if term in line]
        steps, values = zip(*pairs, strict=True) if pairs else ((), ())
        return np.array(steps, np.int64), np.array(values, np.float64)

    @checked
    def names_of(self, *roles: Role) -> list[str]:
        """Returns the names of the journalled numbers with these roles, in the order of their first appearance."""
        return [name for name, role in self.journal.roles.items() if role in roles]

    @checked
    def last(self, key: str) -> Any:
        """Returns the newest value of a journal key, or None."""
        return next((line[key] for line in reversed(self.journal) if key in line), None)

    # -- what it can do -------------------------------------------------------------------------------

    @cached_property
    def structure(self) -> Model:
        """The model, perhaps without its trained weights: enough to know its networks, phases and abilities."""
        model = build_model(self.recipe, self.classes)
        if numbers := self.environment["data"].get("numbers"):
            model.conditions = of_numbers([name for name, *_ in numbers], [(mean, dev) for _, mean, dev in numbers])
        return model

    @cached_property
    def _loaded(self) -> tuple[Model, int]:
        path, model = self._weights_path(), self.structure
        try:
            checkpoint = Checkpoint.read(path, parts=("networks/", "average/"))
            for words in changes(checkpoint.state, self.recipe, self.changes):
                say(f"{self.path / 'recipe.toml'} was changed since its weights were saved: {words}.", style=TROUBLE)
            load_weights(model, checkpoint)
        except UserError as error:
            others = [other.name for other in checkpoints(path.parent) if other != path]
            remedy = f" Remove {path} to use {others[0]} instead." if others else ""
            raise UserError(f"{error}{remedy}") from error
        step = int(checkpoint.state["step"])
        best = checkpoint.state.get("best")  # value and step
        if path.name != BEST and best is not None and best[1] != step:
            say(f"{path.with_name(BEST)} is missing, so {self.name} uses the weights of step {step:,} in place of the "
                f"best ones, of step {best[1]:,}.", style=TROUBLE)  # fmt: skip
        return model.eval().to(self.device), step

    @property
    def model(self) -> Model:
        """The model with the weights of the best checkpoint, or of the newest if none is marked best."""
        return self._loaded[0]

    @cached_property
    def trained(self) -> bool:
        """Whether it has weights: its first checkpoint was saved."""
        return best_checkpoint(self.path / "checkpoints") is not None

    @property
    def step(self) -> int:
        """The step at which those weights were saved; of the newest journal line while there are none."""
        return self._loaded[1] if "_loaded" in vars(self) else self._saved_step

    @cached_property
    def _saved_step(self) -> int:
        if not self.trained:
            return self.last("step") or 0
        return int(Checkpoint.read(self._weights_path(), parts=()).state["step"])

    def _weights_path(self) -> Path:
        path = best_checkpoint(self.path / "checkpoints")
        if path is None:
            raise NoWeightsError(f"{self.path} has no checkpoint yet; let it train longer, or resume it.")
        return path

    @cached_property
    def weights(self) -> str:
        """SHA-256 of the checkpoint in use: two runs with the same one make the same images."""
        with regular(self._weights_path()).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def device(self) -> torch.device:
        """The device that the model runs on."""
        return pick_device("auto")

    @cached_property
    def dataset(self) -> Dataset:
        """The data it was trained on.

        Raises:
            UserError: if the data is missing on this machine, or has changed.
        """
        dataset = data.load(self.recipe.data, recipe=self.recipe.name)
        if dataset.fingerprint != self.environment["data"]["fingerprint"]:
            raise UserError(f"The data of {self.path} has changed since it was trained; put the same images back.")
        return dataset

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the data's classes."""
        return tuple(self.environment["data"]["classes"])

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the data's binary attributes; empty if it has none."""
        return tuple(self.environment["data"].get("attributes", ()))

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the factors that the data's images were drawn from; empty if they are unknown."""
        return tuple(self.environment["data"].get("factors", ()))

    @property
    def conditional(self) -> bool:
        """Whether the model is given a class to make images of."""
        return self.structure.conditional

    @property
    def generates(self) -> bool:
        """Whether the model makes images from latents."""
        return isinstance(self.structure, Generates)

    @property
    def encodes(self) -> bool:
        """Whether the model encodes images into latents."""
        return isinstance(self.structure, Encodes)

    @property
    def classifies(self) -> bool:
        """Whether the model predicts classes."""
        return isinstance(self.structure, Classifies)

    @property
    def codes(self) -> tuple[Code, ...]:
        """The codes: parts of the latent vector with a meaning of their own; empty if there are none."""
        return self.structure.codes() if isinstance(self.structure, HasCodes) else ()

    @property
    def summary(self) -> dict[str, Any]:
        """Tables of the networks' layers, as `zeuxis summary --json` prints them."""
        return summary(self.recipe.name, self.structure.networks)

    @checked
    def latents(self, n: int, seed: int = 1) -> np.ndarray:
        """Samples `(n, Z)` latents from the prior; the same seed gives the same latents on any device.

        Raises:
            UserError: if the model makes no images, or if n or the seed is out of range.
        """
        return self._latents(n, seed)

    def _latents(self, n: int, seed: int, each: int = 1) -> np.ndarray:
        """Samples `(n * each, Z)` latents."""
        model = self._generator()
        require_whole("The number of images", n, 1, MOST_LATENTS)
        require_whole("A seed", seed, 0, LAST_SEED)
        latents: np.ndarray = model.sample_latents(n * each, torch.Generator().manual_seed(seed)).numpy()
        return latents

    @cached_property
    def latent_size(self) -> int:
        """Numbers in a latent, Z."""
        return int(self.latents(1).shape[1])

    @property
    def candidates(self) -> int:
        """Number of images that are generated for a sample, of which the model keeps the best; 1 for most models."""
        return self.structure.candidates if isinstance(self.structure, Selects) else 1

    @checked
    def latents_of_samples(
        self, n: int, seed: int = 1, *, condition: np.ndarray | None = None, scale: float = 1.0
    ) -> np.ndarray:
        """Returns the latents `(n, Z)` of samples: those of `latents`, or the best of several, if the model selects.

        Args:
            n: number of samples.
            seed: of the latents.
            condition: `(n, K)` class weights, for conditional models.
            scale: factor of the latents.

        Raises:
            UserError: as `latents`, and if a package that the selection needs is not installed.
        """
        model = self._generator()
        if condition is not None:
            condition = self._given("latents_of_samples", condition, n)
        each = self.candidates
        if each == 1:
            return self._latents(n, seed) * scale
        try:
            model.require_packages()
        except UserError as error:
            raise UserError(
                f"A sample of {self.path} is the best of {each} images. {error} Or take the first of them: best_of=1 "
                "(--set best_of=1)."
            ) from None
        latents = self._latents(n, seed, each) * scale
        weights = None if condition is None else np.repeat(condition, each, axis=0)
        scores = self._preferences(latents, self._given("choose", weights, len(latents))).reshape(n, each)
        best: np.ndarray = latents.reshape(n, each, -1)[np.arange(n), scores.argmax(axis=1)]
        return best

    def _preferences(self, latents: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
        """Returns the scores `(N,)` by which a model that selects chooses among its images."""
        model, scores = self._generator(), []
        with torch.no_grad():
            for start in paced(range(0, len(latents), CHUNK), "decode"):
                part = slice(start, start + CHUNK)
                images = self._generated(latents, condition, part)
                scores.append(model.preference(images, self._weights(condition, part)).float().cpu().numpy())
        return np.concatenate(scores)

    def _generated(self, latents: np.ndarray, condition: np.ndarray | None, part: slice) -> torch.Tensor:
        """Returns the images of a part of some latents, `(B, C, H, W)` in the recipe's range."""
        z = torch.as_tensor(latents[part], device=self.device)
        images: torch.Tensor = self._generator().generate(z, self._weights(condition, part))
        return images

    def configure(self, **options: Any) -> None:
        """Changes how the model samples from now on; nothing in the run folder changes.

        Args:
            options: of the model, such as `solver_steps=4` or `guidance=2.0` for a flow.

        Raises:
            UserError: for options that this model does not sample by, and for wrong values.
        """
        model = self.model
        for name in options:
            if not model.sampling_options:
                raise UserError(f"The model '{self.recipe.model.name}' has no options for sampling; drop {name}.")
            if name not in model.sampling_options:
                raise one_of("option for sampling", name, model.sampling_options)
        choice = ModelChoice(name=self.recipe.model.name, **(model.options.model_dump() | options))
        model.options = choice.read(type(model.options), f"The model of {self.path}", "model")

    @property
    def recipe_in_use(self) -> Recipe:
        """The recipe, with what `configure` changed."""
        return self.recipe.updated({f"model.{name}": value for name, value in self.sampling.items()})

    @property
    def sampling(self) -> dict[str, Any]:
        """The options by which the model samples, with what `configure` changed."""
        model = self.structure
        return {name: getattr(model.options, name) for name in model.sampling_options}

    @checked
    def sample(self, n: int = 16, *, seed: int = 1, label: str | int | None = None, scale: float = 1.0) -> np.ndarray:
        """Samples new images in float32; inside `torch.autocast("cpu", torch.bfloat16)` it takes about half the time.

        Args:
            n: number of images.
            seed: seed of the latents.
            label: the class, for conditional models; None for all classes in turn.
            scale: factor of the latents; above 1 images vary more, below 1 they are safer.

        Returns:
            `(n, H, W, C)` in 0..1.

        Raises:
            UserError: if the model makes no images or has no such class, or if a number is out of range.
        """
        return self._joined(self.samples(n, seed=seed, label=label, scale=scale))

    @checked
    def samples(self, n: int, *, seed: int = 1, label: str | int | None = None, scale: float = 1.0) -> Batches:
        """Returns the images of `sample` in batches, for more than fit into memory."""
        if label is not None and not self.conditional:
            raise UserError(f"{self.path} is not conditional, so it takes no class; leave the label out.")
        require_whole("The number of images", n, 1, MOST_LATENTS)
        require_within("The scale of the latents", scale, 0, 1000)
        condition = self.in_turn(n) if label is None else self.condition_of([str(label)] * n)
        return self._decoded(self.latents_of_samples(n, seed, condition=condition, scale=scale), condition)

    @checked
    def in_turn(self, n: int, each: int = 1) -> np.ndarray | None:
        """Returns class weights `(n * each, K)` of the classes in turn, each repeated; None if not conditional.

        Args:
            n: number of turns.
            each: images of one class before the next follows.
        """
        require_whole("The number of turns", n, 1, MOST_LATENTS)
        require_whole("The images of a class", each, 1, MOST_LATENTS)
        if not self.conditional:
            return None
        return np.repeat(self.model.conditions.in_turn(n), each, axis=0)

    @checked
    def condition_of(self, names: list[str]) -> np.ndarray:
        """Returns the conditions `(N, K)` of N classes, attributes (`Smiling=1,Male=0`) or numbers (`angle=30`)."""
        return self.model.conditions.vectors_of(names)

    def decode(self, latents: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
        """Decodes latents to `(N, H, W, C)` images in 0..1.

        Args:
            latents: `(N, Z)`.
            condition: `(N, K)` class weights, for conditional models; mixtures are allowed.
        """
        return self._joined(self._decoded(latents, condition))

    def _decoded(self, latents: np.ndarray, condition: np.ndarray | None) -> Batches:
        """Returns the images of `decode` in batches."""
        latents = _rows("Latents", latents, self.latent_size)
        condition = self._given("decode", condition, len(latents))

        def decode(part: slice) -> np.ndarray:
            with threads.unit("decode"), torch.no_grad():
                x = to_unit(self._generated(latents, condition, part), self.recipe.data.range)
                images: np.ndarray = x.permute(0, 2, 3, 1).float().cpu().numpy()
            return images

        return Batches(len(latents), decode)

    def _joined(self, parts: Batches) -> np.ndarray:
        """Returns all images in one array, if it is not too large."""
        memory = 4 * parts.count * math.prod(self.recipe.data.shape) / 2**30
        if memory > MOST_MEMORY:
            raise UserError(
                f"{parts.count:,} images of this size take {memory:,.0f} GiB at once, and {MOST_MEMORY} are allowed; "
                f"ask for fewer, or get them in batches from run.samples."
            )
        return np.concatenate(list(parts))

    def posterior(self, images: np.ndarray, condition: np.ndarray | None = None) -> Posterior:
        """Encodes images; returns mean and log-variance, `(N, Z)` tensors on the CPU.

        Args:
            images: `(N, H, W, C)` in 0..1 or bytes.
            condition: `(N, K)` class weights, for conditional models.
        """
        model = self.model
        if not isinstance(model, Encodes):
            instead = "; `zeuxis project` searches latents of your own pictures" if self.generates else ""
            raise UserError(f"{self.path} is a '{self.recipe.model.name}', which cannot encode images{instead}.")
        pixels = self._pixels(images)
        condition = self._given("encode", condition, len(pixels))
        parts = []
        with torch.no_grad():
            for start in paced(range(0, len(pixels), CHUNK), "encode"):
                part = slice(start, start + CHUNK)
                x = from_unit(pixels[part].to(self.device), self.recipe.data.range)
                posterior = model.encode(x, self._weights(condition, part))
                parts.append((posterior.mean.cpu(), posterior.logvar.cpu()))
        return Posterior(torch.cat([mean for mean, _ in parts]), torch.cat([logvar for _, logvar in parts]))

    def encode(self, images: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
        """Returns the posterior means, `(N, Z)`; same arguments as `posterior`."""
        return self.posterior(images, condition).mean.numpy()

    def reconstruct(self, images: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
        """Encodes and decodes images; same arguments as `posterior`."""
        return self.decode(self.encode(images, condition), condition)

    @checked
    def read_files(self, paths: Sequence[str | Path]) -> np.ndarray:
        """Reads image files as the images of training were read, `(N, H, W, C)` in 0..1; says what it changed.

        Raises:
            UserError: if a file cannot be read.
        """
        images, notes = data.read_pictures(paths, self.recipe.data)
        for note in notes:
            say(str(note))
        return images

    @checked
    def encode_files(self, paths: Sequence[str | Path], *, label: str | None = None) -> np.ndarray:
        """Returns the posterior means, `(N, Z)`, of image files.

        Args:
            paths: image files.
            label: the class of all of them, for conditional models; None for the one that reconstructs each best.
        """
        images = self.read_files(paths)
        return self.encode(images, self.condition_for(images, label))

    @checked
    def condition_for(self, images: np.ndarray, label: str | None = None) -> np.ndarray | None:
        """Returns conditions `(N, K)` of images without labels; None if the model is not conditional.

        Args:
            images: `(N, H, W, C)` in 0..1.
            label: the condition of all; None to search, for each, the class with the least error of reconstruction.

        Raises:
            UserError: for an unknown class, a model that takes none, and numbers, which cannot be searched.
        """
        if not self.conditional:
            if label is not None:
                raise UserError(f"{self.path} is not conditional, so it takes no class; leave the label out.")
            return None
        conditions = self.model.conditions
        images = as_array(images, "images")
        if label is not None:
            return self.condition_of([label] * len(np.atleast_1d(images)))
        if not conditions.classes:
            raise UserError(f"{self.path} is given numbers; add them, as in --condition {conditions.parts[0]}=1.")
        tried = [np.repeat(vector[None], len(images), axis=0) for vector in conditions.vectors]
        errors = [np.square(self.reconstruct(images, each) - images).mean(axis=(1, 2, 3)) for each in tried]
        best: np.ndarray = conditions.vectors[np.argmin(errors, axis=0)]
        return best

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns the probability of each class, `(N, K)`, for `(N, H, W, C)` images in 0..1 or bytes."""
        model = self.model
        if not isinstance(model, Classifies):
            raise UserError(f"{self.path} is a '{self.recipe.model.name}', which does not classify.")
        return self._chunks(images, lambda x: model.classify(x).softmax(dim=1))

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns a classifier's last features, `(N, F)`, for `(N, H, W, C)` images in 0..1 or bytes."""
        return self.features_and_classes(images)[0]

    def features_and_classes(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns what `features` and `classify` return, in one pass over the images."""
        model = self.model
        if not isinstance(model, HasFeatures):
            raise UserError(f"{self.path} is a '{self.recipe.model.name}', which has no features to measure in.")

        def joined(x: torch.Tensor) -> torch.Tensor:
            features, logits = model.features_and_logits(x)
            return torch.cat([features, logits.softmax(dim=1)], dim=1)

        both, classes = self._chunks(images, joined), len(self.model.class_names)
        return both[:, :-classes], both[:, -classes:]

    def read_codes(self, images: np.ndarray) -> np.ndarray:
        """Returns the codes that a model reads from `(N, H, W, C)` images: `(N, K)`, one number per code."""
        model = self.model
        if not isinstance(model, HasCodes):
            raise UserError(f"{self.path} is a '{self.recipe.model.name}', which has no codes to read.")
        return self._chunks(images, model.read_codes)

    def condition_of_labels(self, labels: np.ndarray | None) -> np.ndarray | None:
        """Returns conditions `(N, K)` for what `labels` returns; None if the model is not conditional.

        Raises:
            UserError: for labels that are no classes.
        """
        if not self.conditional or labels is None:
            return None
        if self.model.conditions.classes:
            labels = _indices("Labels", labels, len(self.classes))
        return self.model.condition_of_labels(torch.from_numpy(np.asarray(labels))).cpu().numpy()

    @checked
    def choose_images(self, part: str, n: int | None = None) -> np.ndarray:
        """Returns the indices of n images of the "train" or "test" part, always the same ones; of all if n is None.

        Raises:
            UserError: for another part, and if n is not positive.
        """
        if part not in ("train", "test"):
            raise one_of("part of the images", part, ("train", "test"))
        if n is not None and n < 1:
            raise UserError(f"The number of images should be at least 1, not {n}.")
        indices = self.dataset.train if part == "train" else self.dataset.test
        # Not the first n: they may all be of one class if a source lists its images by class.
        if n is not None and n < len(indices):
            indices = np.sort(np.random.default_rng(0).choice(indices, n, replace=False))
        return indices

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Returns images of the data set by index, `(n, H, W, C)` in 0..1, as the model sees them.

        Raises:
            UserError: for an index that no image has.
        """
        batch = make_batch(self.dataset, self.recipe.data, self._indices(indices), torch.device("cpu"))
        pixels: np.ndarray = to_unit(batch.images, self.recipe.data.range).permute(0, 2, 3, 1).numpy()
        return pixels

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """Returns the class indices of images by index, `(n,)`, or their numbers, `(n, K)`; None without either."""
        return None if self.dataset.labels is None else self.dataset.labels[self._indices(indices)]

    @checked
    def attribute(self, name: str, indices: np.ndarray) -> np.ndarray:
        """Returns whether images have an attribute, `(n,)` of bool.

        Raises:
            UserError: if the data has no such attribute.
        """
        known, table = self.dataset.attribute_names, self.dataset.attributes
        if table is None or name not in known:
            raise one_of("attribute", name, known)
        has: np.ndarray = table[self._indices(indices), list(known).index(name)].astype(bool)
        return has

    def factor_values(self, indices: np.ndarray) -> np.ndarray:
        """Returns the index of each factor's value for images by index, `(n, F)`, in the order of `factors`."""
        table = self.dataset.factors
        if table is None:
            raise UserError(f"The factors that the images of {self.path} were drawn from are unknown.")
        values: np.ndarray = table[self._indices(indices)]
        return values

    def _indices(self, indices: np.ndarray) -> np.ndarray:
        return _indices("Indices of images", indices, len(self.dataset.images))

    @checked
    def test_images(self, n: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns n held-out images `(n, H, W, C)` in 0..1 and their labels; all if n is None."""
        indices = self.choose_images("test", n)
        return self.images(indices), self.labels(indices)

    @checked
    def interpolate(self, start: str | int, end: str | int, *, steps: int = 10, seed: int = 1) -> np.ndarray:
        """Makes a row of images between two points of latent space, or between two classes.

        Args:
            start: the first image: a class for conditional models; else a latent, given as a seed or as numbers
                separated by commas.
            end: the last image, in the same form.
            steps: number of images.
            seed: seed of the one latent that all images share, for conditional models.

        Returns:
            `(steps, H, W, C)` in 0..1.
        """
        require_within("The steps of an interpolation", steps, 2, MOST_STEPS)
        t = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
        if self.conditional:
            ends = self.condition_of([str(start), str(end)])
            return self.decode(np.repeat(self.latents(1, seed), steps, axis=0), (1 - t) * ends[:1] + t * ends[1:])
        a, b = self._place(str(start)), self._place(str(end))
        return self.decode(np.stack([slerp(a, b, float(s)) for s in t[:, 0]]))

    def _place(self, text: str) -> np.ndarray:
        size = self.latent_size
        try:
            if text.strip().isdecimal():
                return np.asarray(self.latents(1, int(text))[0])
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != size:
            several = f"{size} numbers separated by commas" if size > 1 else "a number with a point, such as 0.5"
            raise UserError(f"'{text}' is not a latent; give a seed such as 3, or {several}.")
        for number in numbers:
            require_within("A latent", number, -MOST_LATENT, MOST_LATENT)
        return np.array(numbers, np.float32)

    def _chunks(self, images: np.ndarray, function: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        """Applies a function of `(B, C, H, W)` images in the recipe's range to all images, in batches."""
        pixels, parts = self._pixels(images), []
        with torch.no_grad():
            for start in paced(range(0, len(pixels), CHUNK), "look"):
                x = from_unit(pixels[start : start + CHUNK].to(self.device), self.recipe.data.range)
                parts.append(function(x).cpu().numpy())
        return np.concatenate(parts)

    def _given(self, what: str, condition: np.ndarray | None, count: int) -> np.ndarray | None:
        """Returns the condition of so many images, `(count, K)`; raises a `UserError` for one that does not fit."""
        if condition is None and self.conditional:
            raise UserError(f"{self.path} is conditional: {what} needs class weights, such as run.condition_of(['7']).")
        if condition is None:
            return None
        if not self.conditional:
            raise UserError(f"{self.path} is not conditional, so {what} takes no condition; leave it out.")
        return _rows("Class weights", condition, self.model.conditions.size, count)

    def _weights(self, condition: np.ndarray | None, part: slice) -> torch.Tensor | None:
        if condition is None:
            return None
        return torch.as_tensor(np.asarray(condition[part], np.float32), device=self.device)

    def _generator(self) -> Any:
        if not self.generates:
            raise UserError(f"{self.path} is a '{self.recipe.model.name}', which makes no images.")
        return self.model

    def _pixels(self, images: np.ndarray) -> torch.Tensor:
        """Returns images as `(N, C, H, W)` in 0..1; transparent ones on white, where the model takes three channels."""
        array = as_array(images, "images")
        if array.dtype.kind not in "buif":
            raise UserError(f"The images have values of type {array.dtype}; they should be bytes, or numbers in 0..1.")
        array = array.astype(np.float32) / 255 if array.dtype == np.uint8 else array.astype(np.float32)
        options = self.recipe.data
        if array.ndim < 3:
            raise UserError(f"The images have the shape {array.shape}; they should be several, as image[None] of one.")
        if array.ndim == 3:
            array = array[..., None]
        expected = (*options.shape[1:], options.channels)
        if options.channels == 3 and array.shape[1:] == (*options.shape[1:], 4):
            return on_white(torch.from_numpy(array).permute(0, 3, 1, 2))
        if array.shape[1:] != expected:
            raise UserError(f"The images have the shape {array.shape[1:]}; this run takes (H, W, C) = {expected}.")
        if not len(array) or not np.isfinite(array).all():
            raise UserError(
                "Some images have values that are NaN or infinite." if len(array) else "There are no images."
            )
        low, high = float(array.min()), float(array.max())
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise UserError(f"Images should have values in 0..1, or be bytes; these are from {low:g} to {high:g}.")
        return torch.from_numpy(array).permute(0, 3, 1, 2)


def _rows(what: str, table: np.ndarray, size: int, count: int | None = None) -> np.ndarray:
    """Returns a table as float32, `(N, size)`; raises a `UserError` for another shape, and for what is not finite."""
    array = as_array(table, what[0].lower() + what[1:])
    if array.dtype.kind not in "buif":
        raise UserError(f"{what} should be numbers, and these are of type {array.dtype}.")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        array = array.astype(np.float32)
    if array.ndim != 2 or array.shape[1] != size or len(array) != (count or max(len(array), 1)):
        rows = f"{count} rows" if count else "at least one row"
        raise UserError(f"{what} should be {rows} of {size} numbers, and these have the shape {array.shape}.")
    if not np.isfinite(array).all():
        raise UserError(f"{what} should be finite, and some of these are NaN or infinite.")
    return array


def _indices(what: str, values: np.ndarray, count: int) -> np.ndarray:
    """Returns whole numbers as an array `(N,)`; raises a `UserError` if some are not in `0..count - 1`."""
    array = np.atleast_1d(as_array(values, what[0].lower() + what[1:]))
    whole = not len(array) or array.dtype.kind in "iu"
    if array.ndim != 1 or not whole or (len(array) and not 0 <= array.min() <= array.max() < count):
        raise UserError(f"{what} should be whole numbers from 0 to {count - 1:,}, not {shown(values)}.")
    return array.astype(np.int64)


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Interpolates spherically, which stays where a normal prior has its mass; linearly where there is no angle.

    Source: T. White, Sampling Generative Networks, 2016, section 2.1.
    """
    cosine = float(np.dot(a, b)) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-4 or len(a) < 4:  # in few dimensions a normal distribution has its mass at the centre
        return np.asarray((1 - t) * a + t * b, np.float32)
    weights = np.sin([(1 - t) * angle, t * angle]) / np.sin(angle)
    return np.asarray(weights @ np.stack([a, b]), np.float32)


def find_run(name: str | Path, runs: Path, *, trust: Trust = NOTHING, copies: bool = True) -> Run:
    """Opens a run by its path or address, by its name below `runs`, or a pretrained one as `pretrained/NAME`.

    Args:
        name: the path, address or name.
        runs: the folder of runs.
        trust: as in `Run`.
        copies: whether a pretrained run is copied to `runs` first; without, nothing may be written into it.

    Raises:
        UserError: if there is none; the message names the nearest.
    """
    if not str(name):
        raise UserError("A run is opened by the path of its folder, or by its name, not by an empty text.")
    if str(name).startswith(pretrained.PREFIX) and not exists(Path(name)):
        return Run(pretrained.unpack(str(name).removeprefix(pretrained.PREFIX), runs, copies=copies), trust=trust)
    if is_address(str(name)):
        address, _, name = str(name).rstrip("/").rpartition("/")
        runs = local_folder(address)
    candidates = [path for path in (Path(name), runs / name) if exists(path)]
    if candidates:
        # Another folder of the same name, such as the training images, must not hide the run.
        return Run(next((path for path in candidates if (path / "recipe.toml").is_file()), candidates[0]), trust=trust)
    known = [p.parent.name for p in runs.glob("*/recipe.toml")] if runs.is_dir() else []
    raise UserError(f"There is no run '{name}' here or in {runs}.{nearest(str(name), known)}")
