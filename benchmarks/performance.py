"""Measures where time is spent and writes the tables and the chart of docs/performance.

    python -m benchmarks.performance                    # all but the quality of bfloat16
    python -m benchmarks.performance profile growth     # only these parts
    python -m benchmarks.performance quality runs/quality-vae runs/quality-gan runs/quality-wgan

The last reads sweeps, each over training.precision=float32,bfloat16 and training.seed=0,1,2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.profiler import ProfilerActivity, profile

import zeuxis
from benchmarks.busy import busy_machine
from benchmarks.documents.gallery import write_small
from benchmarks.documents.page import PAGE, publish
from benchmarks.speed.ours import ALONE
from benchmarks.speed.worker import BATCHES, PLAINER, RESULTS
from zeuxis import data
from zeuxis.data import Dataset
from zeuxis.evaluation.cost import training_multiply_adds
from zeuxis.evaluation.evaluate import evaluate
from zeuxis.evaluation.frechet import fid
from zeuxis.evaluation.judge import find_or_train_judge
from zeuxis.figures.style import LINES, heading, new_figure
from zeuxis.models import build_model
from zeuxis.recipe import Recipe, load_recipe
from zeuxis.run import Run
from zeuxis.training import Callback, Trainer
from zeuxis.training.hardware import describe_machine, pick_precision

CPU = torch.device("cpu")
WARM = 3
MILLION = 1_000_000
SAMPLES, AT_ONCE = 50_000, 500
SMALL = ("modern-vae-28", "mnist-wgan-gp", "modern-gan-28", "modern-flow-28", "modern-gan-64", "mnist-acgan")
Rows = list[dict[str, Any]]


class Laps(Callback):
    """Times a training for so many seconds after some warm-up steps, then stops it.

    Attributes:
        steps: steps in that time.
        seconds: the time.
        fetching: how much of it was spent on batches.
    """

    def __init__(self, seconds: float, watch: Any = None) -> None:
        self.wanted, self.watch = seconds, watch
        self.taken = self.steps = 0
        self.seconds = self.fetching = 0.0

    def begin(self, trainer: Any) -> None:
        trainer.batches = _Clocked(trainer.batches)

    def iterated(self, trainer: Any) -> None:
        if self.steps:
            return  # the last step of the training
        self.taken += 1
        if self.taken == WARM:
            trainer.batches.seconds = 0.0
            self.started = time.perf_counter()
            if self.watch:
                self.watch.start()
        elif self.taken > WARM and time.perf_counter() - self.started > self.wanted:
            self.seconds, self.steps = time.perf_counter() - self.started, self.taken - WARM
            self.fetching = trainer.batches.seconds
            if self.watch:
                self.watch.stop()
            trainer.stop("enough")


class _Clocked:
    """Batches that measure the time spent on them."""

    def __init__(self, batches: Any) -> None:
        self._batches, self.seconds = batches, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def __getitem__(self, k: int) -> Any:
        started = time.perf_counter()
        batch = self._batches[k]
        self.seconds += time.perf_counter() - started
        return batch


def prepared(name: str, *overrides: str, batch: int = 0) -> Recipe:
    """Returns a recipe at the comparison's batch size and this machine's precision, without tests or checkpoints."""
    size = f"training.batch_size={batch or BATCHES.get(name, 128)}"
    precision = f"training.precision={pick_precision('auto', CPU)}"
    plain = PLAINER.get(name, ())
    return load_recipe(name, [*ALONE, *plain, size, precision, "training.steps=10000000", *overrides])


def trained(recipe: Recipe, laps: Laps, dataset: Dataset | None = None) -> Laps:
    """Trains until `laps` has finished, and returns it."""
    dataset = dataset or data.load(recipe.data, progress=False)
    with TemporaryDirectory() as folder:
        Trainer(Path(folder), build_model(recipe, dataset.classes), dataset, CPU, [laps]).fit()
    return laps


# -- parts --------------------------------------------------------------------------------------------


def start_up() -> Rows:
    """Returns the seconds from the start of `zeuxis train` to the start and to the end of the first step.

    The last row is the floor: a process that only imports PyTorch.
    """
    rows = []
    for name in BATCHES:
        settings = [*ALONE, "training.log_every=1", f"training.batch_size={BATCHES[name]}", *PLAINER.get(name, ())]
        words = ["train", name, "--steps", "2", "--name", "first", *(f"--set={setting}" for setting in settings)]
        starts, ends = [], []
        for _ in range(5):
            with TemporaryDirectory() as runs:
                journal = Path(runs) / "first" / "journal.jsonl"
                started = time.perf_counter()
                process = subprocess.Popen(
                    [sys.executable, "-m", "zeuxis", *words, "--runs", runs],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                while not (journal.is_file() and journal.read_bytes().endswith(b"\n")):
                    if process.poll():
                        raise SystemExit(f"zeuxis {' '.join(words)} failed.")
                    time.sleep(0.002)
                ends.append(time.perf_counter() - started)
                starts.append(ends[-1] - json.loads(journal.read_text("utf-8").splitlines()[0])["seconds"])
                process.wait()
        rows.append(
            {
                "recipe": name,
                "seconds to the first step": round(statistics.median(starts), 2),
                "to its end": round(statistics.median(ends), 2),
            }
        )
    imports = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        imports.append(time.perf_counter() - started)
    floor = round(statistics.median(imports), 2)
    return [*rows, {"recipe": "import torch", "seconds to the first step": floor, "to its end": ""}]


def million(folder: Path) -> Dataset:
    """Returns a million random colour images of 32x32 on disk, stored like the cache of a large folder."""
    path, generator = folder / "images.bin", np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(100):
            file.write(generator.bytes(MILLION // 100 * 32 * 32 * 3))
    images = np.memmap(path, np.uint8, "r", shape=(MILLION, 32, 32, 3))
    return Dataset(
        images=images, labels=None, classes=(), attributes=None, attribute_names=(), factors=None, factor_names=(),
        names=[], train=np.arange(MILLION - 1000), test=np.arange(MILLION - 1000, MILLION), fingerprint="random",
        left_out={}, notes=(), source={"channels": 3, "sizes": "32x32"},
    )  # fmt: skip


def _own_memory() -> int:
    """Returns the KiB of the process's private memory, without pages of mapped files, which the system may reclaim."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def loading() -> Rows:
    """Returns the share of a step that is spent on its batch."""
    rows = []
    for name in ("mnist-vae-z2", "mnist-gan", "modern-vae-28", "flowers-vae-32-z256", "faces-dcgan-64"):
        laps = trained(prepared(name), Laps(6))
        rows.append({"images": f"of {name}", **_share(laps), "grown by, MiB": ""})
    with TemporaryDirectory() as temporary:
        dataset = million(Path(temporary))
        for name in ("flowers-vae-32-z256", "flowers-gan-32-z10"):
            recipe = prepared(name)
            trained(recipe, Laps(2), dataset)  # so that the networks' memory is allocated before it is measured
            before = _own_memory()
            laps = trained(recipe, Laps(12), dataset)
            growth = f"{(_own_memory() - before) / 1024:.0f}"
            rows.append({"images": f"a million, mapped from disk, for {name}", **_share(laps), "grown by, MiB": growth})
    return rows


