"""Unsupervised directions in latent space, each followed from one image."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.latent import directions as find_directions
from zeuxis.latent import has_directions
from zeuxis.run import Run

STEPS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


@figure(
    "directions",
    "Directions",
    "Each row follows one principal direction of latent space from the same image, by so many standard deviations. Its "
    "number is that of `zeuxis edit --direction`, beside its share of the variance.",
    order=8,
    applies=has_directions,
)
def directions(run: Run, count: int = 8) -> Figure:
    """Draws the first directions.

    Args:
        run: what to draw.
        count: number of directions.
    """
    found = find_directions(run)
    vectors = found.vectors[:count]
    start, condition = run.latents(1), run.in_turn(1)
    if run.encodes:  # where a model encodes images is not always where its prior has them
        chosen = run.choose_images("test", 1)
        condition = run.condition_of_labels(run.labels(chosen))
        start = run.encode(run.images(chosen), condition)
    latents = (start + np.array(STEPS, np.float32)[:, None] * vectors[:, None]).reshape(-1, start.shape[1])
    images = run.decode(latents, None if condition is None else np.repeat(condition, len(latents), axis=0))
    fig = new_figure(0.9 * len(STEPS) + 1.3, 0.9 * len(vectors) + 1.0)
    names = [f"{number}   {share:.0%}" for number, share in enumerate(found.shares[:count], 1)]
    show_tiles(fig.subplots(), images, len(STEPS), rows=names, heads=[f"{step:+g}" if step else "0" for step in STEPS])
    title(fig, run, f"Principal directions of the {found.of}")
    return fig
