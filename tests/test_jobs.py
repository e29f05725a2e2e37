"""Several trainings at once: the same runs as one after another, whatever is killed or stopped on the way."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from zeuxis import processes
from zeuxis.errors import UserError
from zeuxis.files import is_locked
from zeuxis.recipe import Recipe, load_recipe
from zeuxis.run import Run
from zeuxis.study import Axis, Part, train_all
from zeuxis.study.search import Trials
from zeuxis.training import checkpoints

SHORT = {
    "training.steps": 8, "training.log_every": 1, "training.test_every": "never", "training.snapshot_every": "never",
    "training.checkpoint_every": "2 steps", "training.threads": 1, "training.batch_size": 16,
}  # fmt: skip


def part(name: str, **settings: object) -> Part:
    recipe: Recipe = load_recipe("digits-vae", SHORT | {f"training.{key}": value for key, value in settings.items()})
    return Part(name, recipe)


def same(first: Run, second: Run) -> bool:
    """Whether two runs have the same weights, bit for bit."""
    one, other = (run.model.networks.state_dict() for run in (first, second))
    return all(torch.equal(one[name], other[name]) for name in one)


def until(reached: object) -> None:
    for _ in range(1200):
        if reached():  # type: ignore[operator]
            return
        time.sleep(0.05)
    pytest.fail("it took longer than a minute")


def test_several_at_once_train_what_one_after_another_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [part("one"), part("diverging", optimizer={"learning_rate": 100.0}), part("two", seed=1)]
    expected = train_all(parts, tmp_path / "single", progress=False)
    assert list(expected) == ["one", "two"]
    runs = train_all(parts, tmp_path / "jobs", jobs=3)
    assert list(runs) == list(expected)
    assert all(same(runs[name], expected[name]) for name in expected)
    said = capsys.readouterr().err
    assert "diverging is left out" in said and "one  100%" in said and "two  100%" in said
    monkeypatch.setattr(processes.subprocess, "Popen", None)
    assert list(train_all([parts[0], parts[2]], tmp_path / "jobs", jobs=2)) == ["one", "two"], (
        "nothing is trained twice"
    )
    with pytest.raises(UserError, match=r"other settings \(training.seed\)"):
        train_all([part("one", seed=5)], tmp_path / "jobs", jobs=2)


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_once_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = part("one", steps=60)
    expected = train_all([long], tmp_path / "single", progress=False)["one"]
    killed = []

    def kill() -> None:
        until(lambda: checkpoints(tmp_path / "jobs" / "one" / "checkpoints"))
        for process in psutil.Process().children():
            if "zeuxis.study.worker" in process.cmdline():
                killed.append(process.pid)
                process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    run = train_all([long], tmp_path / "jobs", jobs=2, progress=False)["one"]
    killer.join()
    assert len(killed) == 1 and run.step == 60
    said = capsys.readouterr().err
    assert "one: its process ended (SIGKILL" in said and "It is started once more" in said
    assert same(run, expected), "as if it had never been killed"


def test_a_process_that_dies_twice_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "sys", SimpleNamespace(executable=shutil.which("false")))
    with pytest.raises(
        UserError, match=r"given up, because its process ended \(exit status 1\), 2 times\..*smaller --jobs"
    ):
        train_all([part("one")], tmp_path, jobs=2, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_all_trainings_are_saved_when_the_command_is_stopped(number: signal.Signals, tmp_path: Path) -> None:
    """Also when it is killed: the processes see their input end."""
    words = [
        "sweep",
        "digits-vae",
        "--over",
        "training.seed=1,2",
        "--steps",
        "1000000",
        "--set",
        "training.log_every=1",
        "--set",
        "training.test_every=never",  # a test would make a best checkpoint, which is not the last
    ]
    command = [sys.executable, "-m", "zeuxis", *words, "--jobs", "2", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    folders = [tmp_path / f"seed={seed}" for seed in (1, 2)]
    until(lambda: all((folder / "journal.jsonl").exists() and Run(folder).journal for folder in folders))
    process.send_signal(number)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    if number == signal.SIGINT:
        assert f"Run the same command again to continue with the runs in {tmp_path}." in said
    assert "Traceback" not in said
    until(lambda: not any(is_locked(folder) for folder in folders))
    for folder in folders:
        assert checkpoints(folder / "checkpoints") and Run(folder).step == Run(folder).journal[-1]["step"]


def test_a_run_of_its_own_command_is_one_of_the_sweep(tmp_path: Path) -> None:
    """As an array of jobs on a cluster trains them."""
    words = ["train", "digits-vae", "--set", "model.kl_weight=0.5", "--steps", "3", "--name", "kl_weight=0.5"]
    subprocess.run([sys.executable, "-m", "zeuxis", *words, "--runs", str(tmp_path)], check=True, capture_output=True)
    swept = load_recipe("digits-vae", {"training.steps": 3}).updated({"model.kl_weight": 0.5})
    before = (tmp_path / "kl_weight=0.5" / "journal.jsonl").stat().st_mtime_ns
    assert train_all([Part("kl_weight=0.5", swept)], tmp_path, jobs=2, progress=False)["kl_weight=0.5"].step == 3
    assert (tmp_path / "kl_weight=0.5" / "journal.jsonl").stat().st_mtime_ns == before


def test_a_search_asks_for_several_settings_at_once() -> None:
    pytest.importorskip("optuna")
    trials = Trials([Axis("w", (), 0.01, 100.0)], "tpe", 6, 3)
    trials.jobs, asked = 2, iter(trials)
    drawn = [next(asked), next(asked)]  # before anything is measured
    for trial in asked:
        drawn.append(trial)
        trials.tell(drawn[trial.number - 2], None if trial.number == 4 else float(trial.number))
    assert len({trial.settings["w"] for trial in drawn}) == 6


def test_a_place_to_train_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no place to train on 'rya'\. Did you mean 'ray'"):
        train_all([part("one")], tmp_path, on="rya")
    with pytest.raises(UserError, match="from 1 to 256, not 0"):
        train_all([part("one")], tmp_path, jobs=0)