def _share(laps: Laps) -> dict[str, Any]:
    return {
        "batch, ms": round(1000 * laps.fetching / laps.steps, 3),
        "step, ms": round(1000 * laps.seconds / laps.steps, 1),
        "share": f"{laps.fetching / laps.seconds:.1%}",
    }


def sampling() -> Rows:
    """Returns the seconds for 50,000 samples."""
    rows = []
    for name in ("mnist-vae-z2", "mnist-gan", "mnist-cgan", "modern-gan-28", "modern-vae-28"):
        with TemporaryDirectory() as folder:
            run = zeuxis.train(name, steps=1, runs=folder, progress=False)
            row: dict[str, Any] = {"recipe": name}
            for precision in (torch.float32, torch.bfloat16):
                with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                    run.sample(AT_ONCE)
                    started = time.perf_counter()
                    for i in range(SAMPLES // AT_ONCE):
                        run.sample(AT_ONCE, seed=i)
                named = str(precision).removeprefix("torch.")
                row[f"seconds for 50,000 samples in {named}"] = round(time.perf_counter() - started, 1)
            rows.append(row)
    return rows


def distance() -> Rows:
    """Returns the share of an evaluation that is spent on the computation of the Frechet distance."""
    with TemporaryDirectory() as folder:
        run = zeuxis.train("mnist-vae-z2", steps=1, runs=folder, progress=False)
        judge = find_or_train_judge(run)
        real = judge.features(run.images(run.choose_images("test", 2000)))
        fake = judge.features(run.sample(2000))
        started = time.perf_counter()
        evaluate(run, samples=10_000, progress=False)
        whole = time.perf_counter() - started
    material: Any = SimpleNamespace(
        sample_features=np.tile(fake, (5, 1)), reference_features=real, space="", once=lambda name, make: make()
    )
    started = time.perf_counter()
    fid(material)
    part = time.perf_counter() - started
    return [
        {
            "evaluation of 10,000 samples, s": round(whole, 1),
            "of it the distance, its errors and its limit, s": round(part, 2),
            "share": f"{part / whole:.1%}",
        }
    ]


def floor() -> Rows:
    """Compares the training speed of `make bench` with the speed of a large matrix product."""
    peaks = {"float32": _peak(torch.float32), "bfloat16": _peak(torch.bfloat16)}
    measured = [row for row in json.loads(RESULTS.read_text("utf-8")) if row["device"] == "cpu"]
    reached = {(row["recipe"], row["precision"]): row["images_per_second"] for row in measured}
    keras = {row["recipe"]: row["peer_images_per_second"] for row in measured if row["peer"] == "keras"}
    rows = []
    for name in BATCHES:
        with TemporaryDirectory() as folder:
            needed = training_multiply_adds(zeuxis.train(name, steps=1, runs=folder, progress=False))
        row: dict[str, Any] = {"recipe": name, "million multiply-adds an image": f"{needed / 1e6:.0f}"}
        rates = {precision: peak / 2 / needed for precision, peak in peaks.items()}
        for precision, rate in rates.items():
            row[f"{precision} at {peaks[precision] / 1e9:.0f} GFLOP/s"] = f"{rate:,.0f}"
            row[f"reached in {precision}"] = f"{reached[name, precision] / rate:.0%}"
        row["bfloat16's floor to Keras' speed"] = f"{rates['bfloat16'] / keras[name]:.1f}"
        rows.append(row)
    return rows


def small() -> Rows:
    """Compares the training speed of small and modern recipes, at their own batches, with the same floor, float32."""
    peak, rows = _peak(torch.float32), []
    for name in SMALL:
        recipe = prepared(name, "training.precision=float32", batch=load_recipe(name).training.batch_size)
        laps = trained(recipe, Laps(8))
        with TemporaryDirectory() as folder:
            run = zeuxis.train(name, steps=1, runs=folder, progress=False)
            needed, read = training_multiply_adds(run), run.last("images") or 0
        rate, limit = read * laps.steps / laps.seconds, peak / 2 / needed
        row = {
            "recipe": name,
            "batch": recipe.training.batch_size,
            "step, ms": f"{1000 * laps.seconds / laps.steps:.0f}",
        }
        row |= {"million multiply-adds an image": f"{needed / 1e6:.0f}", "images/s": f"{rate:,.0f}"}
        rows.append(row | {f"floor, at {peak / 1e9:.0f} GFLOP/s": f"{limit:,.0f}", "reached": f"{rate / limit:.0%}"})
    return rows


def _peak(precision: torch.dtype, side: int = 2048) -> float:
    """Returns the operations per second of a large matrix product."""
    one, two = (torch.randn(side, side).to(precision) for _ in range(2))
    rates = []
    for _ in range(12):
        started = time.perf_counter()
        torch.mm(one, two)
        rates.append(2 * side**3 / (time.perf_counter() - started))
    return statistics.median(rates[2:])


# Kinds of PyTorch's operations, by words in their names; the first match counts.
KINDS = {
    "matrix work": ("conv", "mm", "linear", "Convolve", "Spread", "Correlate"),
    "random numbers": ("rand", "normal_", "bernoulli", "uniform"),
    "optimiser": ("adam", "Optimizer", "lerp", "zero_grad"),
}
REST = "memory traffic"


def profiles() -> Rows:
    """Returns the shares of a step by kind of work."""
    rows = []
    for name in (*BATCHES, "mnist-wgan-gp", "modern-gan-28", "modern-vae-28"):
        recipe = prepared(name, batch=0 if name in BATCHES else load_recipe(name).training.batch_size)
        watch = profile(activities=[ProfilerActivity.CPU])
        laps = trained(recipe, Laps(4, watch))
        spent = dict.fromkeys([*KINDS, REST], 0.0)
        for event in watch.key_averages():
            if not event.key.startswith(("aten::", "Optimizer", "_")):
                continue  # a mark in Python or in the graph, not an operation
            kind = next((k for k, words in KINDS.items() if any(word in event.key for word in words)), REST)
            spent[kind] += event.self_cpu_time_total / 1e6
        row: dict[str, Any] = {"recipe": name, "step, ms": round(1000 * laps.seconds / laps.steps, 1)}
        row |= {kind: f"{value / laps.seconds:.0%}" for kind, value in spent.items()}
        row["Python and the graph"] = f"{max(1 - sum(spent.values()) / laps.seconds, 0):.0%}"
        rows.append(row)
    return rows


def growth() -> Rows:
    """Returns images per second for various batch sizes, latent sizes and sizes of the data set."""
    rows = []
    for name in ("mnist-vae-z2", "mnist-gan"):
        sizes, latents = (8, 16, 32, 64, 128, 256, 512), (2, 8, 32, 128, 512)
        rows += [_rate("batch size", size, name, prepared(name, batch=size)) for size in sizes]
        rows += [_rate("latent size", size, name, prepared(name, f"model.latent={size}")) for size in latents]
    recipe = prepared("flowers-vae-32-z256")
    with TemporaryDirectory() as temporary:
        whole = million(Path(temporary))
        for count in (1_000, 10_000, 100_000, MILLION - 1000):
            part = Dataset(**{**vars(whole), "train": np.arange(count)})
            rows.append(_rate("training images", count, recipe.name, recipe, part))
    write_small(lambda: growth_chart(rows), PAGE / "growth.png")
    return rows


def _rate(over: str, value: int, name: str, recipe: Recipe, dataset: Dataset | None = None) -> dict[str, Any]:
    laps = trained(recipe, Laps(4), dataset)
    rate = laps.steps * recipe.training.batch_size / laps.seconds
    return {"over": over, "value": value, "recipe": name, "images/s": round(rate)}


def growth_chart(rows: Rows) -> Figure:
    """Returns a chart with a panel for each size that is varied."""
    figure = new_figure(11, 3.8)
    kinds = list(dict.fromkeys(row["over"] for row in rows))
    for ax, kind in zip(figure.subplots(1, len(kinds), sharey=True), kinds, strict=True):
        points = [row for row in rows if row["over"] == kind]
        for i, name in enumerate(dict.fromkeys(row["recipe"] for row in rows)):
            line = [(row["value"], row["images/s"]) for row in points if row["recipe"] == name]
            if line:
                ax.plot(*zip(*line, strict=True), "o-", ms=4, color=LINES[i], label=name)
        ax.set_xscale("log", base=10 if kind == "training images" else 2)
        ax.set_yscale("log")
        ax.set_ylim(100, 10_000)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:,.0f}")
        ax.set_xlabel(kind)
        ax.legend(loc="upper left", fontsize=8)
    figure.axes[0].set_ylabel("training images a second")
    machine = describe_machine(CPU)
    heading(
        figure, "What training costs as it grows", f"{machine['processor']}, {machine['threads']} threads, bfloat16"
    )
    return figure


