"""Measures what several processes gain: `python -m benchmarks.processes [RECIPE ...]`.

In turns, a recipe is trained for some seconds by one process of one thread, by one of two threads, and by two of one
thread each. The table has images a second, the speed of two processes beside that of two threads, and the bytes a step
that the loopback device carried beside the bytes of the gradients.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psutil

from benchmarks.documents.page import publish
from zeuxis.run import Run

RECIPES = ("mnist-gan", "modern-flow-28", "mnist-vae-z2")
# Processes, and threads of each.
WAYS = {"1 x 1": (1, 1), "1 x 2": (1, 2), "2 x 1": (2, 1)}
ROUNDS, SECONDS, WARM = 3, 12.0, 4.0
QUIET = ("test_every", "snapshot_every", "checkpoint_every")


class Timed(NamedTuple):
    """Images a second after the first seconds, and bytes on the loopback device for each step."""

    rate: float
    bytes_a_step: float


def trained(recipe: str, data: str, processes: int, threads: int, folder: Path) -> tuple[Timed, Run]:
    """Trains for some seconds in so many processes."""
    command = [
        sys.executable, "-m", "zeuxis", "train", recipe, "--minutes", str((SECONDS + WARM) / 60), "--runs", str(folder),
        "--name", "timed", "--processes", str(processes), *(["--data", data] if data else []),
        *(word for name in QUIET for word in ("--set", f"training.{name}=never")),
    ]  # fmt: skip
    before = psutil.net_io_counters(pernic=True)["lo"].bytes_sent
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    sent = psutil.net_io_counters(pernic=True)["lo"].bytes_sent - before
    run = Run(folder / "timed")
    lines = [line for line in run.journal if line.get("seconds", 0) > WARM]
    first, last = lines[0], lines[-1]
    rate = (last["images"] - first["images"]) / (last["seconds"] - first["seconds"])
    return Timed(rate, sent / last["step"]), run


def measured(recipe: str, data: str) -> dict[str, Any]:
    """Returns a recipe's row of the table."""
    found: dict[str, list[Timed]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, (processes, threads) in WAYS.items():
            with TemporaryDirectory() as folder:
                timed, run = trained(recipe, data, processes, threads, Path(folder))
                found[way].append(timed)
                gradients = 4 * sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    rates = {way: statistics.median(each.rate for each in timed) for way, timed in found.items()}
    ratios = [two.rate / one.rate for two, one in zip(found["2 x 1"], found["1 x 2"], strict=True)]
    sent = statistics.median(each.bytes_a_step for each in found["2 x 1"])
    row = {"recipe": recipe} | {f"{way}: images/s": f"{rate:,.0f}" for way, rate in rates.items()}
    row["2 x 1 beside 1 x 2"] = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    row["MB a step on the network"] = f"{sent / 1e6:.1f}"
    row["MB of gradients"] = f"{gradients / 1e6:.1f}"
    print(row, flush=True)
    return row


def main() -> None:
    """Measures, and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", nargs="*", default=RECIPES, help="default: three")
    parser.add_argument("--data", default="", help="other images than the recipe's")
    arguments = parser.parse_args()
    publish("processes", [measured(recipe, arguments.data) for recipe in arguments.recipe])


if __name__ == "__main__":
    main()
