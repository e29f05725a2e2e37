"""The command line: what a person types, and what it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeuxis import cli
from zeuxis.demo import MINUTES, run_demo
from zeuxis.run import Run


def call(*arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Runs the command in this process; returns its exit code and standard output."""
    monkeypatch.setattr(sys, "argv", ["zeuxis", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), capsys.readouterr().out


def test_lists(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out = call("recipes", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    assert "mnist-vae-z2" in out
    code, out = call("recipes", "flowers", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0 and "flowers-vae-32-z3" in out and "mnist-vae-z2" not in out
    code, _ = call("recipes", "flwers", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    code, out = call("data", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    for source in ("celeba", "digits", "fashion-mnist", "folder", "mnist"):
        assert source in out


@pytest.mark.parametrize("verb", ["train", "summary", "sweep"])
def test_a_wrong_name_is_told_before_pytorch_is_imported(verb: str) -> None:
    given = ["--over", "model.latent=2,4"] if verb == "sweep" else []
    words = [sys.executable, "-X", "importtime", "-m", "zeuxis", verb, "mnist-va", *given]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "There is no recipe 'mnist-va'. Did you mean" in ended.stderr
    assert "| zeuxis.cli" in ended.stderr and "torch" not in ended.stderr


def test_summary_json_is_the_contract(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out = call("summary", "mnist-gan", "--json", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    table = json.loads(out)
    assert table["recipe"] == "mnist-gan"
    generator = table["networks"]["generator"]
    assert (generator["total"], generator["trainable"]) == (2_330_944, 2_305_472)
    assert generator["layers"][0] == {"layer": "dense 12544 nobias", "output": [12544], "parameters": 1_254_400}
    code, out = call("summary", "mnist-gan", capsys=capsys, monkeypatch=monkeypatch)
    assert "2,330,944" in out


@pytest.mark.usefixtures("short_reports")
def test_the_tour(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def say(*arguments: str) -> str:
        code, out = call(*arguments, capsys=capsys, monkeypatch=monkeypatch)
        assert code == 0
        return out.strip()

    tiny = ["--set", "training.batch_size=16", "--set", "training.log_every=1"]
    vae = say("train", "digits-vae", "--classes", "3,8", "--steps", "4", "--seed", "5", *tiny)
    assert Path(vae).resolve() == (runs / "digits-vae-1").resolve()
    assert Run(vae).classes == ("3", "8")
    assert Run(vae).recipe.training.seed == 5
    cgan = say("train", "digits-cgan", "--steps", "4", "--name", "mine", *tiny)
    assert Path(cgan).name == "mine"
    grid = Path(say("sample", "mine", "-n", "6", "--seed", "2", "--label", "7", "--scale", "1.5"))
    images = grid.with_name(grid.name.removesuffix("-grid.png"))
    assert sorted(path.name for path in images.iterdir()) == [f"000{i}.png" for i in range(6)]
    with Image.open(images / "0003.png") as image:
        expected = Run(cgan).sample(6, seed=2, label="7", scale=1.5)[3, :, :, 0]
        assert np.abs(np.asarray(image) - expected * 255).max() <= 0.51
    assert say("reconstruct", "digits-vae-1").startswith("test MSE 0.")
    with Image.open(say("interpolate", "mine", "--from", "0", "--to", "9", "--steps", "5")) as image:
        assert image.size == (5 * 68 - 4, 64)
    assert len(say("figures", "mine").splitlines()) == 13
    assert Path(say("figures", "mine", "--only", "classes")).name == "classes.png"
    assert Path(say("report", "digits-vae-1")).stat().st_size > 50_000
    assert Path(say("compare", "digits-vae-1", "mine", "--samples", "100")).is_file()
    assert say("resume", "mine", "--steps", "6") == cgan
    assert Run(cgan).last("step") == 6


def test_data_info_counts_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = tmp_path / "sheet.png"
    code, out = call(
        "data", "info", "digits", "--size", "8", "--out", str(sheet), capsys=capsys, monkeypatch=monkeypatch
    )
    assert code == 0
    assert "0 178, 1 182" in out
    assert "8x8, grey" in out
    with Image.open(sheet) as image:
        assert min(image.size) > 400


@pytest.mark.slow
def test_the_demo_ends_in_a_report(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_demo(runs, minutes=0.08)
    assert path.read_text("utf-8").count("data:image/png") > 15
    assert {p.name for p in runs.iterdir() if p.is_dir()} == {f"{name}-1" for name in MINUTES}
    assert sum(MINUTES.values()) < 3.2, "under four minutes with the report"


@pytest.mark.parametrize("arguments", [["-c", "import zeuxis"], ["-m", "zeuxis", "--help"]])
def test_start_up_is_quick(arguments: list[str]) -> None:
    """Half a second on an idle machine; here processor time beside that of starting Python, as machines differ."""
    heavy = (
        "import sys, zeuxis.cli; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'matplotlib', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", heavy], check=False).returncode == 0

    def processor_time(command: list[str]) -> float:
        times = []
        for _ in range(3):
            before = os.times()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            after = os.times()
            times.append(after.children_user - before.children_user + after.children_system - before.children_system)
        return min(times)

    assert processor_time(arguments) < 15 * processor_time(["-c", "pass"]) + 0.2


def test_interruption_says_how_to_resume(tmp_path: Path) -> None:
    words = ["train", "digits-vae", "--steps", "10000000", "--runs", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "zeuxis", *words], stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "digits-vae-1" / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.count("Stopping after this step, and saving; Ctrl-C again stops at once.\n") == 1
    assert f"zeuxis resume {tmp_path / 'digits-vae-1'}" in said
    assert f"at step {Run(tmp_path / 'digits-vae-1').step:,} (epoch " in said
    assert Run(tmp_path / "digits-vae-1").sample(2).shape == (2, 16, 16, 1)


def test_a_folder_of_samples_holds_what_was_asked_for_alone(
    trained: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools that take a folder of images, such as those that measure FID, read all that it holds."""

    def sample(n: int, folder: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["zeuxis", "sample", str(trained["vae"].path), "-n", str(n), "--out", folder])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code
        return said.out.strip() + said.err.strip()

    def names(folder: str) -> list[str]:
        return sorted(path.name for path in (tmp_path / folder).iterdir())

    monkeypatch.chdir(tmp_path)
    assert sample(5, "made") == "made-grid.png"
    assert names("made") == [f"000{i}.png" for i in range(5)]
    assert "Removed 3 images of an earlier call from made." in sample(2, "made")
    assert names("made") == ["0000.png", "0001.png"]
    (tmp_path / "made" / "cat.png").write_text("mine")
    assert "holds other files, such as cat.png" in sample(1, "made", code=2)
    assert names("made") == ["0000.png", "0001.png", "cat.png"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert Path(sample(2, ".")) == tmp_path / "here-grid.png"
    assert names("here") == ["0000.png", "0001.png"]


def test_many_samples_are_made_some_at_a_time(
    trained: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeuxis.figures import export

    run = trained["vae"]
    parts = list(run.samples(300, seed=4))
    assert [len(part) for part in parts] == [256, 44]
    np.testing.assert_array_equal(np.concatenate(parts), run.sample(300, seed=4))
    monkeypatch.setattr(export, "GRID_PIXELS", 9 * 68**2)
    with Image.open(export.save_samples(run, 300, tmp_path / "many", seed=4)) as grid:
        assert grid.size == (3 * 68 - 4, 3 * 68 - 4), "the grid shows the first of them"
    assert len(list((tmp_path / "many").iterdir())) == 300


def test_a_working_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = (
        f"import os; os.chdir({str(tmp_path / 'gone')!r}); os.rmdir(os.getcwd()); from zeuxis import cli; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "Error: The folder in which this command was called is gone; change to another one.\n"


FAILING = """
from zeuxis.data import source

@source("failing", "images that are not there", mirrors=False)
def failing(options):
    return {}["images"]
"""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\n\nx = y\n", "mine.py cannot be loaded, line 3: NameError: name 'y' is not defined."),
        ("x = (\n", "mine.py cannot be loaded, line 1: SyntaxError: '(' was never closed (mine.py, line 1)."),
        ("raise SystemExit\n", "mine.py cannot be loaded, line 1: SystemExit."),
        (FAILING, "mine.py failed in line 6, in failing: KeyError: 'images'."),
    ],
)
def test_a_plugin_that_fails_is_told_in_a_sentence(code: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "zeuxis", "data", "info", "failing", "--plugin", "mine.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: The plugin {message}\n"