def quality(sweeps: Sequence[Path]) -> Rows:
    """Compares trainings in both precisions: mean and standard deviation over the seeds."""
    rows = []
    for folder in sweeps:
        entries = json.loads((folder / "sweep.json").read_text("utf-8"))
        for name, form in (("test_mse", "{:.4f}"), ("fid", "{:.1f}"), ("kid", "{:.4f}"), ("loss", "{:.3f}")):
            values: dict[str, list[float]] = {}
            for entry in entries:
                value = _measured(folder, entry, name)
                if value is not None:
                    values.setdefault(entry["settings"]["training.precision"], []).append(value)
            if not values:
                continue
            means = {precision: statistics.mean(v) for precision, v in values.items()}
            spread = max(statistics.stdev(v) for v in values.values())
            rows.append(
                {
                    "recipe": Run(folder / entries[0]["run"]).recipe.name,
                    "measure": {"fid": "Frechet distance", "kid": "kernel distance", "test_mse": "test MSE"}.get(
                        name, "final loss of the last phase"
                    ),
                    **{
                        precision: f"{form.format(means[precision])} ± {form.format(statistics.stdev(v))}"
                        for precision, v in values.items()
                    },
                    "difference, in deviations": f"{abs(means['float32'] - means['bfloat16']) / spread:.1f}",
                }
            )
    return rows


