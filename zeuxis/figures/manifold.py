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
    drawn = new_figure(7.2, 7.8)
    show_tiles(drawn.subplots(), run.decode(latents), SIDE, gap=0)
    title(drawn, run, "Latent manifold")
    return drawn
