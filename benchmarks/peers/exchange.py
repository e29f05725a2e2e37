"""Exchange of arrays between Zeuxis and a peer, which runs in its own environment.

Imports only NumPy and the standard library, so that any environment can import it.
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
    """The task of a peer.

    Attributes:
        model: name of the model.
        train: training images, `(N, H, W, C)` of bytes.
        labels: their classes, `(N,)`; empty if they have none.
        test: held-out images, `(M, H, W, C)` of bytes, to reconstruct if the model can.
        minutes: training time.
        seed: of all random numbers.
        samples: number of images to generate.
        out: file to write the arrays to.
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
        """Counts images that were trained on; returns whether the time is up."""
        self.images += images
        return self.seconds >= self.allowed

    @property
    def seconds(self) -> float:
        """Training time so far, in seconds."""
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
    words = parser.parse_args()
    with np.load(words.images) as arrays:
        train, labels, test = arrays["train"], arrays["labels"], arrays["test"]
    return Task(words.model, train, labels, test, words.minutes, words.seed, words.samples, words.out)


def write_made(
    task: Task, samples: np.ndarray, rebuilt: np.ndarray | None, budget: Budget, seconds: float, parameters: int
) -> None:
    """Writes a peer's samples and reconstructions.

    Args:
        task: the peer's task.
        samples: generated images, `(N, H, W, C)` in 0..1.
        rebuilt: reconstructions of the held-out images, `(M, H, W, C)` in 0..1; None if the model cannot reconstruct.
        budget: counter of the training images.
        seconds: training time.
        parameters: number of parameters of the trained networks.
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
