"""Interpolations: rows of images on the way between two latents or classes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

ROWS, STEPS = 6, 10


@figure(
    "interpolations",
    "Interpolations",
    "Each row goes in equal steps between two latents or, for a conditional model, between two classes at one latent.",
    order=3,
    applies=lambda run: run.generates,
)
def interpolations(run: Run) -> Figure:
    rows, labels = [], []
    names = run.model.class_names
    for row in range(ROWS):
        if run.conditional:
            start, end = names[row % len(names)], names[(row + 1) % len(names)]
            labels.append(f"{start} to {end}")
        else:
            start, end = str(2 * row + 1), str(2 * row + 2)
        rows.append(run.interpolate(start, end, steps=STEPS, seed=row + 1))
    fig = new_figure(0.78 * STEPS + (1.2 if labels else 0.3), 0.78 * ROWS + 0.8)
    show_tiles(fig.subplots(), np.concatenate(rows), STEPS, rows=labels)
    title(fig, run, "Interpolations")
    return fig
