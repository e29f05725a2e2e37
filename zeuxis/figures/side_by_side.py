"""Samples of several runs side by side, from the same seeds: two latent sizes, two models, two budgets."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from zeuxis.figures.style import heading, new_figure, show_tiles
from zeuxis.run import Run

__all__ = ["side_by_side"]

ROWS, COLUMNS = 5, 5
# Panels in a row.
MOST = 4


def side_by_side(runs: Sequence[Run], seed: int = 1) -> Figure:
    """Draws a panel of samples for each run that makes images, headed by its name and number of latents."""
    makers = [run for run in runs if run.generates]
    across = max(min(len(makers), MOST), 1)
    down = max(-(-len(makers) // across), 1)
    drawn = new_figure(3.9 * across, 0.6 + 4.3 * down)
    panels = drawn.subplots(down, across, squeeze=False).ravel()
    for ax in panels[len(makers) :]:
        ax.set_axis_off()
    for ax, run in zip(panels, makers, strict=False):
        show_tiles(ax, run.sample(ROWS * COLUMNS, seed=seed), COLUMNS)
        ax.set_title(f"{run.name}\n{run.latents(1).shape[1]} latents, step {run.step:,}", fontsize=9.5)
    heading(drawn, "Samples side by side", f"from the same seed, {seed}; not chosen")
    return drawn
