"""A run, read from its folder: what was trained, and what the model can be asked for.

Images here are NumPy arrays `(N, H, W, C)` of float32 in 0..1, latents `(N, Z)`; tensors, devices and the
recipe's pixel range stay inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zeuxis import data
from zeuxis.data import Dataset, to_unit
from zeuxis.data.batches import from_unit, make_batch
from zeuxis.errors import UserError, nearest, one_of, require_within
from zeuxis.files import exists, why
from zeuxis.models import Classifies, Code, Encodes, Generates, HasCodes, HasFeatures, Model, Posterior, build_model
from zeuxis.models.base import Role
from zeuxis.nets import summary
from zeuxis.progress import TROUBLE, say
from zeuxis.recipe import Recipe, run_recipe
from zeuxis.threads import paced, threads
from zeuxis.training.checkpoint import Checkpoint, best_checkpoint, changes, checkpoints, load_weights
from zeuxis.training.hardware import pick_device
from zeuxis.training.journal import Lines, read_journal, read_warnings
from zeuxis.training.snapshots import read_snapshots
from zeuxis.trust import NOTHING, Trust

__all__ = ["Run", "find_run", "slerp"]

# Images that pass through a network at once when sampling and encoding.
CHUNK = 256
# What may be asked for at once: latent vectors, images in a row, and GiB of images.
MOST_LATENTS, MOST_STEPS, MOST_MEMORY = 100_000, 1000, 16
# What a latent and its seed may be: the prior is about 1 wide, and a generator takes 64 bits.
MOST_LATENT, LAST_SEED = 1e6, 2**63 - 1


class _Record(BaseModel):
    """What a run recorded: values of other types are damage, further keys are kept."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Data(_Record):
    fingerprint: str
    classes: list[str]
    attributes: list[str] = []
    factors: list[str] = []
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


