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

__all__ = ["Part", "asked_for", "generator_facts", "parts"]

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
    facts = _facts(run, layout)
    condition = {"condition": torch.from_numpy(model.conditions.in_turn(EXAMPLES))} if run.conditional else {}
    images = torch.rand(EXAMPLES, *run.recipe.data.shape)
    shown = {"images": images.permute(0, 2, 3, 1).contiguous() if layout == "nhwc" else images}
    if run.generates:
        latents = torch.from_numpy(run.latents(EXAMPLES))
        yield Part(
            "generator", _Generator(model, layout), {"latents": latents} | condition, ("images",),
            generator_facts(run, layout),
        )  # fmt: skip
        if isinstance(run.model, LearnsPrior):
            noise = torch.randn(EXAMPLES, latents.shape[1])
            yield Part(
                "prior", _Prior(model, layout), {"noise": noise}, ("latents",), facts | {"noise": "independent N(0, 1)"}
            )
    if run.encodes:
        yield Part("encoder", _Encoder(model, layout), shown | condition, ("latents",), facts)
    if run.classifies:
        classes = {"classes": json.dumps([*run.classes])}
        yield Part("classifier", _Classifier(model, layout), shown, ("probabilities",), facts | classes)


def generator_facts(run: Run, layout: Layout) -> dict[str, str]:
    """Returns what a user of the generator must know, by name."""
    each = run.candidates
    chosen = {"samples": f"of the run, the best of {each} images; here, one image a latent"} if each > 1 else {}
    return _facts(run, layout) | {"latents": str(run.latent_size), "prior": _prior(run)} | chosen


def _facts(run: Run, layout: Layout) -> dict[str, str]:
    height, width = run.recipe.data.shape[1:]
    facts = {
        "recipe": run.recipe.name, "model": run.recipe.model.name, "step": f"{run.step}",
        "images": f"{layout.upper()}, {height}x{width}, {run.recipe.data.channels} channels, 0..1",
    }  # fmt: skip
    return facts | ({"condition": json.dumps(asked_for(run))} if run.conditional else {})


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


def asked_for(run: Run) -> dict[str, dict[str, list[float]]]:
    """Returns which condition asks a conditional model for what: vectors of classes, or scales of numbers."""
    conditions = run.model.conditions
    if conditions.scales:
        return {"numbers": {name: [*s] for name, s in zip(conditions.parts, conditions.scales, strict=True)}}
    return {"classes": dict(zip(conditions.classes, conditions.vectors.tolist(), strict=True))}
