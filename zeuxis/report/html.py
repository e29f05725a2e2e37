"""Reports as single HTML files: pictures are embedded, there are no scripts, and nothing is loaded from the network."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from html import escape
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from zeuxis.errors import StoppedError, UserError, require_within
from zeuxis.evaluation import Cost, cost
from zeuxis.evaluation.evaluate import FEWEST, evaluate_cached, read_evaluation
from zeuxis.evaluation.measure import error_as_text, figure_as_text
from zeuxis.evaluation.ranking import Row, conclusions, mean_ranks, pooled, ranked, unvaried
from zeuxis.evaluation.verdict import training_state, verdict
from zeuxis.figures import FIGURES, draw_all, kinds
from zeuxis.figures.side_by_side import side_by_side
from zeuxis.figures.style import write
from zeuxis.figures.trade_off import Point, trade_off
from zeuxis.files import path_part, require_output, write_file
from zeuxis.guide import origin_in_words
from zeuxis.progress import say
from zeuxis.report.table import Table, render
from zeuxis.run import MOST_LATENTS, Run

__all__ = ["Comparison", "comparison", "live_page", "reproduction", "run_report"]


class Comparison(NamedTuple):
    """Runs side by side: the path of the report, its table of measures, and sentences that say which runs lead."""

    path: Path
    table: Table
    verdict: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        words = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.verdict)
        return f"{words}{render(self.table, 'html')}<p>The whole report: {escape(str(self.path))}</p>"


@dataclass(frozen=True)
class Column:
    """One run, in the form that the templates show."""

    run: Run
    label: str
    cost: Cost
    figures: dict[str, str]
    test_mse: float | None
    final: dict[str, float]


def run_report(run: Run, out: Path | None = None) -> Path:
    """Draws a run's figures and writes its report, with its latest evaluation.

    Args:
        run: the run to report on.
        out: the HTML file; by default `report.html` in the run's folder.

    Returns:
        The path of the report.
    """
    path = require_output(out or run.path / "report.html")
    evaluation = read_evaluation(run)
    sentences = [*(verdict(run, evaluation) if evaluation else []), *training_state(run)]
    return _write(
        "run.html", path, verdict=sentences, column=_column(run, run.name), rows=ranked([evaluation]),
        samples=evaluation["samples"] if evaluation else 0, left_out=evaluation["left_out"] if evaluation else {},
    )  # fmt: skip


def live_page(run: Run, line: str, *, renew: int | None) -> Path:
    """Writes `live.html` into the folder of a run that is being trained: its losses and its newest snapshot.

    Args:
        run: the run, opened anew for every call, as it reads its journal once.
        line: how far it is.
        renew: seconds after which a browser loads the page again; None once the training has ended.
    """
    losses = FIGURES["losses"]
    snapshots = sorted((run.path / "snapshots").glob("step-*.png"))
    return _write(
        "live.html", run.path / "live.html", run=run, line=line, renew=renew,
        losses=_picture(partial(losses.draw, run)) if losses.applies(run) else "",
        snapshot=_encoded(snapshots[-1]) if snapshots else "",
        step=int(snapshots[-1].stem.removeprefix("step-")) if snapshots else 0,
    )  # fmt: skip


def comparison(
    runs: Sequence[Run | Sequence[Run]],
    out: Path | None = None,
    *,
    samples: int = 2000,
    labels: Sequence[str] = (),
    heading: str = "",
    notes: Sequence[str] = (),
    drawn: Sequence[Callable[[], Figure]] = (),
) -> Comparison:
    """Measures several runs, draws their figures, and writes a report that compares them side by side.

    Args:
        runs: at least two. A run may be replaced by its repeats, which differ in their seed and share a column.
        out: the HTML file; by default `compare-NAMES.html` beside the first run.
        samples: images that each run generates for the measures; existing evaluations of as many are reused.
        labels: headings of the columns; by default names of runs, or of the recipe that several runs repeat.
        heading: of the page; by default the labels.
        notes: sentences below it.
        drawn: functions that draw further pictures, which come first.

    Raises:
        UserError: for fewer than two runs.
    """
    require_within("The number of samples", samples, FEWEST, MOST_LATENTS)
    groups = [[run] if isinstance(run, Run) else list(run) for run in runs]
    first_runs, all_runs = [group[0] for group in groups], [run for group in groups for run in group]
    if len(groups) < 2:
        raise UserError(f"A comparison needs at least two runs, not {len(groups)}.")
    if len({run.path.resolve() for run in all_runs}) < len(all_runs):
        raise UserError("A comparison needs different runs, and one was named twice. Name each run once.")
    path = out or first_runs[0].path.parent / path_part(f"compare-{'-'.join(run.name for run in first_runs)}")
    path = path.with_name(path.name.removesuffix(".html") + ".html") if path.name else path
    require_output(path, ".html")
    if not labels:
        recipes = Counter(run.recipe.name for run in first_runs)
        labels = [
            run.recipe.name if len(group) > 1 and recipes[run.recipe.name] == 1 else run.name
            for group, run in zip(groups, first_runs, strict=True)
        ]
    rows = ranked([pooled([_evaluation(run, samples) for run in group]) for group in groups])
    columns = [_column(run, label) for run, label in zip(first_runs, labels, strict=True)]
    pictures = list(drawn)
    if sum(run.generates for run in first_runs) > 1:
        pictures.append(partial(side_by_side, first_runs))
    sentences = conclusions(rows, labels)
    _write(
        "compare.html", path, columns=columns, rows=rows, verdict=sentences,
        heading=heading or " · ".join(labels), notes=notes, pictures=[_picture(draw) for draw in pictures],
        ranks=mean_ranks(rows), unvaried=unvaried(rows, labels),
        trade_offs=_trade_offs(columns, rows), samples=samples, repeats=max(len(group) for group in groups),
    )  # fmt: skip
    return Comparison(path, Table.of(groups, labels, rows, samples, seed=0), tuple(sentences))


def reproduction(path: Path, *, plan: Any, sections: Sequence[dict[str, Any]], **context: Any) -> Path:
    """Writes the page of a reproduced report (`zeuxis.study.reproduce`), and returns its path."""
    for section in sections:
        section["figures"] = {name: _encoded(file) for name, file in section["figures"].items()}
    return _write("reproduction.html", path, plan=plan, sections=sections, **context)


def _encoded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()


def _evaluation(run: Run, samples: int) -> dict[str, Any] | None:
    """Returns a run's evaluation, from now or before; None where its data is not available."""
    try:
        return evaluate_cached(run, samples=samples)
    except StoppedError:
        raise
    except UserError as error:
        say(f"{run.name} is not measured: {error}")
        return None