class Run:
    """A trained model with its history.

    Args:
        path: the run folder.
        trust: in modules that its recipe names, beyond what this user trained here.

    Raises:
        UserError: if the folder is not a run.
    """

    def __init__(self, path: str | Path, *, trust: Trust = NOTHING) -> None:
        self.path, self.trust = Path(path), trust
        missing = [name for name in ("recipe.toml", "environment.json") if not (self.path / name).is_file()]
        if missing:
            kind = "not a run" if self.path.is_dir() else "no folder"
            raise UserError(f"{self.path} is {kind}: it holds no {missing[0]}. A run is what `zeuxis train` makes.")

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
        """Versions, hardware and data, as recorded when training began."""
        path = self.path / "environment.json"
        try:
            return _Environment.model_validate_json(path.read_bytes()).model_dump()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {why(error)}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(f"{path} is damaged: {place + ': ' if place else ''}{first['msg']}.") from error

    @cached_property
    def journal(self) -> Lines:
        """All journal lines, oldest first, and the roles of their numbers."""
        newest = next(iter(checkpoints(self.path / "checkpoints")), None)
        step = 0
        if newest is not None:
            with suppress(UserError):  # a damaged one is told where its weights are wanted
                step = Checkpoint.read(newest, parts=()).state["step"]
        return read_journal(self.path / "journal.jsonl", step)

    @cached_property
    def warnings(self) -> list[str]:
        """What the monitors said during training."""
        return [line["warning"] for line in read_warnings(self.path / "warnings.jsonl")]

    @cached_property
    def snapshots(self) -> list[tuple[int, np.ndarray]]:
        """Step and `(N, H, W, C)` bytes of every snapshot, oldest first."""
        return read_snapshots(self.path / "snapshots", self.recipe.data.size)

    def series(self, term: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns steps and values of a term, such as `"vae/kl"`; empty if it was never logged."""
        pairs = [(line["step"], line[term]) for line in self.journal if term in line]
        steps, values = zip(*pairs, strict=True) if pairs else ((), ())
        return np.array(steps, np.int64), np.array(values, np.float64)

    def names_of(self, *roles: Role) -> list[str]:
        """Names of the journalled numbers with these roles, in the order in which they first appear."""
        return [name for name, role in self.journal.roles.items() if role in roles]

    def last(self, key: str) -> Any:
        """Returns the newest value of a journal key, or None."""
        return next((line[key] for line in reversed(self.journal) if key in line), None)

    # -- what it can do -------------------------------------------------------------------------------

    @cached_property
    def _loaded(self) -> tuple[Model, int]:
        model = build_model(self.recipe, self.classes)
        path = best_checkpoint(self.path / "checkpoints")
        if path is None:
            raise UserError(f"{self.path} has no checkpoint yet; let it train further, or resume it.")
        checkpoint = Checkpoint.read(path, parts=("networks/", "average/"))
        for words in changes(checkpoint.state, self.recipe):
            say(f"{self.path / 'recipe.toml'} was changed since its weights were saved: {words}.", style=TROUBLE)
        load_weights(model, checkpoint)
        return model.eval().to(self.device), int(checkpoint.state["step"])

    @property
    def model(self) -> Model:
        """The model with the weights of the best checkpoint, or the newest where none is marked best."""
        return self._loaded[0]

    @property
    def step(self) -> int:
        """The step at which those weights were saved."""
        return self._loaded[1]

    @cached_property
    def device(self) -> torch.device:
        """Where the model runs when asked."""
        return pick_device("auto")

    @cached_property
    def dataset(self) -> Dataset:
        """The data it was trained on.

        Raises:
            UserError: if the data is not to be had here, or has changed.
        """
        dataset = data.load(self.recipe.data, recipe=self.recipe.name)
        if dataset.fingerprint != self.environment["data"]["fingerprint"]:
            raise UserError(f"The data of {self.path} is not what it was trained on; put the same images back.")
        return dataset

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the data's classes."""
        return tuple(self.environment["data"]["classes"])

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the data's binary attributes; empty where it has none."""
        return tuple(self.environment["data"].get("attributes", ()))

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of what the data's images were drawn by, where it is known; else empty."""
        return tuple(self.environment["data"].get("factors", ()))

    @property
    def conditional(self) -> bool:
        """Whether images are made for a class."""
        return self.model.conditional

    @property
    def generates(self) -> bool:
        """Whether the model makes images from latents."""
        return isinstance(self.model, Generates)

    @property
    def encodes(self) -> bool:
        """Whether the model finds the latents of images."""
        return isinstance(self.model, Encodes)

    @property
    def classifies(self) -> bool:
        """Whether the model tells classes apart."""
        return isinstance(self.model, Classifies)

    @property
    def codes(self) -> tuple[Code, ...]:
        """The parts of the latent vector that have a meaning of their own; empty where there are none."""
        return self.model.codes() if isinstance(self.model, HasCodes) else ()

    @property
    def summary(self) -> dict[str, Any]:
        """The tables of its networks, as `zeuxis summary --json` prints them."""
        return summary(self.recipe.name, self.model.networks)

    def latents(self, n: int, seed: int = 1) -> np.ndarray:
        """Draws `(n, Z)` latents from the prior; the same seed gives the same ones on any device.

        Raises:
            UserError: if the model makes no images, or for a number or a seed that is out of range.
        """
        model = self._generator()
        require_within("The number of images", n, 1, MOST_LATENTS)
        require_within("A seed", seed, 0, LAST_SEED)
        drawn: np.ndarray = model.sample_latents(n, torch.Generator().manual_seed(seed)).numpy()
        return drawn

    def sample(self, n: int = 16, *, seed: int = 1, label: str | int | None = None, scale: float = 1.0) -> np.ndarray:
        """Makes new images, in float32; inside `torch.autocast("cpu", torch.bfloat16)` in about half the time.

        Args:
            n: how many.
            seed: of the latents.
            label: the class, for conditional models; None for all in turn.
            scale: multiplies the latents; wider than 1 shows more variety, narrower safer images.

        Returns:
            `(n, H, W, C)` in 0..1.

        Raises:
            UserError: if the model makes no images or has no such class, or for a number that is out of range.
        """
        return self._joined(self.samples(n, seed=seed, label=label, scale=scale), n)

    def samples(
        self, n: int, *, seed: int = 1, label: str | int | None = None, scale: float = 1.0
    ) -> Iterator[np.ndarray]:
        """Makes the images of `sample`, some at a time: for more than fit into memory."""
        if label is not None and not self.conditional:
            raise UserError(f"{self.path} is not conditional, so it cannot be asked for a class; drop --label.")
        require_within("The scale of the latents", scale, 0, 1000)
        latents = self.latents(n, seed) * scale
        condition = self.in_turn(n) if label is None else self.condition_of([str(label)] * n)
        return self._decoded(latents, condition)

    def in_turn(self, n: int, each: int = 1) -> np.ndarray | None:
        """Class weights `(n * each, K)` of the classes in turn, `each` images of one; None if not conditional."""
        if not self.conditional:
            return None
        names = self.model.class_names
        return np.repeat(self.condition_of([names[i % len(names)] for i in range(n)]), each, axis=0)

    def condition_of(self, names: list[str]) -> np.ndarray:
        """Returns the conditions `(len(names), K)` of classes by name, or of attributes, as in `Smiling=1,Male=0`."""
        indices = [self.model.conditions.index(name) for name in names]
        return self.model.condition_of(indices).cpu().numpy()

    def decode(self, latents: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
        """Makes `(N, H, W, C)` images in 0..1 of `(N, Z)` latents.

        Args:
            latents: where in latent space.
            condition: `(N, K)` class weights, for conditional models; mixtures are allowed.
        """
        return self._joined(self._decoded(latents, condition), len(latents))

    def _decoded(self, latents: np.ndarray, condition: np.ndarray | None) -> Iterator[np.ndarray]:
        """The images of `decode`, some at a time."""
        model = self._generator()
        if self.conditional and condition is None:
            raise UserError(f"{self.path} is conditional: decode needs class weights, such as run.condition_of(['7']).")
        for start in range(0, len(latents), CHUNK):
            part = slice(start, start + CHUNK)
            z = torch.as_tensor(np.asarray(latents[part], np.float32), device=self.device)
            with threads.unit("decode"), torch.no_grad():
                x = to_unit(model.generate(z, self._weights(condition, part)), self.recipe.data.range)
                made = x.permute(0, 2, 3, 1).float().cpu().numpy()
            yield made

    def _joined(self, parts: Iterator[np.ndarray], n: int) -> np.ndarray:
        """All of n images at once, if they fit."""
        memory = 4 * n * math.prod(self.recipe.data.shape) / 2**30
        if memory > MOST_MEMORY:
            raise UserError(
                f"{n:,} images of this size take {memory:,.0f} GiB at once, and {MOST_MEMORY} are allowed; ask for "
                f"fewer, or for some at a time by run.samples."
            )
        return np.concatenate(list(parts))

    def posterior(self, images: np.ndarray, condition: np.ndarray | None = None) -> Posterior:
        """Returns mean and log-variance, `(N, Z)` tensors on the CPU.

        Args:
            images: `(N, H, W, C)` in 0..1 or bytes.
            condition: `(N, K)` class weights, for conditional models.
        """
        model = self.model
        if not isinstance(model, Encodes):
            raise UserError(f"{self.path} is a '{self.recipe.model.name}', which makes images but cannot encode them.")
        if self.conditional and condition is None:
            raise UserError(f"{self.path} is conditional: encode needs class weights, such as run.condition_of(['7']).")
        pixels = self._pixels(images)
        parts = []
        with torch.no_grad():
            for start in paced(range(0, len(pixels), CHUNK), "encode"):
                part = slice(start, start + CHUNK)
                x = from_unit(pixels[part].to(self.device), self.recipe.data.range)
                posterior = model.encode(x, self._weights(condition, part))
                parts.append((posterior.mean.cpu(), posterior.logvar.cpu()))
        return Posterior(torch.cat([mean for mean, _ in parts]), torch.cat([logvar for _, logvar in parts]))

    def encode(self, images: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
        """Returns the posterior means, `(N, Z)`; arguments as of `posterior`."""
        return self.posterior(images, condition).mean.numpy()

    def reconstruct(self, images: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
        """Encodes and decodes images; arguments as of `posterior`."""
        return self.decode(self.encode(images, condition), condition)

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns the probability of each class, `(N, K)`, for `(N, H, W, C)` images in 0..1 or bytes."""
        model = self.model
        if not isinstance(model, Classifies):
            raise UserError(f"{self.path} is a '{self.recipe.model.name}', which does not classify.")
        return self._chunks(images, lambda x: model.classify(x).softmax(dim=1))

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns a classifier's last features, `(N, F)`, for `(N, H, W, C)` images in 0..1 or bytes."""
        model = self.model
        if not isinstance(model, HasFeatures):
            raise UserError(f"{self.path} is a '{self.recipe.model.name}', which has no features to measure in.")
        return self._chunks(images, model.features)

    def read_codes(self, images: np.ndarray) -> np.ndarray:
        """Returns what a model with codes reads off `(N, H, W, C)` images: `(N, K)`, a number for each code."""
        model = self.model
        if not isinstance(model, HasCodes):
            raise UserError(f"{self.path} is a '{self.recipe.model.name}', which has no codes to read.")
        return self._chunks(images, model.read_codes)

    def condition(self, labels: np.ndarray | None) -> np.ndarray | None:
        """Class weights `(N, K)` of class indices `(N,)` for a conditional model; None for all others."""
        if not self.conditional or labels is None:
            return None
        return self.model.condition_of(torch.from_numpy(np.asarray(labels))).cpu().numpy()

    def choose_images(self, part: str, n: int | None = None) -> np.ndarray:
        """Returns the indices of n images of the "train" or the "test" part, always the same ones; or of all."""
        indices = self.dataset.train if part == "train" else self.dataset.test
        # Not the first ones, which may all be of one class, where a source lists its images by class.
        if n is not None and n < len(indices):
            indices = np.sort(np.random.default_rng(0).choice(indices, n, replace=False))
        return indices

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Returns images of the data set by index, `(n, H, W, C)` in 0..1, as the model is shown them."""
        batch = make_batch(self.dataset, self.recipe.data, indices, torch.device("cpu"))
        pixels: np.ndarray = to_unit(batch.images, self.recipe.data.range).permute(0, 2, 3, 1).numpy()
        return pixels

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """Returns the class of images by index, `(n,)`; None where the data has no classes."""
        return None if self.dataset.labels is None else self.dataset.labels[indices]

    def attribute(self, name: str, indices: np.ndarray) -> np.ndarray:
        """Returns whether images have an attribute, `(n,)` of bool.

        Raises:
            UserError: if the data has no such attribute.
        """
        known, table = self.dataset.attribute_names, self.dataset.attributes
        if table is None or name not in known:
            raise one_of("attribute", name, known)
        has: np.ndarray = table[indices, list(known).index(name)].astype(bool)
        return has

    def factor_values(self, indices: np.ndarray) -> np.ndarray:
        """Returns the index of each factor's value for images by index, `(n, F)`, in the order of `factors`."""
        table = self.dataset.factors
        if table is None:
            raise UserError(f"Nothing is known of what the images of {self.path} were drawn by.")
        values: np.ndarray = table[indices]
        return values

    def test_images(self, n: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns n held-out images `(n, H, W, C)` in 0..1 and their labels; or all."""
        indices = self.choose_images("test", n)
        return self.images(indices), self.labels(indices)

    def interpolate(self, start: str, end: str, *, steps: int = 10, seed: int = 1) -> np.ndarray:
        """Makes a row of images from one place to another.

        Args:
            start: where it begins: a class for conditional models; else a latent, given as a seed or as numbers
                separated by commas.
            end: where it ends.
            steps: images in the row.
            seed: of the one latent that a conditional row keeps.

        Returns:
            `(steps, H, W, C)` in 0..1.
        """
        require_within("The steps of an interpolation", steps, 2, MOST_STEPS)
        t = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
        if self.conditional:
            ends = self.condition_of([start, end])
            return self.decode(np.repeat(self.latents(1, seed), steps, axis=0), (1 - t) * ends[:1] + t * ends[1:])
        a, b = self._place(start), self._place(end)
        return self.decode(np.stack([slerp(a, b, float(s)) for s in t[:, 0]]))

    def _place(self, text: str) -> np.ndarray:
        size = self.latents(1).shape[1]
        try:
            if "," not in text:
                return np.asarray(self.latents(1, int(text))[0])
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != size:
            raise UserError(
                f"'{text}' is no place in latent space; give a seed such as 3, or {size} numbers separated by commas."
            )
        for number in numbers:
            require_within("A latent", number, -MOST_LATENT, MOST_LATENT)
        return np.array(numbers, np.float32)

    def _chunks(self, images: np.ndarray, function: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        """Applies a function of `(B, C, H, W)` images in the recipe's range to all images, some at a time."""
        pixels, parts = self._pixels(images), []
        with torch.no_grad():
            for start in paced(range(0, len(pixels), CHUNK), "look"):
                x = from_unit(pixels[start : start + CHUNK].to(self.device), self.recipe.data.range)
                parts.append(function(x).cpu().numpy())
        return np.concatenate(parts)

    def _weights(self, condition: np.ndarray | None, part: slice) -> torch.Tensor | None:
        if condition is None:
            return None
        return torch.as_tensor(np.asarray(condition[part], np.float32), device=self.device)

    def _generator(self) -> Any:
        if not self.generates:
            raise UserError(f"{self.path} is a '{self.recipe.model.name}', which makes no images.")
        return self.model

    def _pixels(self, images: np.ndarray) -> torch.Tensor:
        array = np.asarray(images)
        array = array.astype(np.float32) / 255 if array.dtype == np.uint8 else array.astype(np.float32)
        options = self.recipe.data
        if array.ndim == 3:
            array = array[..., None]
        want = (options.size, options.size, options.channels)
        if array.shape[1:] != want:
            raise UserError(f"Images of shape {array.shape[1:]} were given; this run takes (H, W, C) = {want}.")
        return torch.from_numpy(array).permute(0, 3, 1, 2)


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Spherical interpolation, which stays where a normal prior has its mass; straight where there is no angle.

    Source: T. White, Sampling Generative Networks, 2016, section 2.1.
    """
    cosine = float(np.dot(a, b)) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-4 or len(a) < 4:  # in few dimensions a normal's mass is at its centre
        return np.asarray((1 - t) * a + t * b, np.float32)
    weights = np.sin([(1 - t) * angle, t * angle]) / np.sin(angle)
    return np.asarray(weights @ np.stack([a, b]), np.float32)


def find_run(name: str | Path, runs: Path, *, trust: Trust = NOTHING) -> Run:
    """Opens a run by its path, or by its name below `runs`.

    Raises:
        UserError: if there is none, with the nearest name.
    """
    found = [path for path in (Path(name), runs / name) if exists(path)]
    if found:
        # A folder of the same name that is no run, such as the images it learned from, does not stand in its way.
        return Run(next((path for path in found if (path / "recipe.toml").is_file()), found[0]), trust=trust)
    known = [p.parent.name for p in runs.glob("*/recipe.toml")] if runs.is_dir() else []
    raise UserError(f"There is no run '{name}', neither here nor in {runs}.{nearest(str(name), known)}")
