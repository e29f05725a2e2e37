"""Worst jumps on the way between two latents: where a small step changes the image most."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, new_figure, show_tiles, title
from zeuxis.run import Run, slerp

STEPS, SHOWN = 12, 5


@figure(
    "jumps",
    "Worst jumps",
    "Of many ways between two latents, in equal steps, those with the largest change between neighbouring images "
    "(marked), and its ratio to the median change. A smooth model has no outstanding jumps.",
    order=8,
    # Codes are not points on a sphere: half of one digit and half of another has no meaning.
    applies=lambda run: run.generates and not run.codes,
)
def jumps(run: Run, ways: int = 60) -> Figure:
    one, two = run.latents(ways, 11), run.latents(ways, 12)
    places = np.stack(
        [[slerp(a, b, t) for t in np.linspace(0, 1, STEPS)] for a, b in zip(one, two, strict=True)]
    ).reshape(ways * STEPS, -1)
    images = run.decode(places, run.in_turn(ways, each=STEPS))  # a way keeps its class
    images_by_way = images.reshape(ways, STEPS, *images.shape[1:])
    steps = np.sqrt(np.square(np.diff(images_by_way, axis=1)).mean(axis=(2, 3, 4)))
    usual = float(np.median(steps))
    worst = np.argsort(-steps.max(axis=1))[:SHOWN]
    fig = new_figure(0.8 * STEPS + 0.9, 0.8 * len(worst) + 0.9)
    ax = fig.subplots()
    labels = [f"{steps[way].max() / max(usual, 1e-12):.1f} x" for way in worst]
    show_tiles(ax, images_by_way[worst].reshape(-1, *images.shape[1:]), STEPS, rows=labels)
    height, width = images.shape[1] + 1, images.shape[2] + 1
    for row, way in enumerate(worst):
        place = int(steps[way].argmax()) + 1
        ax.plot([place * width - 1] * 2, [row * height, (row + 1) * height - 1], color=LINES[1], lw=3)
    title(fig, run, f"Worst jumps on {ways} ways between latents")
    return fig
