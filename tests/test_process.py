"""The process of the command: signals at any moment, and outputs that are closed, full or of few letters."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.table import Table

from zeuxis import progress
from zeuxis.run import Run
from zeuxis.training.callbacks import display

# Stands for any command: a signal comes while it has a temporary folder and does what the body says.
STAND_IN = """
import os, signal, sys, tempfile, time
import zeuxis.cli
from zeuxis import __main__

def stop():
    os.kill(os.getpid(), {number})

def run():
    with tempfile.TemporaryDirectory(dir=sys.argv[1]):
{body}
    print("went on")
    sys.exit(0)

zeuxis.cli.main = run
__main__.main()
"""
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def process(folder: Path, body: str, number: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
    code = STAND_IN.format(number=number, body="\n".join(f"        {line}" for line in body.splitlines()))
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False, timeout=60, **options
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_in_one_sentence_and_removes_what_is_unfinished(tmp_path: Path, number: signal.Signals) -> None:
    ended = process(tmp_path, "stop()\ntime.sleep(9)", number)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == f"Stopped by {number.name}. What was saved before is kept.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "body",
    [
        "try:\n    stop()\nfinally:\n    stop()\n    time.sleep(9)",  # a second one
        "import slow",  # an import that keeps every exception to itself
        "class Odd:\n    def __del__(self):\n        stop()\nOdd()\ntime.sleep(9)",  # what a destructor raises is lost
    ],
)
def test_a_signal_that_cannot_unwind_ends_the_process_at_once(tmp_path: Path, body: str) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "slow.py").write_text(
        "import os, time\ntry:\n    os.kill(os.getpid(), 15)\n    time.sleep(9)\nexcept BaseException:\n    pass\n"
    )
    path = os.pathsep.join([str(modules), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = process(tmp_path, body, signal.SIGTERM, env=os.environ | {"PYTHONPATH": path})
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == "Stopped by SIGTERM. What was saved before is kept.\n"


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under `nohup`, which is how a training outlives its terminal."""
    ended = process(tmp_path, "stop()", signal.SIGHUP, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "went on\n", "")


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command line in which ZEUXIS stands for the command."""
    command = command.replace("ZEUXIS", f"{sys.executable} -m zeuxis")
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env=os.environ | environment, timeout=60
    )


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("ZEUXIS recipes digits >/dev/full", 1, "The output cannot be written: the disk is full. The results are"),
        ("ZEUXIS recipes digits >&-", 0, ""),
        ("ZEUXIS recipes digits <&-", 0, ""),
        ("ZEUXIS recipes digits 2>&- >&-", 0, ""),
        ("ZEUXIS recipes flwers 2>/dev/full", 2, ""),
        ("ZEUXIS recipes flwers 2>&-", 2, ""),
        ("(sleep 0.1; ZEUXIS recipes digits; echo $? >&2) | true", 0, "1\n"),
    ],
)
def test_outputs_that_fail(command: str, code: int, said: str) -> None:
    ended = shell(command)
    assert ended.returncode == code
    assert said in ended.stderr and "Traceback" not in ended.stderr and "Exception" not in ended.stderr
    assert said or not ended.stderr


def test_what_is_made_is_saved_before_it_is_printed(trained: dict[str, Run], tmp_path: Path) -> None:
    ended = shell(f"ZEUXIS sample {trained['vae'].path} -n 3 --out {tmp_path / 'made'} 2>&- >/dev/full")
    assert ended.returncode == 1
    assert [path.name for path in sorted((tmp_path / "made").iterdir())] == ["0000.png", "0001.png", "0002.png"]
    assert (tmp_path / "made-grid.png").is_file()


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "cp1252"}])
def test_characters_that_an_output_cannot_take_are_written_out(tmp_path: Path, environment: dict[str, str]) -> None:
    ended = process(tmp_path, r"print('fid \u2193')", env=os.environ | environment)
    assert (ended.returncode, ended.stdout) == (0, "fid \\u2193\nwent on\n")


@pytest.mark.parametrize(
    "environment",
    [
        *({"COLUMNS": columns} for columns in ("0", "1", "5", "20", "x", "-3")),
        *({"TERM": "dumb"}, {"NO_COLOR": "1"}, {"TZ": "No/Where"}, {"PYTHONOPTIMIZE": "2"}, {"HOME": ""}),
    ],
)
def test_terminals_of_every_kind(environment: dict[str, str]) -> None:
    ended = shell("ZEUXIS recipes digits && ZEUXIS recipes no-such", **environment)
    assert ended.returncode == 2 and ended.stdout
    assert "Error: There is no recipe 'no-such'" in ended.stderr and "Traceback" not in ended.stderr


HOSTILE = "[/] [bold]x \x1b[31mred \x1b]0;title\x07 \u202e"


def test_without_a_terminal_a_line_says_how_far_the_work_is(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", progress.Literal(file=screen, width=200))
    with progress.bar("evaluating a", 3) as advance:
        advance(1)  # sooner than half a minute
    monkeypatch.setattr(progress, "EVERY", 0.1)
    with progress.bar("evaluating b", 3) as advance:
        advance(2)
        for _ in range(100):  # one unit that takes long
            if screen.getvalue():
                break
            time.sleep(0.1)
    with progress.bar("unseen", 3, visible=False) as advance:
        time.sleep(0.3)
    assert re.match("evaluating b: 2 of 3 after .* second", screen.getvalue())
    assert not re.search("evaluating a|unseen", screen.getvalue())


def test_names_reach_a_terminal_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brackets are no markup, and codes are written out: in notices, tables, bars and the display of a training."""
    screen = io.StringIO()
    terminal = progress.Literal(file=screen, force_terminal=True, width=200)
    for module in (progress, display):
        monkeypatch.setattr(module, "console", terminal)
    progress.say(HOSTILE, lead=HOSTILE)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    terminal.print(table)
    with progress.bar(HOSTILE, 2) as advance:
        advance(1)
    shown = display.Display()
    journal = SimpleNamespace(roles={f"{HOSTILE}/loss": "loss"})
    trainer = SimpleNamespace(
        folder=Path(HOSTILE),
        images=0,
        progress=0.5,
        complete=False,
        epoch=0.5,
        step=3,
        journal=journal,
        spent=("minutes", 1.0),
    )
    shown.begin(trainer)
    shown.logged(trainer, {f"{HOSTILE}/loss": 1.0})
    shown.iterated(trainer)
    shown.warned(HOSTILE)
    shown.end(trainer)
    said = screen.getvalue()
    assert said.count(r"[/] [bold]x \x1b[31mred \x1b]0;title\x07 \u202e") >= 8
    assert "\x1b[31mred" not in said and "\x1b]0;title" not in said and "\u202e" not in said
