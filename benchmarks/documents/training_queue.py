"""Trains the recipes that are missing in the gallery, at the lowest priority.

    python -m benchmarks.documents.gallery --queue              # until everything is trained, or Ctrl-C
    python -m benchmarks.documents.gallery --queue mnist-cgan   # only these recipes, each to its end, in this order
    python -m benchmarks.documents.gallery --pause              # stops the trainings after saving them
    python -m benchmarks.documents.gallery --go on

Each core gets one process of one thread. A recipe trains to its own budget or for three hours, whichever comes first,
in slices of twenty minutes; the recipe that has used the smallest share of its budget is next. When a training ends,
its gallery page is written. Runs are stored outside the repository, in `ZEUXIS_GALLERY` or in the user's data folder. A
training that was killed is resumed from its last checkpoint when the queue starts again.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zeuxis.data.registry import data_dir
from zeuxis.errors import UserError, one_of
from zeuxis.recipe import DataOptions, Recipe, load_recipe, recipe_names

HOURS, SLICE = 3.0, 20.0
# Recipes count epochs over the published data set; for a part of it, they are scaled to read as many images.
PUBLISHED = {"mnist": 60_000, "fashion-mnist": 60_000, "celeba": 40_000}
# Recipes built on another run train after it.
AFTER = {"latent-gan": ("model.vae", "mnist-vae-z16")}
# Models without a test error: their best checkpoint is chosen by the Frechet distance estimated during training.
BY_DISTANCE = ("gan", "cgan", "acgan", "infogan", "wgan-gp", "latent-gan", "vae-gan", "cvae-gan")


def home() -> Path:
    """Returns the folder in which the queue keeps its runs."""
    from platformdirs import user_data_path

    return Path(os.environ.get("ZEUXIS_GALLERY") or user_data_path("zeuxis", False) / "gallery").absolute()


@dataclass
class Training:
    """One recipe of the queue and its progress.

    Attributes:
        recipe: the package's recipe.
        settings: what the queue changes in it.
        folder: the run folder.
    """

    recipe: Recipe
    settings: dict[str, Any]
    folder: Path

    @property
    def last(self) -> dict[str, Any]:
        """The last line of the journal; empty if there is none."""
        try:
            line: dict[str, Any] = json.loads((self.folder / "journal.jsonl").read_text("utf-8").splitlines()[-1])
            return line
        except (OSError, IndexError, ValueError):
            return {}

    @property
    def share(self) -> float:
        """The larger of the used shares of the recipe's budget and of the queue's hours, 0..1."""
        line = self.last
        options = load_recipe(self.folder / "recipe.toml").training if (self.folder / "recipe.toml").is_file() else None
        if not line or options is None:
            return 0.0
        share = max(options.used(line) / options.budget[1], line["seconds"] / 3600 / HOURS)
        return min(float(share), 1.0)

    @property
    def ended(self) -> bool:
        """Whether its budget or its hours are used up, or it has failed."""
        return self.share >= 1 or (self.folder / "failed.txt").exists()

    def command(self) -> list[str]:
        """Returns the command that starts or resumes it."""
        zeuxis = [sys.executable, "-m", "zeuxis"]
        runs = ["--runs", str(self.folder.parent)]
        if (self.folder / "journal.jsonl").is_file():
            return [*zeuxis, "resume", str(self.folder), *runs]
        settings = [f"--set={key}={value}" for key, value in self.settings.items()]
        return [*zeuxis, "train", self.recipe.name, "--name", self.folder.name, *settings, *runs]


def trainings(runs: Path) -> list[Training]:
    """Returns the trainings of all recipes whose images are available, small images first; classifiers are left out."""
    queue = []
    for name in recipe_names():
        recipe = load_recipe(name)
        if _at_hand(recipe) and recipe.model.name != "classifier":
            queue.append(Training(recipe, _settings(recipe, runs), runs / f"{name}-1"))
    order = ("digits", "mnist", "fashion-mnist", "sprites", "folder", "celeba")
    return sorted(queue, key=lambda training: order.index(training.recipe.data.source))


def _at_hand(recipe: Recipe) -> bool:
    """Returns whether a recipe's images are in the data directory or come with the package."""
    patterns = {"mnist": "mnist*", "fashion-mnist": "fashion-mnist*", "celeba": "celeba/img_align_celeba*"}
    pattern = recipe.data.path or patterns.get(recipe.data.source, "")
    return not pattern or any(data_dir().glob(pattern))


def _settings(recipe: Recipe, runs: Path) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    published = PUBLISHED.get(recipe.data.source)
    if recipe.training.epochs and published:
        changed["training.epochs"] = round(recipe.training.epochs * published / _training_images(recipe.data.source))
    if recipe.model.name in BY_DISTANCE and not recipe.training.watched:
        changed |= {"training.best": "fid", "training.test_every": "3 minutes"}
    if recipe.name in AFTER:
        option, other = AFTER[recipe.name]
        changed[option] = str(runs / f"{other}-1")
    return changed


