"""Four samples, large, for models whose images deserve it."""

from __future__ import annotations

from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

LARGE = 128


@figure(
    "large",
    "Four large samples",
    "The first four samples, one pixel of theirs at least one of the screen's.",
    order=1,
    applies=lambda run: run.generates and run.recipe.data.size >= LARGE,
)
def large(run: Run) -> Figure:
    drawn = new_figure(10.4, 3.2)
    show_tiles(drawn.subplots(), run.sample(4), 4, gap=4)
    title(drawn, run, "Four large samples")
    return drawn
