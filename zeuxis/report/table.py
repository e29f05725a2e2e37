r"""Tables of measures for papers, pages and programs: LaTeX, Markdown, HTML, CSV or JSON.

All have the rows of a report: a value with its standard error for each run, marked where it is surely the best. LaTeX,
Markdown and HTML are for readers: measures have their names in papers, values the digits that their errors allow, and
rows that describe the images alone are left out. CSV and JSON have one record for each value, without rounding. The
LaTeX table needs no package.
"""

from __future__ import annotations

import csv
import html
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from zeuxis.errors import one_of
from zeuxis.evaluation.measure import ARROWS, error_as_text, figure_as_text
from zeuxis.evaluation.ranking import Cell, Row, unvaried
from zeuxis.run import Run

__all__ = ["FORMATS", "Table", "brief", "methods", "render"]

# The measures that say most, and how many of them stand in a small table.
MAIN, MOST_BRIEF = ("fid", "test_mse", "sharpness", "elbo"), 3


@dataclass(frozen=True)
class Table:
    """Measures of several runs.

    Attributes:
        labels: headings of the columns.
        seeds: of the trainings behind each column.
        rows: the measures.
        methods: how they were measured, in sentences.
    """

    labels: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]
    methods: str

    def __str__(self) -> str:
        return render(self, "markdown")

    def _repr_html_(self) -> str:
        return _html(self)

    @classmethod
    def of(
        cls, groups: Sequence[Sequence[Run]], labels: Sequence[str], rows: Sequence[Row], samples: int, seed: int
    ) -> Table:
        """Returns the table of runs, grouped in repeats, that were measured with this many samples of this seed."""
        seeds = tuple(tuple(run.recipe.training.seed for run in group) for group in groups)
        return cls(tuple(labels), seeds, tuple(rows), methods(groups, labels, rows, samples, seed))


def methods(
    groups: Sequence[Sequence[Run]], labels: Sequence[str], rows: Sequence[Row], samples: int, seed: int
) -> str:
    """Returns sentences on how runs, grouped in repeats, were trained and measured."""
    runs = [run for group in groups for run in group]
    repeats = max(len(group) for group in groups)
    seeds = _listed(dict.fromkeys(str(run.recipe.training.seed) for run in runs))
    sentences = [f"{samples:,} samples of each training were measured, from latents of seed {seed}."]
    if features := dict.fromkeys(row.features for row in rows if row.features):
        sentences.append(f"Distances are in the features of {_listed(features)}.")
    if repeats > 1:
        sentences.append(
            f"Values are means over {repeats} trainings (seeds {seeds}), with the standard error from their spread."
        )
    else:
        plural = "s" if "," in seeds or " and " in seeds else ""
        sentences.append(
            f"Values are of one training each (seed{plural} {seeds}), with the standard error of measuring."
        )
    if len(groups) > 1:
        sentences.append("Bold: better than every other by Welch's t test with Holm's correction, at 5 %.")
        if one_image := unvaried(rows, labels):
            sentences.append(
                f"Never bold: {_listed(one_image)}, where all samples are one image (support below 2), which makes "
                "precision and path length look good."
            )
    data = dict.fromkeys(
        f"{Path(run.recipe.data.path).name or run.recipe.data.source} "
        f"({run.environment['data']['train_images']:,} training images)"
        for run in runs
    )
    versions = dict.fromkeys(
        f"Zeuxis {known.get('zeuxis', '?')} and PyTorch {known.get('torch', '?')}"
        for known in (run.environment["versions"] for run in runs)
    )
    sentences.append(f"Trained on {_listed(data)} with {_listed(versions)} on {_listed(_machines(runs))}.")
    return " ".join(sentences)


def _machines(runs: Sequence[Run]) -> list[str]:
    """Returns the GPUs and processors that runs were trained on, each once, a processor with its threads."""
    threads: dict[str, set[int]] = {}
    for machine in (run.environment for run in runs):
        numbers = threads.setdefault(machine.get("gpu") or machine["processor"], set())
        numbers |= set() if machine.get("gpu") else {machine["threads"]}
    return [
        name + (f", {' or '.join(map(str, sorted(numbers)))} thread{'s' * (max(numbers) > 1)}" if numbers else "")
        for name, numbers in threads.items()
    ]


def render(table: Table, form: str, only: Sequence[str] = ()) -> str:
    """Returns a table as text in one of `FORMATS`.

    Args:
        table: the table.
        form: the format.
        only: names of measures; empty for all, without those of the images alone where the table is for readers.

    Raises:
        UserError: for another format.
    """
    if form not in FORMATS:
        raise one_of("format of tables", form, FORMATS)
    rows = [row for row in table.rows if row.name in only or not (only or (form in FOR_READERS and _of_images(row)))]
    return FORMATS[form](replace(table, rows=tuple(rows)))


def _of_images(row: Row) -> bool:
    """Whether a measure describes the images, and is the same for all runs on them."""
    return row.name.endswith(("_floor", "_noise", "_images"))


