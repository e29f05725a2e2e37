"""Compares fixed numbers of threads with the number that Zeuxis chooses, on a machine with other load.

    python -m benchmarks.performance busy

A recipe trains, and a model samples, while 0, 1, 2 and 4 other processes are busy. One process does the work on one
thread, on all threads, and on as many as `zeuxis.threads` chooses, for a few seconds each, in several rounds. The ratio
is taken in each round against the fixed number with the better median; the table shows the median ratio. Finally, two
trainings side by side are compared with one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from zeuxis import data
from zeuxis.models import Generates, build_model
from zeuxis.recipe import load_recipe
from zeuxis.threads import threads
from zeuxis.training import Callback, Trainer

Rows = list[dict[str, Any]]
# Seconds before the first turn, in which the choice of threads settles; seconds of each turn; number of rounds.
SETTLE, SECONDS, ROUNDS = 15.0, 4.0, 4
BUSY = (0, 1, 2, 4)
WORKS = (("mnist-vae-z2", "train"), ("mnist-gan", "sample"))
MOST = str(os.cpu_count())


class Turns:
    """Measures images per second in turns, one for each number of threads.

    Args:
        numbers: numbers of threads, or `auto`.
    """

    def __init__(self, numbers: Sequence[str]) -> None:
        self.rates: dict[str, list[float]] = {number: [] for number in numbers}
        self.turns = [number for _ in range(ROUNDS) for number in numbers]
        self.held = ExitStack()
        self.until, self.images, self.began = time.perf_counter() + SETTLE, -1, 0.0

    def over(self, images: int) -> bool:
        """Moves on to the next turn if it is time, after so many images; returns whether all turns are over."""
        now = time.perf_counter()
        if now < self.until or not self.turns:
            return not self.turns
        if self.images >= 0:
            self.rates[self.turns.pop(0)].append((images - self.images) / (now - self.began))
        self.held.close()
        if not self.turns:
            return True
        number = self.turns[0]
        self.held.enter_context(threads.fixed(0 if number == "auto" else int(number)))
        self.images, self.began, self.until = images, now, now + SECONDS
        return False


def worker(recipe: str, work: str, *numbers: str) -> None:
    """Works for a while and prints its rates, in images per second, by the number of threads."""
    turns = Turns(numbers)
    never = [f"training.{name}_every=never" for name in ("snapshot", "checkpoint", "test")]
    settings = ["data.source=digits", "training.steps=10000000", "training.batch_size=128", "training.best=", *never]
    loaded = load_recipe(recipe, settings)
    dataset = data.load(loaded.data, progress=False)
    model = build_model(loaded, dataset.classes)

    class Watch(Callback):
        def iterated(self, trainer: Trainer) -> None:
            if turns.over(trainer.images):
                trainer.stop("enough")

    if work == "train":
        with TemporaryDirectory() as folder:
            Trainer(Path(folder), model, dataset, torch.device("cpu"), [Watch()]).fit()
    else:
        assert isinstance(model, Generates)
        model.eval()
        images = 0
        with torch.no_grad():
            while not turns.over(images):
                with threads.unit("decode"):
                    model.generate(model.sample_latents(256, torch.Generator()))
                images += 256
    print(json.dumps(turns.rates))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Runs so many processes, each of which keeps a core busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measured(recipe: str, work: str, *numbers: str) -> subprocess.Popen[str]:
    """Starts a process that does the work."""
    command = [sys.executable, "-m", "benchmarks.busy", recipe, work, *numbers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def rates(process: subprocess.Popen[str]) -> dict[str, list[float]]:
    """Waits for a worker and returns the rates that it measured."""
    measured_rates: dict[str, list[float]] = json.loads(process.communicate()[0].splitlines()[-1])
    return measured_rates


def busy_machine() -> Rows:
    """Returns the rows of the table."""
    rows = []
    for recipe, work in WORKS:
        for count in BUSY:
            with busy(count):
                by_number = rates(measured(recipe, work, "1", MOST, "auto"))
            best = max(("1", MOST), key=lambda number: statistics.median(by_number[number]))
            ratios = [auto / fixed for auto, fixed in zip(by_number["auto"], by_number[best], strict=True)]
            medians = {number: f"{statistics.median(rounds):,.0f}" for number, rounds in by_number.items()}
            rows.append(
                {
                    "recipe": recipe, "work": work, "busy processes": count, "1 thread": medians["1"],
                    f"{MOST} threads": medians[MOST], "chosen": medians["auto"],
                    "chosen to best fixed": f"{statistics.median(ratios):.2f}",
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    alone = statistics.median(rates(measured("mnist-vae-z2", "train", "auto"))["auto"])
    pair = [measured("mnist-vae-z2", "train", "auto") for _ in range(2)]
    together = sum(statistics.median(rates(process)["auto"]) for process in pair)
    print(f"two trainings side by side, together to one alone: {together / alone:.2f}", flush=True)
    return rows


if __name__ == "__main__":
    worker(*sys.argv[1:])
