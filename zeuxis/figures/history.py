"""Training history: images from the same latents at several steps of the training."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import new_figure, show_tiles, title
from zeuxis.run import Run

ROWS, COLUMNS = 9, 10


def chosen_rows(count: int, rows: int = ROWS) -> list[int]:
    """Returns the indices of snapshots to show: first, last and some between, denser early, when most changes."""
    if count <= rows:
        return list(range(count))
    spaced = np.round((count - 1) * np.linspace(0, 1, rows) ** 2).astype(int)
    for i in range(1, rows):
        spaced[i] = max(spaced[i], spaced[i - 1] + 1)
    return [int(min(i, count - rows + place)) for place, i in enumerate(spaced)]


@figure(
    "history",
    "Training history",
    "Each column is one fixed latent; time runs downwards.",
    order=30,
    applies=lambda run: len(run.snapshots) > 1,
)
def history(run: Run) -> Figure:
    snapshots = run.snapshots
    selected = [snapshots[i] for i in chosen_rows(len(snapshots))]
    columns = min(COLUMNS, len(selected[0][1]))
    tiles = np.concatenate([images[:columns] for _, images in selected])
    fig = new_figure(0.78 * columns + 1.0, 0.78 * len(selected) + 0.8)
    show_tiles(fig.subplots(), tiles, columns, rows=[f"step {step:,}" for step, _ in selected])
    title(fig, run, "Training history")
    return fig
