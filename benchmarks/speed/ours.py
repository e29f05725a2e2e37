"""Trains the task's recipe as `zeuxis train` does, round by round, in the precision given on the command line."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.speed.rounds import claim_output, read_task, wanted
from zeuxis.recipe import load_recipe
from zeuxis.training import Callback, start

# Settings of a training without tests, snapshots or checkpoints.
ALONE = (*(f"training.{name}=never" for name in ("test_every", "snapshot_every", "checkpoint_every")), "training.best=")


class Rounds(Callback):
    """Pauses a training after each round until the next is requested."""

    def __init__(self) -> None:
        self.answers = claim_output()

    def begin(self, trainer: Any) -> None:
        self._hold(trainer, "ready")

    def iterated(self, trainer: Any) -> None:
        self.left -= 1
        if not self.left:
            if trainer.device.type == "cuda":
                torch.cuda.synchronize()
            self._hold(trainer, time.perf_counter() - self.started)

    def _hold(self, trainer: Any, answer: object) -> None:
        self.left = wanted(self.answers, answer)
        if not self.left:
            trainer.stop("no more rounds")
        self.started = time.perf_counter()


def main() -> None:
    """Trains until no more rounds are requested."""
    task = read_task()
    overrides = [*task["overrides"], *ALONE, f"training.precision={sys.argv[2]}", "training.steps=1000000"]
    with TemporaryDirectory() as folder:
        start(load_recipe(task["recipe"], overrides), Path(folder), visible=False, callbacks=[Rounds()])


if __name__ == "__main__":
    main()
