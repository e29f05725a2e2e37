"""Loss curves, as recorded and smoothed.

The smoothing is that of the reports (specification A2): one record every ten iterations, each averaged with the ten
before it. A journal line is itself the mean of `log_every` steps.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, MUTED, mark_changes, new_figure, title
from zeuxis.run import Run

WINDOW = 11


def smooth(values: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Returns the mean of each value with up to `window // 2` values on each side."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    place = np.arange(len(values))
    begin, end = np.maximum(place - window // 2, 0), np.minimum(place + window // 2 + 1, len(values))
    return np.asarray((sums[end] - sums[begin]) / (end - begin))


def draw_curve(ax: Axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str = "") -> None:
    """Draws values as recorded (faint) and smoothed (strong)."""
    ax.plot(steps, values, color=colour, alpha=0.28, lw=0.9)
    ax.plot(steps, smooth(values), color=colour, lw=1.8, label=label or None)


def panels(run: Run) -> list[tuple[str, dict[str, str]]]:
    """Returns title and terms, by label, of each panel: the losses of all phases, their terms, and tests."""
    losses, terms = run.names_of("loss"), run.names_of("term")
    all_panels = [("loss", {phase_of(name): name for name in losses})]
    for phase in map(phase_of, losses):
        parts = {name.removeprefix(f"{phase}/"): name for name in terms if phase_of(name) == phase}
        if len(parts) < 2:
            continue
        if len(losses) == 1:  # with a single phase, each part has its own scale
            all_panels += [(part, {part: name}) for part, name in parts.items()]
        else:
            all_panels.append((phase, parts))
    return all_panels + [(name.replace("/", " "), {"test": name}) for name in run.names_of("test")]


def phase_of(name: str) -> str:
    """Returns the phase that a number belongs to."""
    return name.partition("/")[0]


@figure(
    "losses",
    "Losses",
    "Faint: each journal line. Strong: mean of each line and five on each side.",
    order=10,
    applies=lambda run: len(run.journal) > 1,
)
def losses(run: Run) -> Figure:
    all_panels = panels(run)
    columns = min(len(all_panels), 2)
    rows = -(-len(all_panels) // columns)
    fig = new_figure(5.2 * columns, 2.7 * rows + 0.6)
    axes = np.ravel(fig.subplots(rows, columns, squeeze=False))
    for ax, (name, terms) in zip(axes, all_panels, strict=False):
        ax.set_title(name.replace("_", " "))
        series = {label: run.series(term) for label, term in terms.items()}
        for i, (label, (steps, values)) in enumerate(series.items()):
            colour = LINES[i % len(LINES)]
            if label == "test":
                ax.plot(steps, values, color=colour, lw=1.8)
            else:
                draw_curve(ax, steps, values, colour, label.replace("_", " "))
        shown = [values for _, values in series.values()]
        low, high = limits(shown)
        ax.set_ylim(low, high)
        if high is not None and (first := max(values[0] for values in shown if len(values))) > high:
            ax.set_title(f"starts at {first:.3g}", loc="right", fontsize=8, fontweight="normal", color=MUTED)
        if len(terms) > 1:
            ax.legend(loc="best", fontsize=9)
        ax.set_xlabel("step")
        mark_changes(ax, run)
    for ax in axes[len(all_panels) :]:
        ax.set_axis_off()
    title(fig, run, "Losses, as recorded (faint) and smoothed")
    return fig


def limits(series: list[np.ndarray]) -> tuple[float | None, float | None]:
    """Returns limits of the vertical axis that ignore the first steps, whose large values would flatten the rest."""
    settled = np.concatenate([values[min(len(values) // 20, 20) :] for values in series])
    settled = settled[np.isfinite(settled)]
    if not len(settled) or np.ptp(settled) == 0:
        return None, None
    margin = 0.08 * np.ptp(settled)
    return float(settled.min() - margin), float(settled.max() + margin)