def _measured(folder: Path, entry: dict[str, Any], name: str) -> float | None:
    if name in entry["measures"]:
        return float(entry["measures"][name]["value"])
    if name != "loss":
        return None
    run = Run(folder / entry["run"])
    losses = run.names_of("loss")
    lines = [line[losses[-1]] for line in run.journal if losses[-1] in line]
    return float(statistics.mean(lines[-10:]))


# -- page ---------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], Rows]] = {
    "start": start_up, "data": loading, "sampling": sampling, "distance": distance, "floor": floor, "small": small,
    "profile": profiles, "growth": growth, "busy": busy_machine,
}  # fmt: skip


def main() -> None:
    """Reads the command line, measures, and writes the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance")
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; or quality, followed by folders of sweeps")
    names = parser.parse_args().part or list(PARTS)
    if names[0] == "quality":
        parts: dict[str, Callable[[], Rows]] = {"quality": lambda: quality([Path(path) for path in names[1:]])}
    else:
        unknown = sorted(set(names) - set(PARTS))
        if unknown:
            parser.error(f"there is no part '{unknown[0]}'; the parts are quality, {', '.join(PARTS)}")
        parts = {name: PARTS[name] for name in names}
    for name, part in parts.items():
        publish(name, part())


if __name__ == "__main__":
    main()
