"""Codes swept over their values, with everything else fixed in a row."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.models import Code
from zeuxis.run import Run

ROWS, STEPS = 5, 10
# Continuous codes are drawn from -1..1 in training, and shown beyond it, as published.
REACH = 2.0


def sweep(run: Run, code: Code, rows: int = ROWS, seed: int = 1) -> tuple[np.ndarray, list[str]]:
    """Images of one code at each of its values, the rest of the latent vector fixed for each row.

    Returns:
        `(rows * values, H, W, C)` in 0..1, row by row, and what the values are.
    """
    latents = run.latents(rows, seed)
    if code.categorical:
        values, names = np.eye(code.size, dtype=np.float32), [str(i) for i in range(code.size)]
    else:
        values = np.linspace(-REACH, REACH, STEPS, dtype=np.float32)[:, None]
        names = [f"{value:.1f}" for value in values[:, 0]]
    swept = np.repeat(latents, len(values), axis=0)
    swept[:, code.start : code.start + code.size] = np.tile(values, (rows, 1))
    return run.decode(swept), names


@figure(
    "codes",
    "Codes",
    "Each panel sweeps one code over its values, a column each; noise and all other codes are fixed in a row.",
    order=2,
    applies=lambda run: run.generates and bool(run.codes),
)
def codes(run: Run) -> Figure:
    found = run.codes
    across = min(len(found), 2)
    down = -(-len(found) // across)
    drawn = new_figure(6.4 * across, (0.62 * ROWS + 0.6) * down + 0.6)
    axes = np.ravel(drawn.subplots(down, across, squeeze=False))
    for ax, code in zip(axes, found, strict=False):
        tiles, names = sweep(run, code)
        show_tiles(ax, tiles, len(names), heads=names)
        ax.set_title(code.name, pad=18)
    for ax in axes[len(found) :]:
        ax.set_axis_off()
    title(drawn, run, "Codes swept over their values")
    return drawn
