"""Samples with the training images nearest to them, which would reveal copies."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.evaluation import nearest_images
from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

SHOWN, NEAREST = 10, 3


@figure(
    "neighbours",
    "Nearest training images",
    "Samples above the three training images nearest to each in pixels. A sample that equals one is a copy.",
    order=9,
    applies=lambda run: run.generates,
)
def neighbours(run: Run) -> Figure:
    samples = run.sample(SHOWN, seed=2)
    indices, _ = nearest_images(run, samples, NEAREST)
    count = indices.shape[1]  # fewer where there are fewer training images
    rows = [run.images(indices[:, k]) for k in range(count)]
    fig = new_figure(0.85 * SHOWN + 1.0, 0.85 * (count + 1) + 0.9)
    labels = ["sample", *["nearest", "second", "third"][:count]]
    show_tiles(fig.subplots(), np.concatenate([samples, *rows]), SHOWN, rows=labels)
    title(fig, run, "Nearest training images")
    return fig
