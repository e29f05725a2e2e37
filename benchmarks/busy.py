"""Training and sampling on a machine that does other things too: fixed numbers of threads beside the chosen one.

    python -m benchmarks.performance busy

Beside 0, 1, 2 and 4 busy processes a recipe trains, and a model samples, on one thread, on all, and on as many as
`zeuxis.threads` chooses, each in a process of its own and in turn; the ratio is to the best fixed number of the same
round, and the median over rounds is shown. Last, two trainings run side by side against one alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Rows = list[dict[str, Any]]
# Seconds that a process has to find its number of threads, and in which its rate is then taken.
SETTLE, SECONDS, ROUNDS = 4.0, 5.0, 2
BUSY = (0, 1, 2, 4)
WORKS = (("mnist-vae-z2", "train"), ("mnist-gan", "sample"))


def worker(recipe: str, work: str, number: str) -> None:
    """Works for a while and prints its rate, in images a second."""
    from zeuxis import data
    from zeuxis.models import build_model
    from zeuxis.recipe import load_recipe
    from zeuxis.threads import paced, threads
    from zeuxis.training import Observer, Trainer
    from zeuxis.training.hardware import pick_device

    settings = [
        "data.source=digits",
        "training.steps=10000000",
        "training.batch_size=128",
        f"training.threads={number}",
    ]
    never = [f"training.{each}_every=never" for each in ("snapshot", "checkpoint", "test")]
    chosen = load_recipe(recipe, [*settings, *never, "training.best="])
    dataset, device = data.load(chosen.data, progress=False), pick_device("cpu")
    model = build_model(chosen, dataset.classes)

    class Watch(Observer):
        began = counted = 0.0
        rate = 0.0

        def stepped(self, trainer: Trainer) -> None:
            now = time.perf_counter()
            if not self.began:
                self.began = now
            elif not self.counted and now - self.began > SETTLE:
                self.counted, self.images = now, trainer.images
            elif self.counted and now - self.counted > SECONDS:
                self.rate = (trainer.images - self.images) / (now - self.counted)
                trainer.stop("enough")

    if work == "train":
        watch = Watch()
        with TemporaryDirectory() as folder:
            Trainer(Path(folder), model, dataset, device, watch).fit()
        rate = watch.rate
    else:
        import torch

        model.eval()
        made, began, since = 0, time.perf_counter(), 0.0
        with torch.no_grad(), threads.fixed(0 if number == "auto" else int(number)):
            for _ in paced(iter(int, 1), "decode"):
                model.generate(model.draw_latents(256, torch.Generator()))  # type: ignore[operator]
                now = time.perf_counter()
                if not since and now - began > SETTLE:
                    made, since = 0, now
                elif since and now - since > SECONDS:
                    break
                made += 256
        rate = made / (now - since)
    print(json.dumps({"rate": rate}))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that use a core each."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def rates(recipe: str, work: str, numbers: Sequence[str]) -> list[float]:
    """Images a second of processes side by side, one for each number of threads."""
    command = [sys.executable, "-m", "benchmarks.busy", recipe, work]
    running = [subprocess.Popen([*command, number], stdout=subprocess.PIPE, text=True) for number in numbers]
    said = [process.communicate()[0] for process in running]
    return [json.loads(text.splitlines()[-1])["rate"] for text in said]


def busy_machine() -> Rows:
    """The table."""
    rows, most = [], str(os.cpu_count())
    for recipe, work in WORKS:
        for count in BUSY:
            found: dict[str, list[float]] = {number: [] for number in ("1", most, "auto")}
            with busy(count):
                for _ in range(ROUNDS):
                    for number in found:
                        found[number] += rates(recipe, work, [number])
            best = [max(one, all_) for one, all_ in zip(found["1"], found[most], strict=True)]
            ratio = statistics.median(auto / fixed for auto, fixed in zip(found["auto"], best, strict=True))
            rows.append(
                {
                    "recipe": recipe, "work": work, "busy processes": count,
                    **{f"{n} thread{'s' * (n != '1')}": f"{statistics.median(v):,.0f}" for n, v in found.items()},
                    "chosen to best fixed": f"{ratio:.2f}",
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    pairs = []
    for _ in range(ROUNDS):
        (alone,) = rates("mnist-vae-z2", "train", ["auto"])
        pairs.append(sum(rates("mnist-vae-z2", "train", ["auto", "auto"])) / alone)
    print(f"two trainings side by side, together to one alone: {statistics.median(pairs):.2f}", flush=True)
    return rows


if __name__ == "__main__":
    worker(*sys.argv[1:])
