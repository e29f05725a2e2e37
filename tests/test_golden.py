"""Every model's numbers of its first steps, bit for bit: a change of the code that changes what is learned is seen.

Sums of floating numbers depend on the order that a processor's vector units take them in, and libraries choose it by
the processor's make, so the values are kept by both (`golden/AVX2-AuthenticAMD.json`). On others the first numbers, of
unchanged weights, must agree to rounding. Where a change of numbers is meant: `python tests/test_golden.py`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

import zeuxis

GOLDEN = Path(__file__).parent / "golden"
STEPS = 30
# One of each model, and a relativistic game with two penalties and a moving average.
RECIPES = [
    "digits-cgan", "digits-cnn", "digits-gan", "digits-vae", "flowers-cvae-gan-32", "flowers-vae-gan-32",
    "infogan-62-10-2", "latent-gan", "mnist-aae", "mnist-acgan", "mnist-ae-z3", "mnist-cvae", "mnist-gan-mlp",
    "mnist-wgan-gp", "modern-gan-28", "modern-vae-28",
]  # fmt: skip
SETTINGS = {
    "data.source": "digits", "data.path": "", "data.attribute": "", "data.classes": [], "data.convert": True,
    "data.flip": False, "training.batch_size": 8, "training.log_every": 1, "training.test_every": "15 steps",
    "training.snapshot_every": "never", "training.checkpoint_every": "never", "training.best": "",
    "training.precision": "float32", "training.threads": 1, "training.device": "cpu",
}  # fmt: skip


def path_here() -> Path:
    facts = Path("/proc/cpuinfo")
    make = re.search(r"^vendor_id\s*: (\w+)", facts.read_text("utf-8"), re.MULTILINE) if facts.exists() else None
    return GOLDEN / f"{torch.backends.cpu.get_cpu_capability()}-{make[1] if make else 'unknown'}.json"


def numbers(name: str, folder: Path) -> dict[str, list[float]]:
    """Every number of a training's first steps by its name in the journal, costs and rates aside."""
    if name == "latent-gan":
        zeuxis.train("mnist-vae-z16", steps=1, settings=SETTINGS, runs=folder, progress=False)
    run = zeuxis.train(name, steps=STEPS, settings=SETTINGS, runs=folder, progress=False)
    found: dict[str, list[float]] = {}
    for line in run.journal:
        for key, value in line.items():
            if run.journal.roles.get(key, "cost") not in ("cost", "rate"):
                found.setdefault(key, []).append(value)
    return found


def kept(path: Path, name: str) -> dict[str, list[float]]:
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))[name]
    return values


# The small ones in every run of the tests, all of them in the slow ones.
@pytest.mark.parametrize(
    "name", [name if name.startswith("digits") else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_a_model_learns_by_the_same_numbers_as_ever(name: str, tmp_path: Path) -> None:
    found = numbers(name, tmp_path)
    if path_here().exists():
        assert found == kept(path_here(), name)
    else:
        known = kept(next(iter(GOLDEN.glob("*.json"))), name)
        assert {key: values[0] for key, values in found.items() if not key.startswith("test/")} == pytest.approx(
            {key: values[0] for key, values in known.items() if not key.startswith("test/")}, rel=1e-3, abs=1e-5
        )


if __name__ == "__main__":
    with TemporaryDirectory() as aside:
        everything = {name: numbers(name, Path(aside) / name) for name in RECIPES}
    GOLDEN.mkdir(exist_ok=True)
    path_here().write_text(json.dumps(everything, indent=1) + "\n", "utf-8")
    sys.stdout.write(f"{path_here()}\n")