@cache
def _training_images(source: str) -> int:
    from zeuxis.data import load

    return len(load(DataOptions(source=source, channels=3, convert=True), progress=False).train)


class Queue:
    """Runs one training per core until all have ended or the queue is stopped.

    Args:
        folder: for runs, logs and the queue's own files.
        workers: number of trainings at a time.
        names: recipes to train, each to its end and in this order; if empty, all are trained in slices.
    """

    def __init__(self, folder: Path, workers: int, names: Sequence[str] = ()) -> None:
        self.folder, self.workers, self.names = folder, workers, names
        self.pause = folder / "paused"
        self.running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}

    def run(self) -> None:
        """Works until no training is left.

        Raises:
            UserError: if another queue works in the same folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # Linux divides the cores among login sessions first; this one takes what others leave
            Path("/proc/self/autogroup").write_text("19", "utf-8")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # both signals make the trainings save and stop
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with self._alone():
            waiting = self._chosen(trainings(self.folder / "runs"))
            print(f"{len(waiting)} trainings in {self.folder}", flush=True)
            try:
                while True:
                    self._collect(waiting)
                    if self.pause.exists():
                        self._stop()
                    elif len(self.running) < self.workers:
                        self._begin(waiting)
                        if not self.running:
                            return
                    time.sleep(2)
            except KeyboardInterrupt:
                print("stopped; the trainings are saved and go on with the next queue", flush=True)
            finally:
                self._stop()

    def _chosen(self, waiting: list[Training]) -> list[Training]:
        by_name = {training.recipe.name: training for training in waiting}
        for name in self.names:
            if name not in by_name:
                raise one_of("recipe in the queue", name, by_name)
        return [by_name[name] for name in self.names] or waiting

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"Another queue works in {self.folder}.") from None
            yield

    def _begin(self, waiting: list[Training]) -> None:
        ended = {training.recipe.name for training in waiting if training.ended}
        names = ended | self.running.keys()
        ready = [
            training for training in waiting
            if training.recipe.name not in names and AFTER.get(training.recipe.name, ("", ""))[1] in ended | {""}
        ]  # fmt: skip
        if not self.names:
            ready.sort(key=lambda training: training.share)
        for training in ready[: self.workers - len(self.running)]:
            name = training.recipe.name
            print(f"{time.strftime('%H:%M')}  {name}: {training.share:.0%}", flush=True)
            self.running[name] = (self._start(training.command(), name), time.monotonic())

    def _start(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        (self.folder / "logs").mkdir(exist_ok=True)
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                ["nice", "-n", "19", *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, **one},
            )  # fmt: skip

    def _collect(self, waiting: list[Training]) -> None:
        for training in waiting:
            name = training.recipe.name
            if name not in self.running:
                continue
            process, began = self.running[name]
            sliced = not self.names and time.monotonic() - began > SLICE * 60
            over = sliced or training.last.get("seconds", 0.0) / 3600 >= HOURS
            if process.poll() is None and over:
                process.send_signal(signal.SIGTERM)
                process.wait()
            if process.poll() is None:
                continue
            del self.running[name]
            if process.returncode not in (0, 130) and not training.ended:
                (self.folder / "logs").mkdir(exist_ok=True)
                training.folder.mkdir(parents=True, exist_ok=True)
                (training.folder / "failed.txt").write_text(f"ended with {process.returncode}\n", "utf-8")
                print(f"{time.strftime('%H:%M')}  {name}: failed, see logs/{name}.log", flush=True)
            elif training.ended:
                self._publish(training)

    def _publish(self, training: Training) -> None:
        """Writes the gallery page of a training that has ended."""
        name = training.recipe.name
        page = self._start([sys.executable, "-m", "benchmarks.documents.gallery", str(training.folder)], f"{name}-page")
        print(
            f"{time.strftime('%H:%M')}  {name}: ended, page {'written' if page.wait() == 0 else 'FAILED'}", flush=True
        )

    def _stop(self) -> None:
        for process, _ in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process, _ in self.running.values():
            process.wait()
        self.running.clear()


def pause(folder: Path) -> None:
    """Makes the queue stop its trainings and waits until they have stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "paused").touch()
    while _busy(folder):
        time.sleep(0.5)


def go_on(folder: Path) -> None:
    """Makes a paused queue continue."""
    (folder / "paused").unlink(missing_ok=True)


def _busy(folder: Path) -> bool:
    """Returns whether a training of the queue is running."""
    search = subprocess.run(["pgrep", "-f", str(folder / "runs")], capture_output=True, check=False)
    return search.returncode == 0


def states(folder: Path) -> str:
    """Returns a line with the progress of each training."""
    lines = []
    for training in trainings(folder / "runs"):
        line = training.last
        minutes, step = line.get("seconds", 0) / 60, line.get("step", 0)
        lines.append(f"{training.share:5.0%}  {minutes:6.1f} min  {step:7,} steps  {training.recipe.name}")
    return "\n".join(lines)
