"""Worker processes that train a task round by round, and the recipes on which they are compared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1]
RESULTS = BENCHMARKS / "results.json"
# Recipes of the reports, at the batch sizes of the comparison.
BATCHES = {"mnist-vae-z2": 128, "mnist-gan": 256, "mnist-cgan": 64, "faces-gan-64": 64, "faces-dcgan-64": 64}
# Recipes of the comparison on a GPU.
TEN = BATCHES | {"mnist-vae-z16": 128, "mnist-dcgan": 128, "digits-vae": 32, "digits-gan": 32, "digits-cgan": 32}
# Settings that train any recipe on the images that come with the package.
ON_DIGITS = ("data.source=digits", "data.convert=true")
# Settings that switch off what the other libraries do not have.
PLAINER = {"faces-gan-64": ("model.instance_noise=0",)}


class Worker:
    """A process that trains a task, round by round.

    Args:
        words: its command line.
        said: file for its standard error.
    """

    def __init__(self, words: list[str | Path], said: Path) -> None:
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "TQDM_DISABLE": "1"}
        self.said = said
        with said.open("w") as file:  # not a pipe, which would block the worker when it is full
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True,
                env=os.environ | quiet | {"PYTHONPATH": str(BENCHMARKS.parent)},
            )  # fmt: skip
        self._read()

    def _read(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"A worker died: {self.said.read_text('utf-8', 'replace')[-2000:]}")
        return line

    def train(self, steps: int) -> float:
        """Trains for so many steps; returns the seconds they took."""
        assert self.process.stdin
        print(steps, file=self.process.stdin, flush=True)
        return float(self._read())

    def peak(self) -> int | None:
        """Returns the most memory that the process has held so far, in MiB; None on systems that do not tell."""
        status = Path(f"/proc/{self.process.pid}/status")
        lines = status.read_text().splitlines() if status.is_file() else []
        kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
        return None if kib is None else round(kib / 1024)

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate()