def brief(table: Table, names: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Returns a few measures as text: a heading, then for each run its label and its values with their errors.

    Args:
        table: the measures.
        names: the measures to take; by default those of `MAIN` that it has.
    """
    rows = [row for name in names or MAIN for row in table.rows if row.name == name][:MOST_BRIEF]
    heads = [row.name.replace("_", " ") + ARROWS[row.better] for row in rows]
    columns = [[_in_words(cell, "{}") for cell in row.cells] for row in rows]
    return [("", *heads), *zip(table.labels, *columns, strict=True)]


def _latex(table: Table) -> str:
    names = [_escaped(name) for name in _names(table)]
    arrows = {"low": r" $\downarrow$", "high": r" $\uparrow$", "": ""}
    lines = [
        " & ".join([name + arrows[row.better], *(_latex_cell(cell) for cell in row.cells)]) + r" \\"
        for name, row in zip(names, table.rows, strict=True)
    ]
    heads = " & ".join(["", *map(_escaped, table.labels)])
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{_escaped(table.methods)}}}", r"\label{tab:measures}",
        rf"\begin{{tabular}}{{l{'r' * len(table.labels)}}}", r"\hline", rf"{heads} \\", r"\hline",
        *lines, r"\hline", r"\end{tabular}", r"\end{table}",
    ])  # fmt: skip


def _latex_cell(cell: Cell) -> str:
    if cell.value is None:
        return "--"
    number = figure_as_text(cell.value).replace("-", "$-$")
    bound = r"$\geq$ " if cell.value.at_least else ""
    error = "" if cell.value.stderr is None else rf" $\pm$ {error_as_text(cell.value.stderr)}"
    return bound + (rf"\textbf{{{number}}}" if cell.best else number) + error


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    lines = [line(["measure", *table.labels]), line(["---", *["---:"] * len(table.labels)])]
    lines += [
        line([name + ARROWS[row.better], *(_in_words(cell, "**{}**") for cell in row.cells)])
        for name, row in zip(_names(table), table.rows, strict=True)
    ]
    return "\n".join([*lines, "", table.methods])


def _html(table: Table) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"

    lines = [line("th", ["measure", *map(html.escape, table.labels)])]
    lines += [
        line("td", [html.escape(name) + ARROWS[row.better], *(_in_words(cell, "<b>{}</b>") for cell in row.cells)])
        for name, row in zip(_names(table), table.rows, strict=True)
    ]
    return f"<table>{''.join(lines)}</table>\n<p>{html.escape(table.methods)}</p>"


def _in_words(cell: Cell, bold: str) -> str:
    """Returns a value with its error; the best in bold, by a pattern."""
    if cell.value is None:
        return "–"
    number = figure_as_text(cell.value)
    error = "" if cell.value.stderr is None else f" ± {error_as_text(cell.value.stderr)}"
    return ("≥ " if cell.value.at_least else "") + (bold.format(number) if cell.best else number) + error


def _csv(table: Table) -> str:
    text = StringIO()
    records = _records(table)
    writer = csv.DictWriter(text, list(RECORD), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**record, "seeds": " ".join(map(str, record["seeds"]))} for record in records)
    return text.getvalue().rstrip("\n")


def _json(table: Table) -> str:
    return json.dumps({"methods": table.methods, "values": _records(table)}, indent=1)


# Keys of a record, in CSV and JSON.
RECORD = ("measure", "better", "features", "run", "seeds", "value", "stderr", "n", "at_least", "best", "meaning")


def _records(table: Table) -> list[Mapping[str, Any]]:
    return [
        {
            "measure": row.name, "better": row.better, "features": row.features or "", "run": label, "seeds": seeds,
            "value": cell.value.value, "stderr": cell.value.stderr, "n": cell.value.n, "at_least": cell.value.at_least,
            "best": cell.best, "meaning": row.meaning,
        }
        for row in table.rows
        for label, seeds, cell in zip(table.labels, table.seeds, row.cells, strict=True)
        if cell.value
    ]  # fmt: skip


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "latex": _latex, "markdown": _markdown, "html": _html, "csv": _csv, "json": _json,
}  # fmt: skip
FOR_READERS = ("latex", "markdown", "html")
# Abbreviations in the names of measures.
CAPITALS = ("dci", "elbo", "fid", "kid", "kl", "mig", "mib", "ms", "mse", "psnr", "ssim")


def _names(table: Table) -> list[str]:
    """Returns the names of the measures in papers, with the features where one is in the table in several."""
    count = Counter(row.name for row in table.rows)
    return [
        _in_papers(row.name) + (f" ({row.features or 'no features'})" if count[row.name] > 1 else "")
        for row in table.rows
    ]


def _in_papers(name: str) -> str:
    """Returns a measure's name as papers write it: `test_mse` as "Test MSE", `ms_ssim` as "MS-SSIM"."""
    text = " ".join(word.upper() if word in CAPITALS else word for word in name.split("_"))
    return (text[:1].upper() + text[1:]).replace("MS SSIM", "MS-SSIM")


SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(c, c) for c in text)


def _listed(words: Sequence[str] | Mapping[str, Any]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else str(last)
