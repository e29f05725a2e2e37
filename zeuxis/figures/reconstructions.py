"""Test images above their reconstructions."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.evaluation import mean_squared_error
from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

SHOWN = 10


@figure(
    "reconstructions",
    "Reconstructions",
    "Held-out images above their reconstructions. The error in the title is the mean over all held-out images.",
    order=4,
    applies=lambda run: run.encodes and run.generates,
)
def reconstructions(run: Run) -> Figure:
    all_images, labels = run.test_images()
    error = mean_squared_error(all_images, run.reconstruct(all_images, run.condition_of_labels(labels)))
    images, labels = run.test_images(SHOWN)
    fig = new_figure(0.9 * len(images) + 1.0, 2.7)
    tiles = np.concatenate([images, run.reconstruct(images, run.condition_of_labels(labels))])
    show_tiles(fig.subplots(), tiles, len(images), rows=["test image", "reconstruction"])
    title(fig, run, f"Reconstructions, test MSE {error:.6f}")
    return fig
