"""Executes the notebooks of the course, each in an empty folder, and writes them with their output: `make course`.

A source is a notebook as text, in the percent format of jupytext, and its notebook lies beside it. With names, as in
`python docs/make_course.py 2-kl-weight`, only these are executed.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

COURSE = Path(__file__).parent / "course"
# Longest run of a cell, in seconds.
PATIENCE = 1800


def sources() -> list[Path]:
    """Returns the sources in the order of the course."""
    return sorted(COURSE.glob("*.py"))


def unexecuted(source: Path) -> NotebookNode:
    """Returns a source as a notebook without output."""
    notebook = jupytext.read(source)
    notebook.metadata = nbformat.from_dict({
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    })  # fmt: skip
    for number, cell in enumerate(notebook.cells, 1):  # names that are the same each time
        cell.id = f"cell-{number}"
    return notebook


def executed(source: Path, folder: Path, change: Callable[[str], str] = str) -> NotebookNode:
    """Executes a source in a folder, without a data directory, and returns it with its output.

    It takes two threads, unless `OMP_NUM_THREADS` says otherwise.

    Args:
        source: the source.
        folder: where it runs.
        change: applied to the code of every cell, to try the notebook with less to train.
    """
    notebook = unexecuted(source)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = change(cell.source)
    metadata = copy.deepcopy(notebook.metadata)  # the execution adds the version of Python
    environment = {"OMP_NUM_THREADS": "2"} | os.environ | {"ZEUXIS_DATA": "", "ZEUXIS_RUNS": ""}
    client = NotebookClient(
        notebook, timeout=PATIENCE, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": folder}}
    )
    client.execute(env=environment)
    notebook.metadata = metadata
    return notebook


def main(names: Sequence[str]) -> None:
    """Executes and writes the notebooks of these names, or all."""
    if unknown := sorted({*names} - {source.stem for source in sources()}):
        sys.exit(f"There is no notebook '{unknown[0]}'; these are: {', '.join(source.stem for source in sources())}.")
    for source in sources():
        if names and source.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(source, Path(folder))
        nbformat.write(notebook, source.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
