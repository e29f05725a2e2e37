"""How runs and their measures show themselves in a notebook: pictures, curves and numbers.

Jupyter asks an object for `_repr_html_`; a run's method of that name calls `page`.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from zeuxis.errors import UserError, one_of, require_whole
from zeuxis.evaluation.evaluate import read_evaluation
from zeuxis.evaluation.measure import Value, by_name, with_error
from zeuxis.evaluation.verdict import training_state
from zeuxis.figures import FIGURES, kinds
from zeuxis.figures.registry import checked_options
from zeuxis.figures.style import STYLE, new_figure, show_tiles, title, write
from zeuxis.run import Run

__all__ = ["Evaluation", "draw", "page", "show"]

# Samples that a run shows, and columns that they stand in.
SHOWN, COLUMNS, MOST_COLUMNS = 32, 16, 100


def draw(run: Run, name: str, options: dict[str, Any]) -> Figure:
    """Returns one of a run's figures.

    Args:
        run: the run.
        name: of the figure, as `zeuxis figures` prints it.
        options: of the figure.

    Raises:
        UserError: for a figure that does not apply to the run, or an option that it does not have.
    """
    applying = [kind.name for kind in kinds() if kind.applies(run)]
    if name not in applying:
        raise one_of(f"figure of {run.name}", name, applying)
    kind = FIGURES[name]
    options = checked_options(options, kind.options)
    with mpl.rc_context(STYLE):
        return kind.draw(run, **options)


def show(run: Run, count: int = SHOWN, columns: int = COLUMNS, seed: int = 1) -> Figure:
    """Returns a figure of samples.

    Args:
        run: the run.
        count: number of samples.
        columns: samples in a row.
        seed: of their latents.

    Raises:
        UserError: if it makes no images.
    """
    if not run.generates:
        raise UserError(f"{run.path} makes no images: model '{run.recipe.model.name}'.")
    require_whole("The number of columns", columns, 1, MOST_COLUMNS)
    images = run.sample(count, seed=seed)
    columns = min(columns, count)
    with mpl.rc_context(STYLE):
        fig = new_figure(0.6 * columns, 0.6 * -(-count // columns) + 0.7)
        show_tiles(fig.subplots(), images, columns)
        title(fig, run, "Samples")
    return fig


def page(run: Run) -> str:
    """Returns HTML of a run: how far it is, samples, losses, and what was measured."""
    recipe = run.recipe
    parts = [
        f"<b>{html.escape(run.name)}</b>: {html.escape(recipe.description or recipe.name)} "
        f"(model {recipe.model.name}, step {run.step:,}, seed {recipe.training.seed})"
    ]
    parts += [f"<p>{html.escape(sentence)}</p>" for sentence in training_state(run)]
    if run.trained and run.generates:
        parts.append(_picture(lambda: show(run)))
    if FIGURES["losses"].applies(run):
        parts.append(_picture(lambda: draw(run, "losses", {})))
    if evaluation := read_evaluation(run):
        parts.append(_table(evaluation))
    return "\n".join(parts)


class Evaluation(dict[str, Any]):
    """What was measured of a run, as `evaluation.json` has it; in a notebook, a table."""

    def _repr_html_(self) -> str:
        return _table(self)


def _table(evaluation: dict[str, Any]) -> str:
    definitions = by_name()
    rows = []
    for name, value in evaluation["measures"].items():
        meaning = definitions[name].gives[name] if name in definitions else ""
        rows.append(
            f"<tr><td>{html.escape(name)}</td><td>{with_error(Value(**value))}</td>"
            f"<td style='text-align:left'>{html.escape(meaning)}</td></tr>"
        )
    return f"<table><tr><th>measure</th><th>value</th><th>what it is</th></tr>{''.join(rows)}</table>"


def _picture(draw_it: Callable[[], Figure]) -> str:
    buffer = BytesIO()
    write(draw_it, buffer)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" style="max-width:100%" src="data:image/png;base64,{encoded}">'
