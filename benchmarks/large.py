"""Calculates what large images take on one GPU and on eight: `python -m benchmarks.large [--size 256]`.

Two things are measured here, on a CPU and images of noise: the multiply-adds of a training image, and the bytes that
the backward pass needs, which are stored while a step runs. The rest is arithmetic:

    memory = 20 bytes a parameter (weight, gradient, two moments, average) + stored bytes of an image times the batch
    time   = 2 operations a multiply-add times the batch, over a share of the GPU's speed,
             + 4 bytes a parameter times 2 (P - 1) / P over the bandwidth of the links between P GPUs
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zeuxis
from benchmarks.documents.page import publish
from zeuxis.evaluation.cost import training_multiply_adds
from zeuxis.run import Run
from zeuxis.training import Callback

RECIPES = ("modern-flow-28", "modern-vae-64", "modern-gan-64")
# Images of a batch, and those of the two steps whose difference is measured.
BATCH, FEW, MORE = 64, 2, 6
# An A100: operations a second in bfloat16, the share of them that convolutions reach, and NVLink's bytes a second.
SPEED, SHARE, LINK = 312e12, 0.35, 300e9
GPUS = 8
BYTES_A_PARAMETER = 20


class Stored:
    """A tensor that waits for the backward pass; the class knows how many bytes wait, and the most that ever did."""

    kept: Counter[int]
    own: set[int]
    live = most = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, storage = tensor, tensor.untyped_storage()
        self.place, self.bytes = storage.data_ptr(), storage.nbytes()
        if self.place in Stored.own:
            return
        Stored.kept[self.place] += 1
        if Stored.kept[self.place] == 1:
            Stored.live += self.bytes
            Stored.most = max(Stored.most, Stored.live)

    def __del__(self) -> None:
        if self.place in Stored.own:
            return
        Stored.kept[self.place] -= 1
        if not Stored.kept[self.place]:
            Stored.live -= self.bytes


class Parameters(Callback):
    """Says which tensors are parameters, whose bytes are counted apart."""

    def begin(self, trainer: Any) -> None:
        Stored.own = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
        self.trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)


def step(recipe: str, size: int, batch: int, runs: Path) -> tuple[int, int, Run]:
    """Trains a recipe one step; returns the bytes that waited at most, the parameters that are trained, and the run."""
    images = np.random.default_rng(0).integers(0, 256, (16, size, size, 3), np.uint8)
    settings = {
        "training.test_every": "never", "training.snapshot_every": "never", "training.batch_size": batch,
        "training.precision": "float32", "data.channels": 3,
    }  # fmt: skip
    Stored.kept, Stored.own, Stored.live, Stored.most = Counter(), set(), 0, 0
    parameters = Parameters()
    with torch.autograd.graph.saved_tensors_hooks(Stored, lambda each: each.tensor):
        run = zeuxis.train(
            recipe, images, size=size, steps=1, settings=settings, runs=runs, progress=False, callbacks=[parameters]
        )
    return Stored.most, parameters.trained, run


def measured(recipe: str, size: int) -> dict[str, Any]:
    """Returns a recipe's row of the table."""
    with TemporaryDirectory() as folder:
        few, trained, run = step(recipe, size, FEW, Path(folder))
        more, *_ = step(recipe, size, MORE, Path(folder))
        operations = 2 * training_multiply_adds(run)
    stored = (more - few) / (MORE - FEW) / 2  # in bfloat16
    weights = BYTES_A_PARAMETER * trained
    seconds = operations * BATCH / (SPEED * SHARE)
    sent = 4 * trained * 2 * (GPUS - 1) / GPUS / LINK
    return {
        "recipe": f"{recipe} --size {size}",
        "parameters": f"{trained / 1e6:.1f} million",
        "operations an image": f"{operations / 1e9:.1f} billion",
        "stored an image": f"{stored / 2**20:.0f} MiB",
        f"one GPU, batch {BATCH}": f"{(weights + BATCH * stored) / 2**30:.1f} GiB, {1000 * seconds:.0f} ms",
        f"{GPUS} GPUs, batch {BATCH}": f"{(weights + BATCH // GPUS * stored) / 2**30:.1f} GiB each, "
        f"{1000 * (seconds / GPUS + sent):.1f} ms",
    }


def main() -> None:
    """Measures, calculates, and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    size = parser.parse_args().size
    publish("large", [measured(recipe, size) for recipe in RECIPES])


if __name__ == "__main__":
    main()
