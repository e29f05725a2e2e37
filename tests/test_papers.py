"""What goes into a paper: tables, the sentence on methods, references, and figures as vector graphics."""

from __future__ import annotations

import csv
import inspect
import io
import json
import re
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from zeuxis import cli
from zeuxis.data import SOURCES
from zeuxis.evaluation.evaluate import evaluate
from zeuxis.evaluation.measure import Value
from zeuxis.evaluation.ranking import Cell, Row
from zeuxis.figures import draw_all
from zeuxis.models import MODELS
from zeuxis.models.losses import LOSSES
from zeuxis.report.citing import bibtex, references, uses
from zeuxis.report.table import Table, _machines, brief, render
from zeuxis.run import Run
from zeuxis.training.optimizers import OPTIMIZERS

HARD = "50 % of_{x}^2 & more~#1 \\ <a|b>"


@pytest.fixture
def table() -> Table:
    """Three runs, one of them with a name that is hard to set, and values of every kind."""
    rows = (
        Row("fid", "distance", "low", "digits-cnn", (
            Cell(Value(1.2345, 0.1, 100, "digits-cnn"), 1, True),
            Cell(Value(12345.6, 1234, 100, "digits-cnn"), 2, False),
            Cell(None, None, False))),
        Row("elbo", "bound", "high", None, (
            Cell(Value(-99.5, None, 100), 2, False), Cell(Value(-4.25, 0.5, 100), 1, False),
            Cell(Value(-1e-7, 0.5, 100, None, True), 1, False))),
    )  # fmt: skip
    return Table(("a", HARD, "c"), ((1,), (1, 2), (3,)), rows, f"Methods of {HARD}.")


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[str, str]:
    monkeypatch.setattr(sys, "argv", ["zeuxis", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    said = capsys.readouterr()
    return said.out, said.err


def test_every_format_holds_the_values_and_marks_the_best(table: Table) -> None:
    latex = render(table, "latex")
    assert r"FID $\downarrow$ & \textbf{1.23} $\pm$ 0.10 & 12,300 $\pm$ 1,200 & -- \\" in latex
    assert r"ELBO $\uparrow$ & $-$99.5 & $-$4.25 $\pm$ 0.50 & $\geq$ 0.00 $\pm$ 0.50 \\" in latex
    assert r"50 \% of\_\{x\}\textasciicircum{}2 \& more\textasciitilde{}\#1 \textbackslash{}" in latex
    markdown = render(table, "markdown").splitlines()
    assert markdown[2] == "| FID ↓ | **1.23** ± 0.10 | 12,300 ± 1,200 | – |"
    assert len(re.findall(r"(?<!\\)\|", markdown[0])) == 5, "a bar in a name is no border"
    assert markdown[-1] == table.methods
    page = render(table, "html")
    assert "<td>FID ↓</td><td><b>1.23</b> ± 0.10</td><td>12,300 ± 1,200</td><td>–</td>" in page
    assert "&lt;a|b&gt;" in page and "<a|b>" not in page
    records = json.loads(render(table, "json"))
    assert records["methods"] == table.methods
    first = records["values"][0]
    assert (first["measure"], first["run"], first["value"], first["stderr"], first["best"]) == (
        "fid",
        "a",
        1.2345,
        0.1,
        True,
    )
    assert [record["seeds"] for record in records["values"][:2]] == [[1], [1, 2]] and len(records["values"]) == 5
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert [(row["run"], float(row["value"]), row["seeds"]) for row in rows] == [
        (record["run"], record["value"], " ".join(map(str, record["seeds"]))) for record in records["values"]
    ]


def test_a_table_for_readers_leaves_out_what_describes_the_images_alone(table: Table) -> None:
    floor = Row("fid_floor", "real images", "", None, (Cell(Value(1.0), None, False),) * 3)
    longer = replace(table, rows=(*table.rows, floor, floor._replace(name="ms_ssim")))
    assert "FID floor" not in render(longer, "markdown") and "fid_floor" in render(longer, "csv")
    assert "MS-SSIM" in render(longer, "latex")
    chosen = render(longer, "markdown", ["fid_floor", "elbo"])
    assert [line.split(" ")[1] for line in chosen.splitlines()[2:4]] == ["ELBO", "FID"] and "| FID ↓" not in chosen


def test_machines_are_named_once(trained: dict[str, Run]) -> None:
    one, two, gpu = (Run(trained["vae"].path) for _ in range(3))
    for run, facts in ((one, {"threads": 1}), (two, {"threads": 2}), (gpu, {"gpu": "One GPU"})):
        run.__dict__["environment"] = {**trained["vae"].environment, "processor": "CPU", "gpu": None, **facts}
    assert _machines([two, one, gpu, one]) == ["CPU, 1 or 2 threads", "One GPU"]
    assert _machines([one]) == ["CPU, 1 thread"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_the_latex_compiles(table: Table, trained: dict[str, Run], tmp_path: Path) -> None:
    text = f"\\documentclass{{article}}\\begin{{document}}\n{render(table, 'latex')}\n\\nocite{{*}}"
    (tmp_path / "paper.tex").write_text(text + "\\bibliographystyle{plain}\\bibliography{all}\\end{document}", "utf-8")
    entries = [bibtex(trained["vae"]).partition("\n\n")[0], *(reference.entry for reference in references())]
    (tmp_path / "all.bib").write_text("\n\n".join(entries), "utf-8")
    for command in (["pdflatex"], ["bibtex"], ["pdflatex"], ["pdflatex"]):
        options = ["-interaction=nonstopmode", "-halt-on-error", "paper.tex"] if command == ["pdflatex"] else ["paper"]
        ended = subprocess.run([*command, *options], cwd=tmp_path, check=False, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout
        assert "Warning--" not in ended.stdout, ended.stdout
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "paper.bbl").read_text("utf-8").count("\\bibitem") == len(entries)


def test_evaluate_prints_a_table_and_how_it_was_made(
    trained: dict[str, Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained["gan"]
    words = ["evaluate", run.path, "--samples", "100", "--only", "fid,sharpness", "--judge", "random", "--to"]
    found = json.loads(call(capsys, monkeypatch, *words, "json")[0])
    assert {record["measure"] for record in found["values"]} == {"fid", "sharpness"}
    assert found["methods"].startswith("100 samples of each training were measured, from latents of seed 0. ")
    for part in ("features of random features 16x16x1", "(seed 0)", "1,618 training images", "and PyTorch 2."):
        assert part in found["methods"]
    out, said = call(capsys, monkeypatch, *words, "csv")
    assert out.startswith("measure,better,features,run,seeds,value") and found["methods"] in " ".join(said.split())
    assert found["methods"].replace("%", r"\%") in call(capsys, monkeypatch, *words, "latex")[0]


@pytest.mark.usefixtures("short_reports")
def test_compare_prints_the_table_of_its_report(
    trained: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["compare", trained["vae"].path, trained["gan"].path, "--samples", "100", "--out", tmp_path / "c.html"]
    out, said = call(capsys, monkeypatch, *words, "--to", "markdown")
    assert out.startswith("| measure | vae | gan |") and "Holm's correction" in out
    assert str(tmp_path / "c.html") in "".join(said.split())
    assert "FID floor" not in out and "| Recall" in out
    only = call(capsys, monkeypatch, *words, "--to", "markdown", "--only", "fid,fid_floor")[0]
    assert re.findall(r"^\| (FID\w*(?: floor)?)", only, flags=re.M) == ["FID", "FID floor"]
    page = (tmp_path / "c.html").read_text("utf-8")
    fid = re.search(r"^\| FID ↓ \| \**([\d.,]+)", out, flags=re.M)
    assert fid and fid[1] in page


def words_of(module: str) -> str:
    text = unicodedata.normalize("NFKD", inspect.getdoc(import_module(module)) or "")
    return text.encode("ascii", "ignore").decode()


def test_every_reference_is_named_where_it_is_used() -> None:
    known = {"loss": set(LOSSES), "optimizer": set(OPTIMIZERS), "data": set(SOURCES)}
    options = {name for model in MODELS.values() for name in model.Options.model_fields}
    for reference in references():
        author = re.search(r"author = \{([^,]+),", reference.entry)[1]
        surname = re.sub(r"\\o\b|\{\\o\}", "o", author)
        surname = re.sub(r"\\['\"]|[{}]", "", surname).replace("\\l", "l")
        for use in reference.uses:
            kind, _, name = use.partition(":")
            if kind in ("model", "measure"):
                package = "models" if kind == "model" else "evaluation"
                if name in ("general",):
                    continue
                assert surname.split()[-1] in words_of(f"zeuxis.{package}.{name}"), (use, surname)
            elif kind in known:
                assert name in known[kind], use
            elif kind in ("option", "value"):
                assert name.partition("=")[0] in options, use
            else:
                assert use in ("judge:efficientnet", "judge:inception")
    cited = {use for reference in references() for use in reference.uses}
    for name, model in MODELS.items():
        module = model.__module__
        if module.startswith("zeuxis") and "Source" in words_of(module):
            assert f"model:{module.rpartition('.')[2]}" in cited, f"{name} names a source, and `zeuxis cite` does not"


def test_a_run_cites_what_it_uses(
    trained: dict[str, Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(text: str) -> set[str]:
        return set(re.findall(r"^@\w+\{(\w+),", text, flags=re.M))

    assert keys(call(capsys, monkeypatch, "cite")[0]) == {"zeuxis"}
    run = trained["vae"]
    evaluate(run, samples=100, only=["kid"], progress=False)
    cited = keys(call(capsys, monkeypatch, "cite", run.path)[0])
    assert {"zeuxis", "kingma2014auto", "alpaydin1998optical", "binkowski2018demystifying"} <= cited
    assert not {"higgins2017beta", "goodfellow2014gan"} & cited
    changed = Run(run.path)
    changed.model.options = changed.model.options.model_copy(update={"kl_weight": 4.0})
    assert "option:kl_weight" in uses(changed) and "higgins2017beta" in keys(bibtex(changed))
    assert {"mirza2014conditional", "goodfellow2014gan"} <= keys(bibtex(trained["cgan"]))


@pytest.mark.parametrize(("form", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_as_vector_graphics(trained: dict[str, Run], form: str, start: bytes) -> None:
    paths = draw_all(trained["vae"], only=["samples", "losses"], form=form, progress=False)
    assert [path.suffix for path in paths.values()] == [f".{form}"] * 2
    assert all(path.read_bytes().startswith(start) for path in paths.values())


def test_a_small_table_has_the_main_measures_or_those_that_are_named() -> None:
    def row(name: str, better: str, *values: float) -> Row:
        cells = tuple(Cell(Value(value, 0.25, 10), 1, False) for value in values)
        return Row(name, "", better, None, cells)

    rows = (row("psnr", "high", 20, 30), row("test_mse", "low", 0.5, 0.25), row("fid", "low", 3, 4))
    table = Table(("a", "b"), ((0,), (0,)), rows, "")
    assert brief(table) == [
        ("", "fid ↓", "test mse ↓"),
        ("a", "3.00 ± 0.25", "0.50 ± 0.25"),
        ("b", "4.00 ± 0.25", "0.25 ± 0.25"),
    ]
    assert brief(table, ["psnr"]) == [("", "psnr ↑"), ("a", "20.00 ± 0.25"), ("b", "30.00 ± 0.25")]
