"""What is measured on a GPU alone: waits inside an epoch, and peak memory. `benchmarks/gpu.sh` runs it with the rest.

    python -m benchmarks.gpu trace --out gpu          # profiles trainings; exit code 1 if a step waits for the GPU
    python -m benchmarks.gpu memory --out gpu         # most memory of a training, plain and recorded

All trainings are on the digits, at the size and the channels of their recipes, so no data set is needed.
"""

from __future__ import annotations

import argparse
import sys
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
WARM = 5
SPAN = "steps of an epoch"
# Calls that wait for the GPU; reading a number back and copying from pageable memory end in one of them.
WAITS = ("cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")


class Span(Callback):
    """Profiles the steps after the first few, then stops the training.

    Args:
        steps: steps that are profiled.
        device: of the training.
    """

    def __init__(self, steps: int, device: str) -> None:
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
        self.steps, self.profile, self.span = steps, profile(activities=activities), record_function(SPAN)

    def iterated(self, trainer: Trainer) -> None:
        if trainer.step == WARM:
            self.profile.start()
            self.span.__enter__()
        elif trainer.step == WARM + self.steps:
            self.span.__exit__(None, None, None)
            self.profile.stop()
            trainer.stop("enough")

    def waits(self) -> dict[str, int]:
        """Returns how often each call that waits was made inside the span."""
        events = self.profile.events() or []
        span = next(event for event in events if event.name == SPAN).time_range
        inside = [event.name for event in events if span.start <= event.time_range.start <= span.end]
        return {name: inside.count(name) for name in WAITS if name in inside}


def trained(name: str, device: str, callback: Callback, *settings: str) -> None:
    """Trains a recipe on the digits until the callback or a budget ends it; no line of the journal is due before."""
    never = ("training.steps=1000000", "training.log_every=1000000")
    recipe = load_recipe(name, [*ALONE, *PLAINER.get(name, ()), *ON_DIGITS, *never, *settings])
    dataset = data.load(recipe.data, progress=False)
    model = build_model(recipe, dataset.classes)
    with TemporaryDirectory() as folder:
        callbacks = standard_callbacks(model, visible=False, more=[callback])
        Trainer(Path(folder), model, dataset, torch.device(device), callbacks).fit()


def trace(device: str, steps: int, out: Path) -> bool:
    """Writes a trace of each recipe, plain and on a GPU recorded as well; returns whether no step waited."""
    rows = []
    for name in TRACED:
        for captured in (False, True) if device == "cuda" else (False,):
            span = Span(steps, device)
            # Small batches make the epoch longer than the span: at its end, the order of the next is sent.
            trained(name, device, span, "training.batch_size=16", f"training.capture={str(captured).lower()}")
            span.profile.export_chrome_trace(str(out / f"trace-{name}{'-recorded' if captured else ''}.json.gz"))
            waits = ", ".join(f"{count} {call}" for call, count in span.waits().items())
            rows.append({"recipe": name, "recorded": captured, "steps": steps, "waits": waits or "none"})
    publish("trace", rows, out)
    return all(row["waits"] == "none" for row in rows)


def memory(device: str, steps: int, out: Path) -> bool:
    """Measures the most memory of a training, on the GPU or else of the process."""
    rows = []
    for name in TEN:
        row: dict[str, Any] = {"recipe": name, "batch": TEN[name]}
        for captured in (False, True) if device == "cuda" else (False,):
            settings = (f"training.batch_size={TEN[name]}", f"training.steps={WARM + steps}")
            trained(name, device, Callback(), *settings, f"training.capture={str(captured).lower()}")
            row["recorded, MiB" if captured else "peak, MiB"] = round(peak_memory(torch.device(device)))
        rows.append(row)
    publish("memory", rows, out)
    return True


PARTS = {"trace": trace, "memory": memory}


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--steps", type=int, default=20, help="of each training, after the first few")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and traces")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not PARTS[arguments.part](arguments.device, arguments.steps, arguments.out):
        sys.exit("A step waits for the GPU: see the table above and the traces.")


if __name__ == "__main__":
    main()
