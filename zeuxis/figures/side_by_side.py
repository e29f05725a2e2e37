"""Samples of several runs side by side, from the same seed: two latent sizes, two models, two budgets."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from zeuxis.figures.style import heading, new_figure, show_tiles
from zeuxis.run import Run

__all__ = ["side_by_side"]

ROWS, COLUMNS = 5, 5
# Panels per row.
MOST = 4


def side_by_side(runs: Sequence[Run], seed: int = 1) -> Figure:
    """Draws a panel of samples for each run that generates images, with its name and number of latents."""
    generating = [run for run in runs if run.generates]
    columns = max(min(len(generating), MOST), 1)
    rows = max(-(-len(generating) // columns), 1)
    fig = new_figure(3.9 * columns, 0.6 + 4.3 * rows)
    panels = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in panels[len(generating) :]:
        ax.set_axis_off()
    for ax, run in zip(panels, generating, strict=False):
        show_tiles(ax, run.sample(ROWS * COLUMNS, seed=seed), COLUMNS)
        ax.set_title(f"{run.name}\n{run.latent_size} latents, step {run.step:,}", fontsize=9.5)
    heading(fig, "Samples side by side", f"from the same seed, {seed}; uncurated")
    return fig
