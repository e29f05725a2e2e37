"""Latent arithmetic: the direction of an attribute, added to encoded images that lack it.

The direction is the mean latent of training images with the attribute minus that of those without.

Source: A. Radford, L. Metz and S. Chintala, Unsupervised Representation Learning with DCGANs, ICLR 2016,
section 6.3.2; for encoders, A. B. L. Larsen et al., ICML 2016, section 4.1.1.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import choose_attribute, new_figure, show_tiles, title
from zeuxis.latent import attribute_direction
from zeuxis.run import Run

ROWS = 5
STRENGTHS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0)
# Default attributes, tried in turn: those that faces show most clearly.
PREFERRED = ("Smiling", "Male", "Eyeglasses")


@figure(
    "arithmetic",
    "Latent arithmetic",
    "Held-out images without the attribute are encoded, moved along its direction by the factor above, and decoded.",
    order=8,
    applies=lambda run: run.encodes and run.generates and not run.conditional and bool(run.attributes),
)
def arithmetic(run: Run, attribute: str = "") -> Figure:
    name = attribute or choose_attribute(run, *PREFERRED)
    direction = attribute_direction(run, name)
    indices = run.choose_images("test")
    images = run.images(indices[~run.attribute(name, indices)][:ROWS])
    latents = run.encode(images)
    moved = np.stack([latents + strength * direction for strength in STRENGTHS], axis=1)
    decoded = run.decode(moved.reshape(-1, latents.shape[1])).reshape(len(images), len(STRENGTHS), *images.shape[1:])
    tiles = np.concatenate([images[:, None], decoded], axis=1).reshape(-1, *images.shape[1:])
    fig = new_figure(1.0 * (len(STRENGTHS) + 1) + 0.3, 1.0 * len(images) + 1.0)
    show_tiles(fig.subplots(), tiles, len(STRENGTHS) + 1, heads=["image", *[f"{s:+g}" for s in STRENGTHS]])
    title(fig, run, f"Latent arithmetic: {name}")
    return fig
