"""What a critic says of the distance between real and generated images."""

from __future__ import annotations

from matplotlib.figure import Figure

from zeuxis.figures.losses import draw_curve, limits
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, new_figure, title
from zeuxis.run import Run

TERM = "discriminator/wasserstein_estimate"


@figure(
    "critic",
    "The critic's estimate",
    "The critic's estimate of the Wasserstein distance between real and generated images: it should fall smoothly.",
    order=20,
    applies=lambda run: len(run.series(TERM)[0]) > 1,
)
def critic(run: Run) -> Figure:
    steps, values = run.series(TERM)
    drawn = new_figure(7.4, 3.3)
    ax = drawn.subplots()
    draw_curve(ax, steps, values, LINES[0])
    ax.set_ylim(*limits([values]))
    ax.set_xlabel("step")
    title(drawn, run, "The critic's estimate of the Wasserstein distance")
    return drawn
