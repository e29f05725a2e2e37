"""Learning rates of a run whose schedule changes them."""

from __future__ import annotations

from matplotlib.figure import Figure

from zeuxis.figures.losses import phase_of
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, mark_changes, new_figure, title
from zeuxis.run import Run


@figure(
    "rates",
    "Learning rates",
    "The learning rate of each phase, as set by the recipe's schedule.",
    order=26,
    applies=lambda run: any(len(run.series(name)[0]) > 1 for name in run.names_of("rate")),
)
def rates(run: Run) -> Figure:
    fig = new_figure(7.4, 2.8)
    ax = fig.subplots()
    names = run.names_of("rate")
    for i, name in enumerate(names):
        ax.plot(*run.series(name), color=LINES[i % len(LINES)], lw=1.8, label=phase_of(name))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("step")
    mark_changes(ax, run)
    if len(names) > 1:
        ax.legend(loc="best", fontsize=9)
    title(fig, run, "Learning rates")
    return fig
