"""Watching a training from outside, and reports of runs without weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.cells import cell_len

import zeuxis
from zeuxis.errors import NoWeightsError
from zeuxis.evaluation.verdict import training_state
from zeuxis.files import locked
from zeuxis.progress import fitted, status
from zeuxis.report import run_report
from zeuxis.run import Run
from zeuxis.watching import Watched, watch


@pytest.fixture
def unfinished(trained: dict[str, Run], tmp_path: Path) -> Path:
    """A run as it is before its first checkpoint."""
    folder = tmp_path / "early"
    shutil.copytree(trained["gan"].path, folder)
    shutil.rmtree(folder / "checkpoints")
    return folder


# -- the line -----------------------------------------------------------------------------------------


def test_a_line_holds_what_fits_and_never_half_a_number() -> None:
    parts = ["run", *status(1.25, 40, 1234.5, 3671, {"vae/loss": 0.12345, "test/mse": 0.5, "test/mse_stderr": 0.01})]
    whole = "run  epoch 1.2  1:01:11 left  step 40  1,234 img/s  vae 0.1235  test/mse 0.5 ± 0.01"
    assert fitted(parts, 200) == whole
    for width in range(1, 90):
        line = fitted(parts, width)
        assert cell_len(line) <= width and whole.startswith(line)
        assert width < 3 or not whole[len(line) :].strip() or whole[len(line) :].startswith("  ")


def test_the_line_follows_a_journal_that_grows(unfinished: Path) -> None:
    journal = unfinished / "journal.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("".join(f"{line}\n" for line in lines[:4]))
    run = Watched(unfinished)
    last = json.loads(lines[3])
    assert f"step {last['step']}" in run.line() and f"{last['images'] / last['seconds']:,.0f} img/s" in run.line()
    assert f"{last['step'] / 40:.0%}" in run.line() and not run.read()
    with journal.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines[4:]))
    assert run.read() and "step 40" in run.line() and "100%" in run.line()
    assert "discriminator" in run.line() and len(run.line(30)) <= 30


@pytest.mark.parametrize(("width", "height"), [(60, 24), (140, 30), (30, 5)])
def test_curves_fit_the_terminal(width: int, height: int, unfinished: Path) -> None:
    drawn = Watched(unfinished).plots(width, height)
    lines = drawn.split("\n")
    assert max(map(cell_len, lines)) <= width and len(lines) <= max(height, 8)
    assert "discriminator/loss" in lines[0] and ("generator/loss" in lines[0]) == (width == 140)
    assert "\x1b" not in drawn


# -- the end ------------------------------------------------------------------------------------------


def test_watching_ends_with_the_training(unfinished: Path) -> None:
    said: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def train() -> None:
        with locked(unfinished):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=train)
    thread.start()
    assert entered.wait(10)
    threading.Timer(0.6, leave.set).start()
    started = time.monotonic()
    ending = watch(unfinished, page=True, every=0.1, say=said.append)
    thread.join()
    assert time.monotonic() - started > 0.5
    assert ending.startswith("early has used up its budget at step 40 (40 of 40 steps). Next: zeuxis report early")
    assert len([line for line in said if "step 40" in line]) == 2
    page = (unfinished / "live.html").read_text()
    assert "http-equiv" not in page and "Nothing trains this run now" in page and page.count("<img ") == 2


@pytest.mark.slow
def test_ctrl_c_leaves_the_training_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zeuxis"]
    environment = os.environ | {"ZEUXIS_RUNS": str(tmp_path)}
    training = subprocess.Popen(
        [*command, "train", "digits-vae", "--minutes", "5", "--name", "run", "--set", "training.log_every=1"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "journal.jsonl").exists() or not (tmp_path / "run/journal.jsonl").stat().st_size:
            assert training.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        watching = subprocess.Popen(
            [*command, "watch", "run", "--page"], env=environment, stdout=subprocess.PIPE, text=True
        )
        while not (tmp_path / "run" / "live.html").exists():
            assert watching.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        page = (tmp_path / "run" / "live.html").read_text()
        assert '<meta http-equiv="refresh" content="15">' in page
        watching.send_signal(signal.SIGINT)
        output, _ = watching.communicate(timeout=20)
        assert watching.returncode == 0 and "run is still being trained" in output and "img/s" in output
        assert training.poll() is None
    finally:
        training.kill()
        training.wait()


# -- reports before the first checkpoint --------------------------------------------------------------


def test_a_report_before_the_first_checkpoint_says_what_is_left_out(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(unfinished)
    assert not run.trained and run.generates and not run.encodes and run.step == 40
    with pytest.raises(NoWeightsError, match="no checkpoint yet"):
        run.sample(1)
    page = run_report(run).read_text()
    assert "There is no checkpoint yet" in page and 'id="made"' not in page and "the pictures show" not in page
    for name in ("Losses", "Training history"):
        assert f'alt="{name} of early"' in page
    assert "Latent interpolations" not in page and f"{run.summary['networks']['generator']['total']:,}" in page
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("has no checkpoint yet") == 1 and "samples" in said


def test_a_report_of_a_running_run_says_where_the_training_is(trained: dict[str, Run], tmp_path: Path) -> None:
    shutil.copytree(trained["vae"].path, tmp_path / "running")
    with (tmp_path / "running" / "journal.jsonl").open("a") as file:
        file.write(json.dumps({"step": 50, "epoch": 2.0, "images": 3200, "seconds": 9.0, "vae/loss": 1.0}) + "\n")
    (sentence,) = [s for s in training_state(Run(tmp_path / "running")) if "weights" in s]
    assert sentence == (
        "The weights of step 40 are used, which had the lowest mse in the tests; training ended at step 50."
    )
    with locked(tmp_path / "running"):
        (sentence,) = [s for s in training_state(Run(tmp_path / "running")) if "weights" in s]
    assert sentence.endswith("training is at step 50.")


def test_the_step_of_the_weights_is_known_without_loading_them(trained: dict[str, Run]) -> None:
    run = zeuxis.load(trained["vae"].path)
    assert run.step == 40 and "_loaded" not in vars(run)
    assert run.model is not None and run.step == 40
