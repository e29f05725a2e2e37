"""The samples nearest to training images, beside them, and the nearest held-out images for comparison."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.evaluation import nearest_images
from zeuxis.figures.registry import figure
from zeuxis.figures.style import filled, new_figure, show_tiles, title
from zeuxis.run import Run

SHOWN = 10


@figure(
    "suspects",
    "Suspected copies",
    "Above: of many samples, the ten nearest to a training image, each over that image. Below: the same for as many "
    "held-out images. Samples that are closer to their training image than the held-out images are memorised.",
    order=9,
    applies=lambda run: run.generates,
)
def suspects(run: Run, samples: int = 500) -> Figure:
    fig = new_figure(0.85 * SHOWN + 1.2, 0.85 * 4 + 1.0)
    rows = []
    held_out = run.images(run.choose_images("test", samples))
    for images in (run.sample(len(held_out), seed=3), held_out):
        indices, distances = nearest_images(run, images)
        nearest = np.argsort(distances[:, 0])[:SHOWN]
        rows += [filled(images[nearest], SHOWN), filled(run.images(indices[nearest, 0]), SHOWN)]
    labels = ["samples", "nearest\ntraining image", "held-out images", "nearest\ntraining image"]
    show_tiles(fig.subplots(), np.concatenate(rows), SHOWN, rows=labels)
    title(fig, run, f"The nearest of {len(held_out):,} samples to training images")
    return fig