def _trade_offs(columns: list[Column], rows: list[Row]) -> list[str]:
    """Draws distance against cost for each feature space in which several runs are measured."""
    pictures = []
    for row in rows:
        pairs = zip(columns, row.cells, strict=True)
        points = [
            Point(column.label, column.cost.seconds / 60, column.cost.parameters, *cell.value[:2])
            for column, cell in pairs
            if row.name == "fid" and cell.value and column.cost.seconds
        ]
        if len(points) > 1:
            pictures.append(_picture(partial(trade_off, points, row.features)))
    return pictures


def _picture(draw: Callable[[], Figure]) -> str:
    with BytesIO() as file:
        write(draw, file)
        return base64.b64encode(file.getvalue()).decode()


def _column(run: Run, label: str) -> Column:
    figures = {name: _encoded(path) for name, path in draw_all(run).items()}
    # The value for the weights shown, which may be the best rather than the last.
    test_errors = [line["test/mse"] for line in run.journal if line["step"] == run.step and "test/mse" in line]
    final = {name.removesuffix("/loss"): run.last(name) for name in run.names_of("loss")}
    return Column(run, label, cost(run), figures, test_errors[0] if test_errors else None, final)


def _write(template: str, path: Path, **context: Any) -> Path:
    environment = Environment(
        loader=PackageLoader("zeuxis", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "code": _with_code,
        "figure": figure_as_text,
        "origin": origin_in_words,
        "error": error_as_text,
        "duration": _duration,
        "shape": lambda sizes: " × ".join(map(str, sizes)),
    }
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    html = environment.get_template(template).render(kinds=kinds(), version=version("zeuxis"), now=now, **context)
    return write_file(path, html)


def _with_code(text: str) -> Markup:
    """Returns a sentence with what stands in backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", escape(text)))


def _duration(seconds: float) -> str:
    """Returns a duration as text: `45.0 s`, `3 min 20 s`, `2 h 05 min`."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{seconds:.1f} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"
