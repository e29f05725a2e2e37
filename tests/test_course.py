"""The notebooks of the course run, and those that are committed are what comes of their sources."""

from __future__ import annotations

import base64
import re
import runpy
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the course needs pip install 'zeuxis[course]'")
pytest.importorskip("jupytext", reason="the course needs pip install 'zeuxis[course]'")

ROOT = Path(__file__).parents[1]
COURSE = runpy.run_path(str(ROOT / "docs" / "make_course.py"))
SOURCES = COURSE["sources"]()
# Bytes of the largest picture in a notebook.
LARGEST = 400_000


def test_there_are_six_notebooks_and_the_index_names_them() -> None:
    assert len(SOURCES) == 6
    index = (ROOT / "docs" / "course" / "index.md").read_text("utf-8")
    for source in SOURCES:
        assert f"({source.stem}.ipynb)" in index and f"\n{source.stem}\n" in index


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_comes_from_its_source(source: Path) -> None:
    notebook, expected = nbformat.read(source.with_suffix(".ipynb"), 4), COURSE["unexecuted"](source)
    nbformat.validate(notebook)
    cells = [[(cell.cell_type, cell.source) for cell in each.cells] for each in (notebook, expected)]
    assert cells[0] == cells[1], f"{source.stem}.ipynb is out of date: run `make course`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_was_executed_whole_and_shows_it(source: Path) -> None:
    cells = nbformat.read(source.with_suffix(".ipynb"), 4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}, "no error"
    assert not [output.text for output in outputs if output.get("name") == "stderr"], "no progress, no warnings"
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2
    assert max(len(base64.b64decode(picture)) for picture in pictures) < LARGEST


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_has_mathematics_and_three_exercises_with_hints(source: Path) -> None:
    text = "\n\n".join(cell.source for cell in COURSE["unexecuted"](source).cells if cell.cell_type == "markdown")
    assert "$$" in text
    exercises, details = text.partition("## Exercises")[2].split("<details>")
    hints = details.partition("</details>")[0]
    for part in (exercises, hints):
        assert re.findall(r"^(\d)\. ", part, flags=re.M) == ["1", "2", "3"]


# Where a cell says how long is trained.
BUDGET = re.compile(r'(steps=|epochs=|minutes=|STEPS, SEEDS = |"training\.epochs": )(\d[\d.]*)')


def shortened(code: str) -> str:
    """Returns the code of a cell with a sixth of its training; `make course` trains all of it."""

    def less(match: re.Match[str]) -> str:
        number = float(match[2])
        if match[1] == "steps=" and number < 100:  # steps of a way, not of a training
            return match[0]
        return f"{match[1]}{number / 6:.{0 if number > 6 else 3}f}"

    return BUDGET.sub(less, code)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_runs_from_an_empty_folder(source: Path, tmp_path: Path) -> None:
    notebook = COURSE["executed"](source, tmp_path, shortened)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert list((tmp_path / "runs").iterdir())
