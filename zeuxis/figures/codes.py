"""Codes swept over their values, with all other latents fixed in a row."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.models import Code
from zeuxis.run import Run

ROWS, STEPS = 5, 10
# Continuous codes are sampled from -1..1 in training and shown beyond that range, as published.
REACH = 2.0


def sweep(run: Run, code: Code, rows: int = ROWS, seed: int = 1) -> tuple[np.ndarray, list[str]]:
    """Generates images for each value of one code, with the rest of the latent vector fixed in a row.

    Returns:
        Images `(rows * values, H, W, C)` in 0..1, row by row, and the names of the values.
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
    "Each panel sweeps one code over its values, one per column. Noise and all other codes are fixed in a row.",
    order=2,
    applies=lambda run: run.generates and bool(run.codes),
)
def codes(run: Run) -> Figure:
    all_codes = run.codes
    columns = min(len(all_codes), 2)
    rows = -(-len(all_codes) // columns)
    fig = new_figure(6.4 * columns, (0.62 * ROWS + 0.6) * rows + 0.6)
    axes = np.ravel(fig.subplots(rows, columns, squeeze=False))
    for ax, code in zip(axes, all_codes, strict=False):
        tiles, names = sweep(run, code)
        show_tiles(ax, tiles, len(names), heads=names)
        ax.set_title(code.name, pad=18)
    for ax in axes[len(all_codes) :]:
        ax.set_axis_off()
    title(fig, run, "Codes swept over their values")
    return fig
