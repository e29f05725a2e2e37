"""What of a model is exported: each of its operations as a module from arrays to arrays, pixels in 0..1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zeuxis.data import to_unit
from zeuxis.data.batches import from_unit
from zeuxis.export import Layout
from zeuxis.models.base import LearnsPrior, Model
from zeuxis.run import Run

__all__ = ["Part", "parts"]

# Batch size of the examples that a model is exported with; the exported batch is free.
EXAMPLES = 3


@dataclass(frozen=True)
class Part:
    """One operation of a model.

    Attributes:
        name: such as `generator`.
        module: takes the inputs in order, and returns a tensor, or a tuple of them.
        inputs: examples, by name; the first dimension is the batch.
        outputs: names of what it returns.
        facts: what a user must know, by name: sizes, classes, ranges.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    facts: dict[str, str]


class _Images(nn.Module):
    """Base of the exported operations: a model with images in 0..1, in the layout that is asked for."""

    model: Any

    def __init__(self, model: Model, layout: Layout) -> None:
        super().__init__()
        self.model, self.last, self.range = model, layout == "nhwc", model.recipe.data.range

    def given(self, images: Tensor) -> Tensor:
        """Returns images as the model takes them."""
        return from_unit(images.permute(0, 3, 1, 2) if self.last else images, self.range)

    def made(self, images: Tensor) -> Tensor:
        """Returns a model's images as they leave it."""
        images = to_unit(images, self.range)
        return images.permute(0, 2, 3, 1) if self.last else images


class _Generator(_Images):
    def forward(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.made(self.model.generate(latents, condition))


class _Prior(_Images):
    def forward(self, noise: Tensor) -> Tensor:
        latents: Tensor = self.model.latents_of(noise)
        return latents


class _Encoder(_Images):
    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        mean: Tensor = self.model.encode(self.given(images), condition).mean
        return mean


class _Classifier(_Images):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model.classify(self.given(images))
        return logits.softmax(dim=1)


def parts(run: Run, layout: Layout) -> Iterator[Part]:
    """Yields the operations that a run's model has: generator, prior, encoder, classifier."""
    # A copy, so that the run's own model stays on its device.
    model: Any = deepcopy(run.model).cpu()
    height, width = run.recipe.data.shape[1:]
    facts = {
        "recipe": run.recipe.name, "model": run.recipe.model.name, "step": f"{run.step}",
        "images": f"{layout.upper()}, {height}x{width}, {run.recipe.data.channels} channels, 0..1",
    }  # fmt: skip
    condition: dict[str, Tensor] = {}
    if run.conditional:
        condition = {"condition": torch.from_numpy(model.conditions.in_turn(EXAMPLES))}
        facts |= _asked_for(model.conditions)
    images = torch.rand(EXAMPLES, *run.recipe.data.shape)
    shown = {"images": images.permute(0, 2, 3, 1).contiguous() if layout == "nhwc" else images}
    if run.generates:
        latents = torch.from_numpy(run.latents(EXAMPLES))
        yield Part(
            "generator", _Generator(model, layout), {"latents": latents} | condition, ("images",),
            facts | {"latents": str(latents.shape[1]), "prior": _prior(run)},
        )  # fmt: skip
        if isinstance(run.model, LearnsPrior):
            noise = torch.randn(EXAMPLES, latents.shape[1])
            yield Part(
                "prior", _Prior(model, layout), {"noise": noise}, ("latents",), facts | {"noise": "independent N(0, 1)"}
            )
    if run.encodes:
        yield Part("encoder", _Encoder(model, layout), shown | condition, ("latents",), facts)
    if run.classifies:
        yield Part("classifier", _Classifier(model, layout), shown, ("probabilities",), facts | _classes(run))


def _prior(run: Run) -> str:
    """Says in words where latents are sampled from."""
    if isinstance(run.model, LearnsPrior):
        return "learned: latents are what the exported prior makes of independent N(0, 1)"
    codes = [
        f"{code.name}: numbers {code.start} to {code.start + code.size - 1}, one of them 1 and the others 0"
        if code.categorical
        else f"{code.name}: number {code.start}, uniform in -1..1"
        for code in run.codes
    ]
    return "; ".join(["independent N(0, 1)" + (", but for the codes" if codes else ""), *codes])


def _asked_for(conditions: Any) -> dict[str, str]:
    """Says which condition asks for what, as JSON."""
    if conditions.scales:
        scales = dict(zip(conditions.parts, conditions.scales, strict=True))
        return {"condition": json.dumps({"numbers": {name: [*scale] for name, scale in scales.items()}})}
    vectors = dict(zip(conditions.classes, conditions.vectors.tolist(), strict=True))
    return {"condition": json.dumps({"classes": vectors})}


def _classes(run: Run) -> dict[str, str]:
    return {"classes": json.dumps([*run.classes])}
