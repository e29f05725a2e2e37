"""Quality against cost: each run's distance to the images, and its training time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from zeuxis.figures.style import INK, LINES, heading, logarithmic, new_figure

__all__ = ["Point", "trade_off"]

# Runs beyond the colours of the palette differ by these.
MARKERS = ("o", "s", "^", "D")


class Point(NamedTuple):
    """A run: name, minutes of training, parameters, and a distance with its standard error."""

    name: str
    minutes: float
    parameters: int
    distance: float
    stderr: float | None


def trade_off(points: Sequence[Point], features: str | None) -> Figure:
    """Draws distance against minutes of training on logarithmic axes; the area of a dot grows with its parameters."""
    fig = new_figure(9.2, max(4.6, 1.2 + 0.48 * len(points)))
    ax = fig.subplots()
    most = max(point.parameters for point in points)
    for i, point in enumerate(points):
        color, marker = LINES[i % len(LINES)], MARKERS[i // len(LINES) % len(MARKERS)]
        ax.errorbar(point.minutes, point.distance, yerr=point.stderr or 0.0, color=color, lw=1.4, capsize=3)
        ax.scatter(
            point.minutes, point.distance, s=40 + 360 * point.parameters / most, color=color, alpha=0.85, lw=0,
            marker=marker,
        )  # fmt: skip
        ax.plot([], [], marker, color=color, label=f"{point.name}\n{point.parameters:,} parameters")
    ax.margins(0.25)
    logarithmic(ax, "x", "y", ticks=(1, 1.5, 2, 3, 5, 7))
    ax.set_xlabel("minutes of training")
    ax.set_ylabel(f"Frechet distance to images, by {features}")
    # Beside the chart, where no number of points lets names lie over one another.
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, labelcolor=INK)
    heading(fig, "Quality against cost", "lower is nearer to the images; bars are standard errors")
    return fig
