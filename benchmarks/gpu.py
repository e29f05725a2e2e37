"""What is measured on a GPU alone: waits inside an epoch, and peak memory. `benchmarks/gpu.sh` runs it with the rest.

    python -m benchmarks.gpu trace --out gpu          # profiles trainings; exit code 1 if a step waits for the GPU
    python -m benchmarks.gpu memory --out gpu         # most memory of a training, plain and recorded

All trainings are on the digits, at the size and the channels of their recipes, so no data set is needed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.documents.page import publish
from benchmarks.speed.ours import ALONE
from benchmarks.speed.worker import ON_DIGITS, PLAINER, TEN
from zeuxis import data
from zeuxis.models import build_model
from zeuxis.recipe import load_recipe
from zeuxis.training import Callback, Trainer
from zeuxis.training.callbacks import standard_callbacks
from zeuxis.training.hardware import peak_memory

TRACED = ("mnist-vae-z2", "mnist-gan", "modern-gan-28", "mnist-wgan-gp")
WARM = 5  # more than what a recorded training runs before it records
SPAN = "steps of an epoch"


class Span(Callback):
    """Profiles the steps after the first few, inside the first epoch, then ends the training.

    Args:
        steps: the most steps that are profiled.
        device: of the training.
    """

    def __init__(self, steps: int, device: str) -> None:
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
        self.most, self.steps = steps, 0
        self.profile, self.running = profile(activities=activities), ExitStack()

    def iterated(self, trainer: Trainer) -> None:
        self.steps = trainer.step - WARM
        # The step that begins an epoch may wait: it sends the order of the epoch's images.
        leaves = trainer.epoch * (trainer.step + 1) / trainer.step > 1
        if self.steps == 0:
            self.running.enter_context(self.profile)
            self.running.enter_context(record_function(SPAN))
        elif self.steps > 0 and (self.steps == self.most or leaves):
            self.running.close()
            trainer.settle()


def waits(events: Sequence[dict[str, Any]]) -> Counter[str]:
    """Counts what waits for the GPU inside the span: synchronising calls, and copies to the host.

    Args:
        events: of a trace in Chrome's format. Each wait is named with the outermost operation around it; an
            `aten::item` of a tensor on the CPU makes no call, and is none.

    Raises:
        ValueError: if the span has no call at all, so that the profiler has not seen the GPU.
    """
    timed = [event for event in events if event.get("ph") == "X"]
    span = next(event for event in timed if event["name"] == SPAN and event["cat"] == "user_annotation")
    to_host = {e["args"]["correlation"] for e in timed if e.get("cat") == "gpu_memcpy" and "DtoH" in e["name"]}
    calls = [e for e in timed if e["cat"] in ("cuda_runtime", "cuda_driver") and _encloses(span, e)]
    if not calls:
        raise ValueError("the profiler has recorded no call to the GPU")
    operations = [event for event in timed if event["cat"] == "cpu_op"]
    found: Counter[str] = Counter()
    for call in calls:
        copies = call["args"].get("correlation") in to_host
        if copies or call["name"].endswith("Synchronize"):
            around = [op for op in operations if op["tid"] == call["tid"] and _encloses(op, call)]
            what = f"{call['name']} to the host" if copies else call["name"]
            found[f"{what} in {max(around, key=lambda op: op['dur'])['name']}" if around else what] += 1
    return found


def _encloses(outer: dict[str, Any], inner: dict[str, Any]) -> bool:
    """Returns whether an event begins during another."""
    return bool(outer["ts"] <= inner["ts"] <= outer["ts"] + outer["dur"])


def trained(name: str, device: str, callback: Callback, *settings: str) -> None:
    """Trains a recipe on the digits until the callback or a budget ends it; no line of the journal is due before."""
    never = ("training.steps=1000000", "training.log_every=1000000")
    recipe = load_recipe(name, [*ALONE, *PLAINER.get(name, ()), *ON_DIGITS, *never, *settings])
    dataset = data.load(recipe.data, progress=False)
    model = build_model(recipe, dataset.classes)
    with TemporaryDirectory() as folder:
        callbacks = standard_callbacks(model, visible=False, more=[callback])
        Trainer(Path(folder), model, dataset, torch.device(device), callbacks).fit()


def trace(recipes: Sequence[str], device: str, steps: int, out: Path) -> None:
    """Writes a trace of each recipe, plain and on a GPU recorded as well; exits with a message if a step waited."""
    rows = []
    for name in recipes or TRACED:
        for captured in (False, True) if device == "cuda" else (False,):
            span = Span(steps, device)
            trained(name, device, span, "training.batch_size=16", f"training.capture={str(captured).lower()}")
            path = out / f"trace-{name}{'-recorded' if captured else ''}.json.gz"
            span.profile.export_chrome_trace(str(path))
            if device == "cuda":
                found = waits(json.loads(gzip.decompress(path.read_bytes()))["traceEvents"])
                text = ", ".join(f"{count} {wait}" for wait, count in found.items())
                rows.append({"recipe": name, "recorded": captured, "steps": span.steps, "waits": text or "none"})
    if device == "cpu":
        print(f"A CPU has nothing to wait for: the traces are in {out}, and no wait was looked for in them.")
        return
    publish("trace", rows, out)
    if any(row["waits"] != "none" for row in rows):
        sys.exit("A step inside an epoch waits for the GPU: see the table above and the traces.")


def memory(recipes: Sequence[str], device: str, steps: int, out: Path) -> None:
    """Measures the most memory of each training, on the GPU or else of the process."""
    rows = []
    for name in recipes or TEN:
        batch = load_recipe(name).training.batch_size if name not in TEN else TEN[name]
        row: dict[str, Any] = {"recipe": name, "batch": batch}
        for captured in (False, True) if device == "cuda" else (False,):
            settings = (f"training.batch_size={batch}", f"training.steps={WARM + steps}")
            trained(name, device, Callback(), *settings, f"training.capture={str(captured).lower()}")
            row["recorded, MiB" if captured else "peak, MiB"] = round(peak_memory(torch.device(device)))
        rows.append(row)
    publish("memory", rows, out)


PARTS = {"trace": trace, "memory": memory}


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="default: four to trace, ten for their memory")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--steps", type=int, default=20, help="of each training, after the first few")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and traces")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    PARTS[arguments.part](arguments.recipes, arguments.device, arguments.steps, arguments.out)


if __name__ == "__main__":
    main()
