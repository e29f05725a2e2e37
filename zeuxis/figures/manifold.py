"""The latent manifold: decoded images of a regular grid in a two-dimensional latent space.

Grid points are quantiles of the normal prior, so equal areas of the picture are equally probable.

Source: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, ICLR 2014, figure 4.
"""

from __future__ import annotations

import numpy as np
import scipy
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

SIDE = 20


@figure(
    "manifold",
    "Latent manifold",
    "The decoded latent plane, in equal steps of probability. Where it is smooth, neighbours look alike.",
    order=5,
    applies=lambda run: run.generates and run.encodes and run.latent_size == 2 and not run.conditional,
)
def manifold(run: Run) -> Figure:
    places = scipy.special.ndtri((np.arange(SIDE) + 0.5) / SIDE)
    # The first latent runs to the right, the second upwards, as in the scatter of latents.
    latents = np.array([(x, y) for y in places[::-1] for x in places], np.float32)
    fig = new_figure(7.4, 8.0)
    ax = fig.subplots()
    show_tiles(ax, run.decode(latents), SIDE, gap=0)
    tick_indices = np.linspace(0, SIDE - 1, 4).round().astype(int)
    width, height = run.recipe.data.size
    ax.set_xticks((tick_indices + 0.5) * width, labels=[f"{places[i]:.1f}" for i in tick_indices])
    ax.set_yticks((tick_indices + 0.5) * height, labels=[f"{places[-1 - i]:.1f}" for i in tick_indices])
    ax.tick_params(length=0)
    ax.set_xlabel("first latent")
    ax.set_ylabel("second latent")
    title(fig, run, "Latent manifold")
    return fig
