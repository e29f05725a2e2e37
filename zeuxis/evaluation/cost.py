"""Cost of a run: parameters, multiply-adds, training time, memory, and time per sample.

Multiply-adds are those of matrix products and convolutions, forward and backward; PyTorch counts two operations for
each. The number per training image is that of a whole iteration, penalties included, divided by the images it reads.
They are counted of PyTorch's own operations, so they are the same on every device; some kernels of `zeuxis.nets` need
fewer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from zeuxis.data.batches import Batch
from zeuxis.evaluation.measure import Figures, Material, Value, measure
from zeuxis.models import Iteration, build_model
from zeuxis.nets.backend import plain
from zeuxis.recipe import Recipe
from zeuxis.run import Run
from zeuxis.training.engine import Update, iterate

__all__ = ["Cost", "batches_a_step", "cost", "sampling_multiply_adds", "training_multiply_adds"]

# Batch size for counting multiply-adds.
BATCH = 8


@dataclass(frozen=True)
class Cost:
    """The cost of one run.

    Attributes:
        parameters: number in all networks, counted as in the specification.
        trainable: parameters that an optimiser updates.
        steps: iterations.
        epochs: passes over the training images.
        images: training images seen.
        seconds: time in the training loop, snapshots and tests included.
        images_per_second: `images` divided by `seconds`.
        peak_memory_mib: of the process, or of the GPU where it trained on one.
        sample_ms: milliseconds to generate one image, in batches of 64, on the machine that measures.
        hardware: processor or GPU that it trained on.
    """

    parameters: int
    trainable: int
    steps: int
    epochs: float
    images: int
    seconds: float
    images_per_second: float
    peak_memory_mib: float | None
    sample_ms: float | None
    hardware: str


def cost(run: Run) -> Cost:
    """Reads a run's cost from its journal and environment, and times its sampling."""
    tables = run.summary["networks"].values()
    seconds, images = run.last("seconds") or 0.0, run.last("images") or 0
    return Cost(
        parameters=sum(table["total"] for table in tables),
        trainable=sum(table["trainable"] for table in tables),
        steps=run.last("step") or 0,
        epochs=run.last("epoch") or 0.0,
        images=images,
        seconds=seconds,
        images_per_second=images / seconds if seconds else 0.0,
        peak_memory_mib=max(
            (line["cost/peak_memory_mib"] for line in run.journal if "cost/peak_memory_mib" in line), default=None
        ),
        sample_ms=_sampling_time(run) if run.generates and run.trained else None,
        hardware=hardware(run),
    )


def hardware(run: Run) -> str:
    """Returns the GPU that a run was trained on, else the processor and the number of threads."""
    machine = run.environment
    return machine.get("gpu") or f"{machine['processor']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}"


def _sampling_time(run: Run, batch: int = 64, repeats: int = 5) -> float:
    run.sample(batch)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run.sample(batch)
        times.append(time.perf_counter() - start)
    return 1000 * median(times) / batch


class _Operations(TorchDispatchMode):
    """Counts operations by PyTorch's table; PyTorch's own counter tracks modules, which fails for double backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.number += int(count(*args, **(kwargs or {}), out_val=result))
        return result


def sampling_multiply_adds(run: Run) -> int:
    """Counts the multiply-adds to generate one image, and to choose it where a sample is the best of several."""
    condition = run.in_turn(BATCH)
    counter = _Operations()
    with plain(), counter:
        run.decode(run.latents_of_samples(BATCH, condition=condition), condition)
    return counter.number // 2 // BATCH


def training_multiply_adds(run: Run) -> int:
    """Counts the multiply-adds of an iteration, forward and backward, per image read, on average over the training."""
    starts = sorted({phase.start for phase in run.structure.phases} | {0.0})
    counts = [_iterated(run.recipe, run.classes, start) for start in starts]
    shares = [end - start for start, end in pairwise([*starts, 1.0])]
    per_image = [operations / 2 / (BATCH * batches) for operations, batches, _ in counts]
    return round(sum(share * each for share, each in zip(shares, per_image, strict=True)))


def batches_a_step(recipe: Recipe, classes: Sequence[str]) -> float:
    """Counts the batches that a step of a recipe reads, on average over its phases' intervals."""
    _, batches, iterations = _iterated(recipe, classes)
    return recipe.training.accumulate * batches / iterations


def _iterated(recipe: Recipe, classes: Sequence[str], used: float = 1.0) -> tuple[int, int, int]:
    """Returns the operations and the batches read of so many iterations that every phase is due, and their number.

    Args:
        recipe: the recipe.
        classes: names of the data's classes.
        used: share of the training's budget that is used; phases that start later are left out.
    """
    model, options = build_model(recipe, tuple(classes)), recipe.data
    images = torch.rand(BATCH, *options.shape)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(BATCH) % len(classes) if classes else None
    if options.numbers:
        labels = torch.randn(BATCH, len(options.numbers), generator=generator)
    start, device = torch.zeros(()), torch.device("cpu")
    iterations = math.lcm(*(phase.interval for phase in model.phases))
    updates = {
        phase.optimizer: Update([p for name in phase.updates for p in model.networks[name].parameters()])
        for phase in model.phases
    }
    counter, batches = _Operations(), 0
    with plain(), counter, torch.random.fork_rng():
        for iteration in range(iterations):
            phases = [phase for phase in model.phases if phase.is_due(iteration, used)]
            repeats, due = max(phase.repeat for phase in phases), frozenset(phase.name for phase in phases)
            steps = [
                Iteration(start, generator, device, BATCH, lambda: Batch(images, labels), due=due)
                for _ in range(repeats)
            ]
            iterate(phases, updates, [[step] for step in steps])
            batches += sum(step.is_read for step in steps)
    return counter.number, batches, iterations


@measure(
    gives={
        "parameters": "parameters of all networks",
        "multiply_adds": "multiply-adds to generate one image",
        "training_multiply_adds": "multiply-adds of training, per image read",
        "training_seconds": "seconds in the training loop, tests and snapshots included",
        "images_per_second": "training images read per second",
        "peak_memory_mib": "peak memory in training, in MiB",
        "sample_ms": "milliseconds to generate one image, in batches of 64, on the machine that measured",
    },
    better="",  # whether a cost is worth paying is for the reader to decide
    applies=lambda material: True,
)
def costs(material: Material) -> Figures:
    run, run_cost = material.run, cost(material.run)
    no_images, not_kept = "the model makes no images", "the journal has no such figure"
    figures = {
        "parameters": (run_cost.parameters, ""),
        "multiply_adds": (sampling_multiply_adds(run) if run.generates else None, no_images),
        "training_multiply_adds": (training_multiply_adds(run), ""),
        "training_seconds": (run_cost.seconds, ""),
        "images_per_second": (run_cost.images_per_second, ""),
        "peak_memory_mib": (run_cost.peak_memory_mib, not_kept),
        "sample_ms": (run_cost.sample_ms, no_images),
    }
    return {name: why if figure is None else Value(float(figure)) for name, (figure, why) in figures.items()}
