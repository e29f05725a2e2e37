"""What a run cost: parameters, time, memory, and the time of a sample."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from zeuxis.run import Run

__all__ = ["Cost", "cost"]


@dataclass(frozen=True)
class Cost:
    """Figures of one run.

    Attributes:
        parameters: of all networks, as the specification counts them.
        trainable: those that an optimiser updates.
        steps: iterations.
        epochs: passes over the training images.
        images: training images seen.
        seconds: in the training loop, snapshots and tests included.
        images_per_second: the two above, divided.
        peak_memory_mib: of the process, or of the GPU where it trained on one.
        sample_ms: milliseconds to make one image, in batches of 64 on the machine that asks.
        hardware: what it trained on.
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
    machine = run.environment
    hardware = (
        machine.get("gpu") or f"{machine['processor']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    )
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
        sample_ms=_sampling_time(run) if run.generates else None,
        hardware=hardware,
    )


def _sampling_time(run: Run, batch: int = 64, repeats: int = 5) -> float:
    run.sample(batch)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run.sample(batch)
        times.append(time.perf_counter() - start)
    return 1000 * median(times) / batch
