"""What a peer made, standing in the place of a run, so that the same measures and figures take it."""

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

# What needs a model of ours in hand: its decoder, its likelihood, its operations.
OURS = {"path_length", "elbo", "bits_per_dimension", "active_latents", "mig", "parameters"}


class Images(Run):
    """The images that a recipe is for, read as a run reads them, with no model.

    Args:
        path: what stands in the place of the run's folder.
        recipe: whose images.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe
        self.dataset = load(recipe.data, recipe=recipe.name)
        classes = list(self.dataset.classes)
        self.environment = {"data": {"fingerprint": self.dataset.fingerprint, "classes": classes}}

    def held_out(self, n: int) -> np.ndarray:
        """The images that a peer rebuilds, `(M, H, W, C)` in 0..1."""
        return self.images(self.choose_images("test", n))


class Made(Images):
    """Samples and reconstructions that a peer left in a file.

    Args:
        path: the file, as `exchange.write_made` writes it.
        recipe: whose images it was trained on.
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
        """The first n that it made; they are what they are, so seed, label and scale say nothing."""
        images: np.ndarray = self.made["samples"][:n].astype(np.float32) / 255
        return images

    def latents(self, n: int, seed: int = 1) -> np.ndarray:
        """None are known."""
        return np.zeros((n, 0), np.float32)

    def reconstruct(self, images: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
        """What it rebuilt of these held-out images."""
        if not self._rebuilt:
            rebuilt = self.made["rebuilt"]
            pairs = zip(self.held_out(len(rebuilt)), rebuilt, strict=True)
            self._rebuilt = {image.tobytes(): again for image, again in pairs}
        return np.stack([self._rebuilt[image.tobytes()] for image in images])

    def measured(self) -> dict[str, dict[str, Any]]:
        """Every measure that needs no model in hand, and what training cost."""
        material = Material(self, samples=len(self.made["samples"]), judge=find_or_train_judge(self))
        images, seconds = int(self.made["images"]), float(self.made["seconds"])
        found = {
            "parameters": Value(float(self.made["parameters"])),
            "training_seconds": Value(seconds),
            "images_per_second": Value(images / seconds, n=images),
        }
        for each in measures():
            if each.name not in OURS and each.applies(material):
                found |= {name: value for name, value in each.take(material).items() if isinstance(value, Value)}
        return {name: value._asdict() for name, value in found.items()}
