"""A grid of samples."""

from __future__ import annotations

from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run


@figure(
    "samples",
    "Samples",
    "New images from random latents, not chosen; a conditional model is asked for its classes in turn.",
    order=1,
    applies=lambda run: run.generates,
)
def samples(run: Run) -> Figure:
    drawn = new_figure(7, 7.6)
    show_tiles(drawn.subplots(), run.sample(64), 8)
    title(drawn, run, "Samples")
    return drawn
