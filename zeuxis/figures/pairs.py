"""Pairs of samples from the same noise, without and with an attribute."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import fitting, new_figure, show_tiles, title
from zeuxis.run import Run


@figure(
    "pairs",
    "Pairs",
    "Each column is one noise vector, generated as either class, or without an attribute (above) and with it (below).",
    order=2,
    applies=lambda run: run.generates and run.conditional and len(run.structure.class_names) == 2,
)
def pairs(run: Run, count: int = 10) -> Figure:
    names = list(run.model.class_names)
    latents = run.latents(count)
    tiles = np.concatenate([run.decode(latents, run.condition_of([name] * count)) for name in names])
    fig = new_figure(0.9 * count + 1.2, 2.9)
    show_tiles(fig.subplots(), tiles, count, rows=names)
    title(fig, run, f"Pairs from the same noise: {fitting(names[0], 24)}, {fitting(names[1], 24)}")
    return fig
