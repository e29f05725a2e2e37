"""Four samples at full size, for models with large images."""

from __future__ import annotations

from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

LARGE = 128


@figure(
    "large",
    "Four large samples",
    "The first four samples, at full resolution.",
    order=1,
    applies=lambda run: run.generates and max(run.recipe.data.size) >= LARGE,
)
def large(run: Run) -> Figure:
    fig = new_figure(10.4, 3.2)
    show_tiles(fig.subplots(), run.sample(4), 4, gap=4)
    title(fig, run, "Four large samples")
    return fig
