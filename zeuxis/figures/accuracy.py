"""Accuracy of the discriminator, with the range in which adversarial training is healthy."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from zeuxis.figures.losses import draw_curve, phase_of
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, MUTED, mark_changes, new_figure, title
from zeuxis.run import Run

# The healthy range of the reports (specification A2).
HEALTHY = (0.60, 0.75)
# Legend labels of the terms of built-in models; other terms keep their names.
LABELS = {"accuracy_real": "real", "accuracy_fake": "fake", "accuracy_pairs": "real above fake, in pairs"}


@figure(
    "accuracy",
    "Discriminator accuracy",
    "Share of real and of fake samples classified correctly. Between 60 and 75 % (shaded), both networks learn.",
    order=20,
    applies=lambda run: any(len(run.series(name)[0]) > 1 for name in run.names_of("accuracy")),
)
def accuracy(run: Run) -> Figure:
    fig = new_figure(7.4, 3.3)
    ax = fig.subplots()
    ax.axhspan(*HEALTHY, color=LINES[2], alpha=0.13, lw=0)
    names = run.names_of("accuracy")
    several = len({phase_of(name) for name in names}) > 1
    for i, name in enumerate(names):
        phase, _, term = name.partition("/")
        label = LABELS.get(term, term.replace("_", " "))
        if several:
            label = f"{phase.replace('_', ' ')}: {label}"
        draw_curve(ax, *run.series(name), LINES[i % len(LINES)], label)
    ax.axhline(0.5, color=MUTED, lw=0.8, ls=":")
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("step")
    mark_changes(ax, run)
    ax.legend(loc="lower right", ncols=2, fontsize=9)
    title(fig, run, "Discriminator accuracy")
    return fig
