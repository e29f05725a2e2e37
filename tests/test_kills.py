"""A training is killed at every moment at which it changes a file, and goes on as if it had never been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import zeuxis.training.checkpoint
from zeuxis.data import load
from zeuxis.files import TEMPORARY
from zeuxis.recipe import load_recipe
from zeuxis.training import journal, resume, start

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, which this system cannot")

RECIPE = """
extends = "digits-vae"
name = "run"
[networks.encoder]
layers = ["flatten", "dense 4", "relu"]
heads = { mean = ["dense latent"], logvar = ["dense latent"] }
[networks.decoder]
layers = ["dense 256", "reshape 1x16x16", "sigmoid"]
[training]
steps = 12
batch_size = 16
log_every = 1
checkpoint_every = "3 steps"
snapshot_every = "4 steps"
test_every = "2 steps"
best = "mse"
ema = 0.9
threads = 1
"""


class Moments:
    """Counts the moments at which a process is about to change a file, and kills it at one of them."""

    def __init__(self, last: int = -1) -> None:
        self.last, self.count = last, 0

    def reach(self, half: Callable[[], object] | None = None) -> None:
        """A moment; at the last one half the work is done before the kill."""
        if self.count == self.last:
            if half:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def watch(self) -> None:
        """Stands before all that changes files."""
        for name in ("replace", "rename", "unlink", "mkdir", "chmod", "fsync"):
            self._before(os, name)
        self._before(Path, "write_bytes", lambda path, content: path.open("wb").write(content[: len(content) // 2]))
        self._before(zeuxis.training.checkpoint, "_save", lambda tensors, header, path: path.write_bytes(b"half"))
        self._before(journal.Journal, "write", self._half_a_line)

    @staticmethod
    def _half_a_line(log: Any, line: dict[str, Any], roles: object) -> None:
        log._file.write(json.dumps(line)[:12])
        log._file.flush()

    def _before(self, owner: Any, name: str, half: Callable[..., object] | None = None) -> None:
        real = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            self.reach()
            if half:
                self.reach(lambda: half(*arguments))
            return real(*arguments, **named)

        setattr(owner, name, watched)


def forked(work: Callable[[], object]) -> int:
    """Runs something in a copy of this process; returns its exit code, negative for a signal."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - whatever it is, a copied process must not go on into the test runner
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def train(runs: Path, moments: Moments | None = None, count: Path | None = None) -> None:
    """Starts the training, or goes on with it where it was begun."""
    if moments:
        moments.watch()
    if (runs / "run").exists():
        resume(runs / "run", visible=False)
    else:
        start(load_recipe(runs.parent / "recipe.toml"), runs, name="run", visible=False)
    if count and moments:
        found = moments.count
        with count.open("w") as file:
            file.write(str(found))


def content(run: Path) -> dict[str, Any]:
    """All that a run holds, apart from clocks."""
    found: dict[str, Any] = {"recipe": (run / "recipe.toml").read_text()}
    for path in sorted(run.glob("checkpoints/*")):
        with safe_open(path, "np") as file:
            state = json.loads(file.metadata()["zeuxis"]) | {"seconds": 0}
            found[path.name] = (state, {name: file.get_tensor(name).tobytes() for name in file.keys()})  # noqa: SIM118
    for path in sorted(run.glob("snapshots/*")):
        found[path.name] = path.read_bytes()
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    clocks = ("seconds", "cost/peak_memory_mib", "cost/threads")
    found["journal"] = [{key: value for key, value in line.items() if key not in clocks} for line in lines]
    return found


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], int]:
    """A folder, what an unbroken run holds, and the number of moments that it has."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "recipe.toml").write_text(RECIPE)
    load(load_recipe(folder / "recipe.toml").data, progress=False)  # decoded once, by no training
    assert forked(lambda: train(folder / "unbroken", Moments(), folder / "count")) == 0
    return folder, content(folder / "unbroken" / "run"), int((folder / "count").read_text())


def check(unbroken: tuple[Path, dict[str, Any], int], at: int) -> None:
    folder, whole, _ = unbroken
    runs = folder / f"killed-{at}"
    shutil.rmtree(runs, ignore_errors=True)
    assert forked(lambda: train(runs, Moments(at))) == -signal.SIGKILL
    # Half of the trainings that go on are killed as well.
    if at % 2 and (runs / "run").exists():
        forked(lambda: train(runs, Moments(random.Random(at).randrange(60))))
    try:
        train(runs)
    except zeuxis.errors.UserError as error:
        assert "has used up its budget" in str(error)
    assert content(runs / "run") == whole
    assert not list((runs / "run").rglob(f"{TEMPORARY}*"))


def test_killed_at_a_sample_of_moments(unbroken: tuple[Path, dict[str, Any], int]) -> None:
    count = unbroken[2]
    assert count > 150
    for at in [3, 12, *random.Random(7).sample(range(20, count), 5), count - 1]:
        check(unbroken, at)


@pytest.mark.slow
def test_killed_at_every_moment(unbroken: tuple[Path, dict[str, Any], int]) -> None:
    for at in range(unbroken[2]):
        check(unbroken, at)
