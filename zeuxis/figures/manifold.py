"""The latent manifold: what the decoder makes of a regular grid over a two-dimensional latent space.

Places are quantiles of the normal prior, so equal areas of the picture are equally likely samples.

Source: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, ICLR 2014, figure 4.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

SIDE = 20


@figure(
    "manifold",
    "Latent manifold",
    "The decoded latent plane, at equal steps of probability: neighbours look alike where it is smooth.",
    order=5,
    applies=lambda run: run.generates and run.encodes and run.latents(1).shape[1] == 2 and not run.conditional,
)
def manifold(run: Run) -> Figure:
    places = norm.ppf((np.arange(SIDE) + 0.5) / SIDE)
    # The first latent runs to the right, the second upwards, as in the scatter of latents.
    latents = np.array([(x, y) for y in places[::-1] for x in places], np.float32)
    drawn = new_figure(7.4, 8.0)
    ax = drawn.subplots()
    show_tiles(ax, run.decode(latents), SIDE, gap=0)
    marked = np.linspace(0, SIDE - 1, 4).round().astype(int)
    middles = (marked + 0.5) * run.recipe.data.size
    ax.set_xticks(middles, labels=[f"{places[i]:.1f}" for i in marked])
    ax.set_yticks(middles, labels=[f"{places[-1 - i]:.1f}" for i in marked])
    ax.tick_params(length=0)
    ax.set_xlabel("first latent")
    ax.set_ylabel("second latent")
    title(drawn, run, "Latent manifold")
    return drawn
