"""Latent arithmetic: the direction of an attribute, added to encoded images that lack it.

The direction is the mean latent of training images with the attribute minus that of those without.

Source: A. Radford, L. Metz and S. Chintala, Unsupervised Representation Learning with DCGANs, ICLR 2016,
section 6.3.2; for encoders, A. B. L. Larsen et al., ICML 2016, section 4.1.1.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.errors import UserError
from zeuxis.figures.registry import figure
from zeuxis.figures.style import choose_attribute, new_figure, show_tiles, title
from zeuxis.run import Run

ROWS, MEASURED = 5, 4000
STRENGTHS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0)
# Tried in turn where none is named: what a face shows most clearly.
PREFERRED = ("Smiling", "Male", "Eyeglasses")


@figure(
    "arithmetic",
    "Latent arithmetic",
    "Held-out images without the attribute, encoded, moved along its direction by the factor above, and decoded.",
    order=8,
    applies=lambda run: run.encodes and run.generates and not run.conditional and bool(run.attributes),
)
def arithmetic(run: Run, attribute: str = "") -> Figure:
    name = attribute or choose_attribute(run, *PREFERRED)
    direction = attribute_direction(run, name)
    tested = run.choose_images("test")
    shown = run.images(tested[~run.attribute(name, tested)][:ROWS])
    latents = run.encode(shown)
    moved = np.stack([latents + strength * direction for strength in STRENGTHS], axis=1)
    made = run.decode(moved.reshape(-1, latents.shape[1])).reshape(len(shown), len(STRENGTHS), *shown.shape[1:])
    tiles = np.concatenate([shown[:, None], made], axis=1).reshape(-1, *shown.shape[1:])
    drawn = new_figure(1.0 * (len(STRENGTHS) + 1) + 0.3, 1.0 * len(shown) + 1.0)
    show_tiles(drawn.subplots(), tiles, len(STRENGTHS) + 1, heads=["image", *[f"{s:+g}" for s in STRENGTHS]])
    title(drawn, run, f"Latent arithmetic: {name}")
    return drawn


def attribute_direction(run: Run, name: str) -> np.ndarray:
    """Mean latent of training images with an attribute minus that of those without, `(Z,)`.

    Raises:
        UserError: if the data has no such attribute, or no image with or none without it.
    """
    measured = run.choose_images("train", MEASURED)
    has = run.attribute(name, measured)
    if has.all() or not has.any():
        raise UserError(f"All images agree on the attribute {name}, so it has no direction in latent space.")
    latents = run.encode(run.images(measured))
    direction: np.ndarray = latents[has].mean(axis=0) - latents[~has].mean(axis=0)
    return direction
