"""Gradient norms of every phase: bursts or vanishing norms announce trouble before the samples show it."""

from __future__ import annotations

from matplotlib.figure import Figure

from zeuxis.figures.losses import draw_curve
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, logarithmic, mark_changes, new_figure, title
from zeuxis.run import Run


@figure(
    "gradients",
    "Gradient norms",
    "The norm of each phase's gradient, at every journal line.",
    order=25,
    applies=lambda run: any(len(run.series(term)[0]) > 1 for term in run.names_of("gradient")),
)
def gradients(run: Run) -> Figure:
    fig = new_figure(7.4, 3.1)
    ax = fig.subplots()
    for i, term in enumerate(run.names_of("gradient")):
        steps, values = run.series(term)
        draw_curve(ax, steps, values, LINES[i % len(LINES)], term.split("/")[0])
    logarithmic(ax, "y")
    ax.set_xlabel("step")
    mark_changes(ax, run)
    ax.legend(loc="best", fontsize=9)
    title(fig, run, "Gradient norms")
    return fig
