"""Losses against the number of updates of each phase, for models whose phases differ in it."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from zeuxis.figures.losses import draw_curve, limits
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, new_figure, title
from zeuxis.models import Phase
from zeuxis.run import Run


@figure(
    "updates",
    "Losses by own updates",
    "Each loss against the number of updates of its own networks.",
    order=11,
    applies=lambda run: len(run.journal) > 1 and len({_rate(phase) for phase in run.structure.phases}) > 1,
)
def updates(run: Run) -> Figure:
    phases = run.structure.phases
    fig = new_figure(5.2 * len(phases), 3.3)
    for i, (ax, phase) in enumerate(zip(fig.subplots(1, len(phases), squeeze=False)[0], phases, strict=True)):
        steps, values = run.series(f"{phase.name}/loss")
        began = steps[0] - 1 if phase.start and len(steps) else 0
        draw_curve(ax, np.ceil((steps - began) / phase.interval) * phase.repeat, values, LINES[i % len(LINES)])
        ax.set_ylim(*limits([values]))
        each = "iteration" if phase.interval == 1 else f"{phase.interval} iterations"
        ax.set_title(f"{phase.name}, {phase.repeat} per {each}")
        ax.set_xlabel(f"updates of the {' and the '.join(phase.updates)}")
    title(fig, run, "Losses by own updates")
    return fig


def _rate(phase: Phase) -> tuple[int, int, float]:
    return phase.repeat, phase.interval, phase.start
