"""Runs that come with the package: each is small, has a card, and works like any run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import zeuxis.pretrained as package
from zeuxis.cli import app
from zeuxis.errors import UserError
from zeuxis.pretrained import cards, unpack
from zeuxis.report import run_report
from zeuxis.run import find_run
from zeuxis.training.checkpoint import best_checkpoint

NAMES = [card.name for card in cards()]
FOLDER = Path(package.__file__).parent


def test_all_together_are_small_and_every_card_is_whole() -> None:
    assert len(NAMES) >= 3
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert size < 12 * 2**20
    for card in cards():
        assert all(card) and card.measured[0].isalpha(), card
        assert best_checkpoint(FOLDER / card.name / "checkpoints") is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_pretrained_run_works_at_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUXIS_RUNS", str(tmp_path / "runs"))
    result = CliRunner().invoke(app, ["sample", f"pretrained/{name}", "-n", "4"])
    assert result.exit_code == 0, result.output
    run = find_run(f"pretrained/{name}", tmp_path / "runs")
    assert run.path == tmp_path / "runs" / f"pretrained-{name}" and len(list((run.path / "samples").glob("*.png"))) == 1
    images = run.sample(16, seed=2)
    assert images.std() > 0.1 and images.std(axis=0).mean() > 0.05, "pictures, and different ones"


@pytest.mark.slow
@pytest.mark.extra("onnx", "onnxruntime")
@pytest.mark.parametrize("name", NAMES)
def test_a_pretrained_run_is_exported(name: str, tmp_path: Path) -> None:
    for to in ("onnx", "torch"):
        words = ["--to", to, "--out", str(tmp_path / to), "--runs", str(tmp_path / "runs")]
        result = CliRunner().invoke(app, ["export", f"pretrained/{name}", *words])
        assert result.exit_code == 0 and "largest difference from" in result.output, result.output


def test_what_only_reads_copies_nothing(tmp_path: Path) -> None:
    for command in (["cite"], ["runs", "journal"]):
        result = CliRunner().invoke(app, [*command, "pretrained/digits-flow", "--runs", str(tmp_path / "runs")])
        assert result.exit_code == 0 and "flow" in result.output
    assert not (tmp_path / "runs").exists()


def test_a_report_of_one_has_its_curves_and_numbers(tmp_path: Path) -> None:
    run = find_run("pretrained/digits-cgan", tmp_path)
    page = run_report(run).read_text("utf-8")
    assert "Losses" in page and 'id="measured"' in page and "as other real images are" in page


def test_unknown_names_are_told_and_others_are_listed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no pretrained run 'digits-cgna'. Did you mean 'digits-cgan'\?"):
        unpack("digits-cgna", tmp_path)
    output = CliRunner().invoke(app, ["pretrained"]).output
    assert all(f"pretrained/{name}" in output for name in NAMES)
