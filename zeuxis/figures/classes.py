"""A grid of samples by class, for conditional models."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

ROWS, MOST = 8, 12


@figure(
    "classes",
    "Samples by class",
    "Each column is a requested class, each row one latent. What stays the same along a row is style.",
    order=2,
    applies=lambda run: run.generates and run.conditional and len(run.structure.class_names) > 2,
)
def classes(run: Run) -> Figure:
    names = list(run.model.class_names[:MOST])
    latents = np.repeat(run.latents(ROWS), len(names), axis=0)
    tiles = run.decode(latents, np.tile(run.condition_of(names), (ROWS, 1)))
    fig = new_figure(0.78 * len(names) + 0.4, 0.78 * ROWS + 1.0)
    show_tiles(fig.subplots(), tiles, len(names), heads=names)
    title(fig, run, "Samples by class")
    return fig
