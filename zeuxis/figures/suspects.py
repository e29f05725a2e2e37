"""The samples nearest to training images, beside them; and the same of held-out images, as near as new images come."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.evaluation import nearest_images
from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

SHOWN = 10


@figure(
    "suspects",
    "Suspected copies",
    "Of many samples the ten nearest to a training image, above it; below, the ten held-out images nearest to one. "
    "Pairs above that are more alike than those below were learned by heart.",
    order=9,
    applies=lambda run: run.generates,
)
def suspects(run: Run, samples: int = 500) -> Figure:
    drawn = new_figure(0.85 * SHOWN + 1.2, 0.85 * 4 + 1.0)
    rows = []
    for images in (run.sample(samples, seed=3), run.images(run.choose_images("test", samples))):
        indices, distances = nearest_images(run, images)
        nearest = np.argsort(distances[:, 0])[:SHOWN]
        rows += [images[nearest], run.images(indices[nearest, 0])]
        rows[-2:] = [np.concatenate([each, np.ones((SHOWN - len(each), *each.shape[1:]))]) for each in rows[-2:]]
    labels = ["samples", "nearest\ntraining image", "held-out images", "nearest\ntraining image"]
    show_tiles(drawn.subplots(), np.concatenate(rows), SHOWN, rows=labels)
    title(drawn, run, f"The nearest of {samples:,} samples to training images")
    return drawn
