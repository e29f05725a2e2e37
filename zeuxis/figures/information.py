"""Mutual information between an image and the codes it was generated from."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from zeuxis.figures.losses import draw_curve
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, MUTED, mark_changes, new_figure, title
from zeuxis.run import Run


@figure(
    "information",
    "Information about the codes",
    "Lower bound of the mutual information of image and categorical codes, in nats. Dotted: the maximum.",
    order=21,
    applies=lambda run: any(len(run.series(name)[0]) > 1 for name in run.names_of("information")),
)
def information(run: Run) -> Figure:
    fig = new_figure(7.4, 3.3)
    ax = fig.subplots()
    ax.axhline(sum(math.log(code.size) for code in run.codes if code.categorical), color=MUTED, lw=1.0, ls=":")
    for name in run.names_of("information"):
        draw_curve(ax, *run.series(name), LINES[4])
    ax.set_xlabel("step")
    mark_changes(ax, run)
    ax.set_ylabel("nats")
    title(fig, run, "Information about the codes")
    return fig
