"""How often the discriminator is right, and the band in which a game is healthy."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from zeuxis.figures.losses import draw_curve
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, MUTED, new_figure, title
from zeuxis.run import Run

# What the reports call healthy (specification A2).
HEALTHY = (0.60, 0.75)
# A relativistic discriminator judges pairs.
KINDS = {"real": "real", "fake": "fake", "pairs": "real above fake, in pairs"}


@figure(
    "accuracy",
    "Discriminator accuracy",
    "The share of real and of fake samples told right; between 60 and 75 % (shaded) both networks learn.",
    order=20,
    applies=lambda run: any(len(run.series(f"discriminator/accuracy_{kind}")[0]) > 1 for kind in KINDS),
)
def accuracy(run: Run) -> Figure:
    drawn = new_figure(7.4, 3.3)
    ax = drawn.subplots()
    ax.axhspan(*HEALTHY, color=LINES[2], alpha=0.13, lw=0)
    for colour, (kind, label) in zip(LINES, KINDS.items(), strict=False):
        steps, values = run.series(f"discriminator/accuracy_{kind}")
        if not len(steps):
            continue
        draw_curve(ax, steps, values, colour, label)
    ax.axhline(0.5, color=MUTED, lw=0.8, ls=":")
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("step")
    ax.legend(loc="lower right", ncols=2, fontsize=9)
    title(drawn, run, "Discriminator accuracy")
    return drawn
