r"""A model's latent space, prepared for a person who moves through it.

The page holds the latent and sends it with every request, so a picture depends on nothing but the request:

    x = G(s z, c),    z = b + \sum_i a_i d_i

with the directions `d` that this module finds:

- strongest: along which pictures change most. Samples' images are reduced to principal components; the direction of a
  component is the mean of the latents weighted by it (least squares, as latents are uncorrelated).
- principal components of the latents of encoded images.
- attributes and classes: the mean latent of images that have one, minus the mean of those that do not.

Sources: E. Härkönen et al., GANSpace: Discovering Interpretable GAN Controls, NeurIPS 2020, section 2.2; A. Larsen et
al., Autoencoding beyond pixels using a learned similarity metric, ICML 2016, section 4.2.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from zeuxis.data import from_unit, to_bytes
from zeuxis.data.pictures import as_arrays, sent_picture
from zeuxis.errors import UserError, require_within
from zeuxis.evaluation import nearest_images
from zeuxis.figures.film import write_film
from zeuxis.figures.style import CLASSES, on_checks
from zeuxis.latent import searching
from zeuxis.models import Discriminates
from zeuxis.run import MOST_LATENT, Run

__all__ = ["Direction", "Explorer", "principal", "strongest"]

# Encoded images on a map, and images that a discriminator scores at a time.
POINTS, CHUNK = 4000, 256
# Samples from which the strongest directions are found: as many as can be made in some seconds.
FEWEST, MOST, SECONDS = 64, 1024, 3.0
# Seconds, and pictures at most, of a part of long work; between parts, pictures under the pointer go first.
BRIEF, PART = 0.03, 64
STRONGEST, COMPONENTS, MOST_NAMED = 8, 6, 60
# Samples and images that a discriminator's score is compared with, if they can be made in as many seconds.
SCORED = 256
# Pictures of one request, frames of a film, and bytes of a photograph.
MOST_PICTURES, MOST_FRAMES, MOST_PHOTO = 256, 240, 12 * 2**20
# Pictures per second of a film.
FPS = 16
# Starts and steps of the search for a photograph's latent.
STARTS, STEPS = 256, 150
# Latents of photographs that are kept, for several visitors.
PROJECTED = 8


def _key(content: bytes, condition: np.ndarray | None) -> bytes:
    """Returns what a search belongs to: a photograph and a condition."""
    return hashlib.sha256(content + (b"" if condition is None else condition.tobytes())).digest()


class Direction(NamedTuple):
    """A direction in latent space: its name, the group it belongs to, and how far a slider goes along it."""

    name: str
    group: str
    reach: float
    vector: np.ndarray


class Points(NamedTuple):
    """Encoded images: their indices in the data set, latents `(N, Z)`, and labels `(N,)` or None."""

    indices: np.ndarray
    latents: np.ndarray
    labels: np.ndarray | None


class Explorer:
    """A run whose model makes images, with what was found out about its latent space.

    Args:
        run: the run.

    Raises:
        UserError: if it makes no images.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.latent = run.latent_size
        self.condition = run.model.condition_size
        self.points = Points(np.empty(0, np.int64), np.empty((0, self.latent), np.float32), None)
        self.mapped = False
        self._directions: list[Direction] = []
        self._strongest: np.ndarray | None = None
        self._scores: tuple[np.ndarray, np.ndarray] | None = None
        self._projected: dict[bytes, np.ndarray] = {}

    def describe(self) -> dict[str, Any]:
        """Returns what the page needs to know of the model."""
        run, conditions = self.run, self.run.model.conditions
        missing = self._missing()
        kind = "attributes" if conditions.of_attributes else "classes"
        kind = "none" if not run.conditional else "numbers" if conditions.scales else kind
        numeric = run.sampling
        return {
            "name": run.name, "model": run.recipe.model.name, "size": run.recipe.data.size._asdict(),
            "channels": run.recipe.data.channels, "latent": self.latent, "step": run.step,
            "condition": {
                "kind": kind, "size": self.condition, "names": list(conditions.classes or conditions.parts),
                "parts": list(conditions.parts), "scales": [list(scale) for scale in conditions.scales],
                "vectors": conditions.vectors[:1024].tolist() if run.conditional else [],
            },
            "codes": [{"name": code.name, "start": code.start, "size": code.size} for code in run.codes],
            "options": {name: value for name, value in numeric.items() if isinstance(value, int | float)},
            "encodes": run.encodes, "projects": self.projects, "missing": missing, "maps": run.encodes and not missing,
            "attributes": list(run.attributes) if not missing else [],
            "discriminates": self._discriminates, "colours": list(CLASSES),
        }  # fmt: skip

    @property
    def projects(self) -> bool:
        """Whether a photograph's latent is searched: without an encoder, if a picture takes one step."""
        return not self.run.encodes and "solver_steps" not in self.run.model.sampling_options

    @property
    def scored(self) -> bool:
        """Whether there are scores with which a picture's is compared."""
        return self._scores is not None

    @property
    def studied(self) -> bool:
        """Whether the samples were made in which directions are found."""
        return self._strongest is not None

    @property
    def _discriminates(self) -> bool:
        model = self.run.model
        return isinstance(model, Discriminates) and model.discriminates_images

    def _missing(self) -> str:
        """Why the run's images cannot be used here; "" if they can."""
        try:
            _ = self.run.dataset
        except UserError as error:
            return str(error)
        return ""

    def pictures(self, values: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
        """Returns `(N, H, W, C)` bytes for `(N, Z + K)` latents and conditions.

        Raises:
            UserError: for values out of range, or options that the model does not have.
        """
        latents, condition = self._split(values)
        with self._sampling(options):
            return to_bytes(self.run.decode(latents, condition))

    def _split(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        width = self.latent + self.condition
        if not values.size or values.size % width:
            raise UserError(f"A picture takes {width} numbers, not {values.size}.")
        rows = values.reshape(-1, width)
        require_within("The number of pictures", len(rows), 1, MOST_PICTURES)
        if not np.isfinite(rows).all() or np.abs(rows).max() > MOST_LATENT:
            raise UserError("A latent's values should be finite, and not so large.")
        return rows[:, : self.latent], rows[:, self.latent :] if self.condition else None

    @contextmanager
    def _sampling(self, options: Mapping[str, Any]) -> Iterator[None]:
        """Samples with other options while the block runs: pages that show the same run do not disturb each other."""
        usual = self.run.sampling
        wanted = {name: value for name, value in options.items() if name in usual and value != usual[name]}
        if not wanted:
            yield
            return
        self.run.configure(**wanted)
        try:
            yield
        finally:
            self.run.configure(**usual)

    def encoding(self) -> Iterator[None]:
        """Encodes the images of the map, a part between two yields; then `points` and `mapped` are set."""
        run = self.run
        indices = run.choose_images("test", POINTS)
        if len(indices) < POINTS // 4:  # few are held out: training images show where the rest lies
            indices = np.concatenate([indices, run.choose_images("train", POINTS // 2)])
        parts, start, size = [], 0, 1
        while start < len(indices):
            before, part = time.perf_counter(), indices[start : start + size]
            parts.append(run.encode(run.images(part), run.condition_of_labels(run.labels(part))))
            start, size = start + size, paced(size, time.perf_counter() - before)
            yield
        labels = run.labels(indices)
        if labels is not None and labels.ndim > 1:  # numbers are no classes
            labels = None
        self.points, self.mapped = Points(indices, np.concatenate(parts).astype(np.float32), labels), True

    def colouring(self, attribute: str) -> tuple[list[str], np.ndarray]:
        """Returns names and, for each point of the map, the index of its name: by class, or by an attribute."""
        if attribute:
            has = self.run.attribute(attribute, self.points.indices).astype(np.uint16)
            return [f"not {attribute}", attribute], has
        if self.points.labels is None:
            return [], np.zeros(len(self.points.indices), np.uint16)
        return list(self.run.dataset.classes), np.maximum(self.points.labels, 0).astype(np.uint16)

    def point(self, index: int) -> tuple[str, np.ndarray, np.ndarray, np.ndarray | None]:
        """Returns name, image, latent and condition of a point of the map."""
        if not 0 <= index < len(self.points.indices):
            raise UserError("There is no such point on the map.")
        chosen = self.points.indices[index : index + 1]
        labels = self.run.labels(chosen)
        return (
            self.run.dataset.names[int(chosen[0])], to_bytes(self.run.images(chosen)), self.points.latents[index],
            self.run.condition_of_labels(labels),
        )  # fmt: skip

    def directions(self) -> list[Direction]:
        """Returns the directions worth moving along; those that need encoded images if they are encoded."""
        if self._directions:
            return self._directions
        assert self._strongest is not None, "sampling comes first"
        reach, group = 3.0 if self.latent <= 16 else 6.0, "Strongest directions"
        found = [Direction(f"strongest {i + 1}", group, reach, v) for i, v in enumerate(self._strongest)]
        if self.mapped and len(self.points.latents) > 2:
            latents = self.points.latents
            axes, spread = principal(latents, COMPONENTS)
            found += [
                Direction(f"component {i + 1}", "Principal components of encoded images", max(3 * float(s), 1.0), v)
                for i, (v, s) in enumerate(zip(axes, spread, strict=True))
            ]
            for name in self.run.attributes[:MOST_NAMED]:
                has = self.run.attribute(name, self.points.indices)
                found += self._difference(name, "Attributes", has)
            if self.points.labels is not None and not self.run.conditional:
                for i, name in enumerate(self.run.dataset.classes[:MOST_NAMED]):
                    found += self._difference(name, "Classes", self.points.labels == i)
        self._directions = found
        return found

    def _difference(self, name: str, group: str, has: np.ndarray) -> list[Direction]:
        if has.all() or not has.any():
            return []
        latents = self.points.latents
        return [Direction(name, group, 2.0, latents[has].mean(axis=0) - latents[~has].mean(axis=0))]

    def sampling(self) -> Iterator[None]:
        """Makes the samples that the strongest directions are found in, a part between two yields."""
        run, start, spent, size = self.run, 0, 0.0, 1
        latents, condition = run.latents(MOST, 5), run.in_turn(MOST)
        parts: list[np.ndarray] = []
        while start < FEWEST or (start < MOST and spent < SECONDS):
            before, part = time.perf_counter(), slice(start, start + size)
            images = run.decode(latents[part], None if condition is None else condition[part])
            stride = max(images.shape[1] // 32, 1)  # what changes most shows at a low resolution as well
            parts.append(images[:, ::stride, ::stride].reshape(len(images), -1))
            took = time.perf_counter() - before
            start, spent, size = start + size, spent + took, paced(size, took)
            yield
        pixels = np.concatenate(parts)
        latents, start = latents[: len(pixels)], len(pixels)
        self._strongest = strongest(pixels, latents, None if condition is None else condition[:start])

    def scoring(self) -> Iterator[None]:
        """Scores real images and samples, with which a picture's score is compared, a part between two yields."""
        run, start, spent, size = self.run, 0, 0.0, 1
        if not self._discriminates:
            raise UserError("This model has no discriminator of images.")
        images, labels = run.test_images(SCORED)
        mixed = np.random.default_rng(0).permutation(len(images))  # they may be in order of classes
        images, labels = images[mixed], None if labels is None else labels[mixed]
        conditions = run.condition_of_labels(labels)
        latents, turn = run.latents(SCORED, 3), run.in_turn(SCORED)
        real, made = [], []
        while start < SCORED and (start < FEWEST // 2 or spent < SECONDS):
            before, part = time.perf_counter(), slice(start, start + size)
            if len(images[part]):
                real.append(self._realness(images[part], None if conditions is None else conditions[part]))
            asked = None if turn is None else turn[part]
            made.append(self._realness(run.decode(latents[part], asked), asked))
            took = time.perf_counter() - before
            start, spent, size = start + size, spent + took, paced(size, took)
            yield
        self._scores = np.concatenate(real), np.concatenate(made)

    def judged(self, values: np.ndarray, options: Mapping[str, Any]) -> dict[str, float]:
        """Returns the shares of real images and of samples that the discriminator finds less real than a picture."""
        if not self._discriminates:
            raise UserError("This model has no discriminator of images.")
        latents, condition = self._split(values[: self.latent + self.condition])
        with self._sampling(options):
            picture = self.run.decode(latents, condition)
        score = self._realness(picture, condition)[0]
        assert self._scores is not None, "scoring comes first"
        return {"real": float((self._scores[0] < score).mean()), "made": float((self._scores[1] < score).mean())}

    def _realness(self, images: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
        model: Any = self.run.model
        scores = []
        with torch.no_grad():
            for start in range(0, len(images), CHUNK):
                part = slice(start, start + CHUNK)
                x = torch.from_numpy(np.ascontiguousarray(images[part].transpose(0, 3, 1, 2))).to(self.run.device)
                c = None if condition is None else torch.as_tensor(condition[part], device=self.run.device)
                scores.append(model.realness(from_unit(x, self.run.recipe.data.range), c).float().cpu().numpy())
        return np.concatenate(scores)

    def nearest(
        self, values: np.ndarray, options: Mapping[str, Any], count: int = 6
    ) -> tuple[list[str], np.ndarray, list[float]]:
        """Returns names, images and distances of the training images nearest to a picture, in pixels."""
        latents, condition = self._split(values[: self.latent + self.condition])
        with self._sampling(options):
            picture = self.run.decode(latents, condition)
        indices, distances = nearest_images(self.run, picture, count)
        names = [self.run.dataset.names[int(i)] for i in indices[0]]
        return names, to_bytes(self.run.images(indices[0])), distances[0].tolist()

    def projecting(self, content: bytes, condition: np.ndarray | None) -> Iterator[None]:
        """Searches the latent of a photograph for a model without encoder, a step between two yields.

        Then `photograph` returns what was found.

        Raises:
            UserError: as `photograph`.
        """
        picture, label = self._read(content), None
        if condition is not None:
            label = self.run.model.conditions.name_of(condition)
        found = yield from searching(self.run, picture[0], label=label, starts=STARTS, steps=STEPS)
        self._projected[_key(content, condition)] = found.latent
        while len(self._projected) > PROJECTED:
            self._projected.pop(next(iter(self._projected)))

    def photograph(self, content: bytes, condition: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns a photograph as the model sees it, `(1, H, W, C)` bytes, and its latent `(Z,)`.

        For a model that does not encode, it is the latent that `projecting` has found.

        Raises:
            UserError: for a file that is no image or is too large.
        """
        image = self._read(content)
        if not self.run.encodes:
            return to_bytes(image), self._projected[_key(content, condition)]
        return to_bytes(image), self.run.encode(image, None if condition is None else condition[None])[0]

    def _read(self, content: bytes) -> np.ndarray:
        """Returns an image file's content as the model's images are, `(1, H, W, C)` in 0..1."""
        if len(content) > MOST_PHOTO:
            raise UserError(f"The file is larger than {MOST_PHOTO // 2**20} MiB; choose a smaller picture.")
        options = self.run.recipe.data
        return as_arrays([sent_picture(content, options)], options)

    def film(self, pictures: np.ndarray, kind: str) -> bytes:
        """Returns a film of `(N, H, W, C)` bytes that plays forwards and back, enlarged if they are small.

        Args:
            pictures: the way there.
            kind: `gif`, `webp` or `mp4`.
        """
        times = max(256 // max(pictures.shape[1:3]), 1)
        large = on_checks(pictures).repeat(times, axis=1).repeat(times, axis=2)
        frames = [np.broadcast_to(frame, (*frame.shape[:2], 3)) for frame in (*large, *large[-2:0:-1])]
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"walk.{kind}"
            return write_film(frames, len(frames), path, fps=FPS, progress=False).read_bytes()

    def archive(self, values: np.ndarray) -> bytes:
        """Returns latents and conditions as an `.npz` file: `run.decode(file["latents"], file["condition"])`."""
        latents, condition = self._split(values)
        arrays = {"latents": latents} | ({} if condition is None else {"condition": condition})
        with io.BytesIO() as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            return file.getvalue()


def paced(size: int, took: float) -> int:
    """Returns how many pictures the next part of some work takes, if a part of `size` took so many seconds."""
    return max(1, min(int(size * BRIEF / max(took, 1e-6)), 2 * size, PART))


def principal(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first principal components of `(N, Z)` points, unit vectors `(D, Z)`, and the spread along each."""
    centred = points - points.mean(axis=0)
    _, scale, axes = np.linalg.svd(centred, full_matrices=False)
    return axes[:count].astype(np.float32), scale[:count] / np.sqrt(max(len(points) - 1, 1))


def strongest(pixels: np.ndarray, latents: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
    """Returns the directions along which pictures change most, unit vectors `(D, Z)`, strongest first.

    Args:
        pixels: `(N, P)`, of N pictures.
        latents: `(N, Z)`, uncorrelated.
        condition: `(N, K)`, whose own effect on the pictures is taken out first.
    """
    explained = np.concatenate([np.ones((len(pixels), 1)), *([] if condition is None else [condition])], axis=1)
    pixels = pixels - explained @ np.linalg.lstsq(explained, pixels, rcond=None)[0]
    left, scale, _ = np.linalg.svd(pixels, full_matrices=False)
    weights = left[:, :STRONGEST] * scale[:STRONGEST]
    vectors = (weights.T @ (latents - latents.mean(axis=0))).astype(np.float32)[: latents.shape[1]]
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
