"""A grid of samples."""

from __future__ import annotations

from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run


@figure(
    "samples",
    "Samples",
    "New images from random latents, uncurated. A conditional model generates its classes in turn.",
    order=1,
    applies=lambda run: run.generates,
)
def samples(run: Run) -> Figure:
    fig = new_figure(7, 7.6)
    show_tiles(fig.subplots(), run.sample(64), 8)
    title(fig, run, "Samples" if run.candidates == 1 else f"Samples, each the best of {run.candidates}")
    return fig
