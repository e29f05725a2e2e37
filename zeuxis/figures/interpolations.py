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
        if names and run.conditional:
            start, end = names[row % len(names)], names[(row + 1) % len(names)]
            labels.append(f"{start} to {end}")
        elif run.conditional:
            parts, scales = run.model.conditions.parts, run.model.conditions.scales
            name, (mean, deviation) = parts[row % len(parts)], scales[row % len(parts)]
            start, end = (f"{name}={mean + side * deviation:.3g}" for side in (-1.5, 1.5))
            labels.append(f"{start} to {end.removeprefix(f'{name}=')}")
        else:
            start, end = str(2 * row + 1), str(2 * row + 2)
        rows.append(run.interpolate(start, end, steps=STEPS, seed=row + 1))
    fig = new_figure(0.78 * STEPS + (1.2 if labels else 0.3), 0.78 * ROWS + 0.8)
    show_tiles(fig.subplots(), np.concatenate(rows), STEPS, rows=labels)
    title(fig, run, "Interpolations")
    return fig
