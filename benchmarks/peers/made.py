"""Results of a peer in the interface of a run, so that the same measures and figures apply."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from zeuxis.data import load
from zeuxis.evaluation.judge import find_or_train_judge
from zeuxis.evaluation.measure import Material, Value, measures
from zeuxis.recipe import Recipe
from zeuxis.run import Run

__all__ = ["Images", "Made"]

# Measures that need a Zeuxis model: its decoder, its likelihood, its operations.
OURS = {"path_length", "elbo", "bits_per_dimension", "active_latents", "mig", "parameters"}


class Images(Run):
    """The images of a recipe, read as a run reads them, without a model.

    Args:
        path: takes the place of the run folder.
        recipe: the recipe.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe
        self.dataset = load(recipe.data, recipe=recipe.name)
        classes = list(self.dataset.classes)
        self.environment = {"data": {"fingerprint": self.dataset.fingerprint, "classes": classes}}

    def held_out(self, n: int) -> np.ndarray:
        """Returns the images that a peer reconstructs, `(M, H, W, C)` in 0..1."""
        return self.images(self.choose_images("test", n))


class Made(Images):
    """The samples and reconstructions of a peer, read from a file.

    Args:
        path: the file, as written by `exchange.write_made`.
        recipe: of the images that it was trained on.
        conditional: whether its samples are of all classes in turn.
    """

    def __init__(self, path: Path, recipe: Recipe, *, conditional: bool) -> None:
        super().__init__(path, recipe)
        self._conditional = conditional
        with np.load(path) as arrays:
            self.made = {name: arrays[name] for name in arrays}
        self._rebuilt: dict[bytes, np.ndarray] = {}

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def model(self) -> Any:
        return SimpleNamespace(class_names=self.classes, conditional=self._conditional)

    @property
    def generates(self) -> bool:
        return True

    @property
    def encodes(self) -> bool:
        return "rebuilt" in self.made

    def sample(self, n: int = 16, *, seed: int = 1, label: str | int | None = None, scale: float = 1.0) -> np.ndarray:
        """Returns the first n samples in the file; seed, label and scale are ignored."""
        images: np.ndarray = self.made["samples"][:n].astype(np.float32) / 255
        return images

    def latents(self, n: int, seed: int = 1) -> np.ndarray:
        """Returns latents without dimensions, as those of a peer are not known."""
        return np.zeros((n, 0), np.float32)

    def reconstruct(self, images: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
        """Returns the peer's reconstructions of these held-out images."""
        if not self._rebuilt:
            rebuilt = self.made["rebuilt"]
            pairs = zip(self.held_out(len(rebuilt)), rebuilt, strict=True)
            self._rebuilt = {image.tobytes(): reconstruction for image, reconstruction in pairs}
        return np.stack([self._rebuilt[image.tobytes()] for image in images])

    def measured(self) -> dict[str, dict[str, Any]]:
        """Returns the figures of every measure that does not need a model, and the cost of training."""
        material = Material(self, samples=len(self.made["samples"]), judge=find_or_train_judge(self))
        material.samples = self.made["samples"]
        material.labels = np.arange(material.n) % len(self.classes) if self._conditional else None
        images, seconds = int(self.made["images"]), float(self.made["seconds"])
        figures = {
            "parameters": Value(float(self.made["parameters"])),
            "training_seconds": Value(seconds),
            "images_per_second": Value(images / seconds, n=images),
        }
        for measure in measures():
            if measure.name not in OURS and measure.applies(material):
                figures |= {name: value for name, value in measure.take(material).items() if isinstance(value, Value)}
        return {name: value._asdict() for name, value in figures.items()}
