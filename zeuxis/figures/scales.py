"""The same latents at several scales: small scales give safe images, large ones exaggerate differences."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

SCALES = (0.5, 1.0, 1.5, 2.0, 3.0)
COLUMNS = 10


@figure(
    "scales",
    "Latents at several scales",
    "Each column is one latent vector, multiplied by the number of its row. 1 is the scale of training.",
    order=7,
    applies=lambda run: run.generates and not run.codes,
)
def scales(run: Run) -> Figure:
    tiles = np.concatenate([run.sample(COLUMNS, scale=scale) for scale in SCALES])
    fig = new_figure(0.78 * COLUMNS + 0.8, 0.78 * len(SCALES) + 0.8)
    show_tiles(fig.subplots(), tiles, COLUMNS, rows=[f"{scale:g}" for scale in SCALES])
    title(fig, run, "Latents at several scales")
    return fig
