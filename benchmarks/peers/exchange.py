"""What passes between Zeuxis and a peer, which runs in an environment of its own: arrays in, arrays out.

Imports NumPy alone, so that it can be read from any environment.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Budget", "Task", "read_task", "write_made"]


@dataclass(frozen=True)
class Task:
    """What a peer is asked for.

    Attributes:
        model: its name.
        train: training images, `(N, H, W, C)` of bytes.
        labels: their classes, `(N,)`; empty where they have none.
        test: held-out images, `(M, H, W, C)` of bytes, to reconstruct if the model can.
        minutes: training time.
        seed: of everything random.
        samples: how many new images to make.
        out: where the arrays go.
    """

    model: str
    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    minutes: float
    seed: int
    samples: int
    out: Path


class Budget:
    """Counts training images until the time is up."""

    def __init__(self, minutes: float) -> None:
        self.allowed, self.images, self.started = 60 * minutes, 0, 0.0

    def start(self) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def spent(self, images: int) -> bool:
        """Adds images that were trained on; whether the time is up."""
        self.images += images
        return self.seconds >= self.allowed

    @property
    def seconds(self) -> float:
        """Training time so far."""
        return time.perf_counter() - self.started


def read_task() -> Task:
    """Reads the command line: model, file of images, file to write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=2000)
    given = parser.parse_args()
    with np.load(given.images) as arrays:
        train, labels, test = arrays["train"], arrays["labels"], arrays["test"]
    return Task(given.model, train, labels, test, given.minutes, given.seed, given.samples, given.out)


def write_made(
    task: Task, samples: np.ndarray, rebuilt: np.ndarray | None, budget: Budget, seconds: float, parameters: int
) -> None:
    """Writes what a peer made.

    Args:
        task: what it was asked for.
        samples: new images, `(N, H, W, C)` in 0..1.
        rebuilt: reconstructions of the held-out images, `(M, H, W, C)` in 0..1; None if it cannot.
        budget: what training took.
        seconds: of training.
        parameters: numbers that the trained networks hold.
    """
    arrays: dict[str, Any] = {"samples": _bytes(samples)}
    if rebuilt is not None:
        arrays["rebuilt"] = np.clip(rebuilt, 0, 1).astype(np.float32)
    part = task.out.with_suffix(".part.npz")
    np.savez(part, images=budget.images, seconds=seconds, parameters=parameters, **arrays)
    part.replace(task.out)


def _bytes(images: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return rounded
