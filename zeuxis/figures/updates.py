"""Losses against each network's own number of updates, where they differ."""

from __future__ import annotations

from matplotlib.figure import Figure

from zeuxis.figures.losses import limits, smooth
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, new_figure, title
from zeuxis.run import Run


@figure(
    "updates",
    "Losses by own updates",
    "Each loss against the number of updates its own networks had.",
    order=11,
    applies=lambda run: len(run.journal) > 1 and len({phase.repeat for phase in run.model.phases}) > 1,
)
def updates(run: Run) -> Figure:
    phases = run.model.phases
    drawn = new_figure(5.2 * len(phases), 3.3)
    for i, (ax, phase) in enumerate(zip(drawn.subplots(1, len(phases), squeeze=False)[0], phases, strict=True)):
        steps, values = run.series(f"{phase.name}/loss")
        ax.plot(steps * phase.repeat, values, color=LINES[i % len(LINES)], alpha=0.28, lw=0.9)
        ax.plot(steps * phase.repeat, smooth(values), color=LINES[i % len(LINES)], lw=1.8)
        ax.set_ylim(*limits([values]))
        ax.set_title(f"{phase.name}, {phase.repeat} an iteration")
        ax.set_xlabel(f"updates of the {' and the '.join(phase.updates)}")
    title(drawn, run, "Losses by own updates")
    return drawn
