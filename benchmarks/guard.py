"""Counts the instructions of a training step, and compares them with the committed counts.

    python -m benchmarks.guard                # exit code 1 if a step takes over 3 % more than in guard.json
    python -m benchmarks.guard --update       # writes today's counts

A time depends on what else a machine does; a count of instructions does not. Valgrind runs the trainings on a processor
that it emulates, the same one on every machine, and the libraries are told which kernels to use: those of AVX. Counting
begins after some steps, which build optimisers and allocate memory. Small batches keep it short, so a step's fixed
costs weigh more here than in a real training.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.speed.steps import COUNTED

__all__ = ["compared", "counted", "obstacle"]

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_suffix(".json")
RECIPES = ("mnist-vae-z2", "mnist-gan", "mnist-cgan", "mnist-wgan-gp", "modern-gan-28", "modern-flow-28")
TOLERANCE = 0.03
# One thread, one order of sets, and kernels without fused multiply-adds, which Valgrind computes number by number, a
# hundred times as slowly as a product and a sum.
PLAIN = {
    "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX", "MKL_ENABLE_INSTRUCTIONS": "AVX",
    "OPENBLAS_CORETYPE": "Nehalem", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0", "ZEUXIS_KERNELS": "", "ZEUXIS_DATA": "",
}  # fmt: skip


def versions() -> dict[str, str]:
    """Returns what counts depend on beside our own code."""
    return {"machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}


def obstacle(committed: Mapping[str, Any] | None = None) -> str:
    """Returns why nothing can be counted here, or not compared with the committed counts, as a sentence; else ""."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"Instructions are counted on x86-64 alone, and this is {platform.machine()}."
    if not shutil.which("valgrind"):
        return "There is no valgrind to count instructions with: apt-get install valgrind."
    here = versions()
    if committed is None or committed["versions"] == here:
        return ""
    then, now = (
        ", ".join(f"{name} {version}" for name, version in each.items()) for each in (committed["versions"], here)
    )
    return f"The counts of {FILE.name} are of {then}; with {now} they cannot be compared. Count anew with --update."


def counted(recipes: Sequence[str] = RECIPES) -> dict[str, int]:
    """Returns the instructions of a training step of each recipe.

    Raises:
        SystemExit: if a training fails.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "counts"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={file}"]
        work = [sys.executable, "-m", "benchmarks.speed.steps", *recipes]
        environment = os.environ | PLAIN | {"PYTHONPATH": str(ROOT), "ZEUXIS_CACHE": folder}
        process = subprocess.run(
            [*valgrind, *work], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if process.returncode:
            sys.exit(f"Nothing is counted: {process.stderr[-2000:]}")
        return {recipe: _total(file.with_suffix(f".{i}")) // COUNTED for i, recipe in enumerate(recipes, 1)}


def _total(path: Path) -> int:
    """Returns the instructions that a file of callgrind counts."""
    found = re.search(r"^totals: (\d+)", path.read_text("utf-8"), re.MULTILINE)
    assert found, f"{path} has no total"
    return int(found[1])


def compared(counts: Mapping[str, int], committed: Mapping[str, int]) -> tuple[list[str], bool]:
    """Compares counts with committed ones.

    Returns:
        A sentence for each recipe, and whether none takes more instructions than is tolerated.
    """
    sentences, worst = [], 0.0
    for recipe, count in counts.items():
        if recipe not in committed:
            sentences.append(f"{recipe}: {count:,} instructions a step, and no count to compare with: use --update.")
            continue
        change = count / committed[recipe] - 1
        worst = max(worst, change)
        size = f"{abs(change):.2%} {'more' if change > 0 else 'fewer'} instructions a step than before"
        verdict = "within the tolerance"
        if abs(change) > TOLERANCE:
            verdict = "A REGRESSION" if change > 0 else "better: --update keeps it so"
        sentences.append(f"{recipe}: {size}, {count:,} to {committed[recipe]:,}; {verdict}.")
    return sentences, worst <= TOLERANCE


def main() -> None:
    """Reads the command line, counts, and compares or writes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard", description=__doc__.split("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--recipe", choices=RECIPES, action="append", help="may be repeated; default: all")
    parser.add_argument("--update", action="store_true", help="write the counts in place of comparing them")
    arguments = parser.parse_args()
    committed = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {"versions": {}, "instructions": {}}
    reason = obstacle(None if arguments.update else committed)
    if reason:
        print(reason, file=sys.stderr)
        sys.exit(2)
    counts = counted(arguments.recipe or RECIPES)
    sentences, fine = compared(counts, committed["instructions"])
    print("\n".join(sentences))
    if arguments.update:
        kept = committed["instructions"] if committed["versions"] == versions() else {}
        content = {"versions": versions(), "tolerance": TOLERANCE, "instructions": kept | counts}
        FILE.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    elif not fine:
        sys.exit(1)


if __name__ == "__main__":
    main()
