"""A critic's estimate of the distance between real and generated images."""

from __future__ import annotations

from matplotlib.figure import Figure

from zeuxis.figures.losses import draw_curve, limits
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, mark_changes, new_figure, title
from zeuxis.run import Run


@figure(
    "critic",
    "The critic's estimate",
    "The critic's estimate of the Wasserstein distance between real and generated images. It should fall smoothly.",
    order=20,
    applies=lambda run: any(len(run.series(name)[0]) > 1 for name in run.names_of("distance")),
)
def critic(run: Run) -> Figure:
    series = [run.series(name) for name in run.names_of("distance")]
    fig = new_figure(7.4, 3.3)
    ax = fig.subplots()
    for colour, (steps, values) in zip(LINES, series, strict=False):
        draw_curve(ax, steps, values, colour)
    ax.set_ylim(*limits([values for _, values in series]))
    ax.set_xlabel("step")
    mark_changes(ax, run)
    title(fig, run, "The critic's estimate of the Wasserstein distance")
    return fig
