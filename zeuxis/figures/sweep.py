"""Figure of a sweep: two measures of every setting against each other, and samples of each setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from zeuxis.evaluation.measure import Value
from zeuxis.figures.style import INK, MUTED, heading, new_figure, show_tiles
from zeuxis.run import Run

__all__ = ["Setting", "sweep_figure"]

TILES = 8


class Setting(NamedTuple):
    """One training of a sweep: its setting as text, its two measured values, and the run."""

    name: str
    across: Value
    up: Value
    run: Run


def sweep_figure(settings: Sequence[Setting], recipe: str, across: str, up: str, seed: int = 1) -> Figure:
    """Draws the trade-off on the left, settings connected in order, and a row of samples of each on the right."""
    generating = all(setting.run.generates for setting in settings)
    fig = new_figure(12.0 if generating else 6.4, max(4.6, 0.55 * len(settings) + 1.2))
    panels = fig.subplots(1, 2 if generating else 1, squeeze=False, width_ratios=[1.1, 1] if generating else None)
    ax, *others = panels[0]
    colors = mpl.colormaps["viridis"](np.linspace(0.05, 0.88, len(settings)))
    x, y = ([value.value for value in values] for values in zip(*[(s.across, s.up) for s in settings], strict=True))
    ax.plot(x, y, color=MUTED, lw=0.8, ls=":")
    for place, (setting, color) in enumerate(zip(settings, colors, strict=True)):
        ax.errorbar(
            setting.across.value, setting.up.value, xerr=setting.across.stderr or 0.0, yerr=setting.up.stderr or 0.0,
            color=color, marker="o", ms=7, lw=1.4, capsize=3,
        )  # fmt: skip
        ax.annotate(
            setting.name, (setting.across.value, setting.up.value), (8, 6 if place % 2 == 0 else -14),
            textcoords="offset points", fontsize=9, color=INK,
        )  # fmt: skip
    ax.margins(0.3, 0.18)
    ax.set_xlabel(_named(across, settings[0].across))
    ax.set_ylabel(_named(up, settings[0].up))
    for tiles in others:
        samples = np.concatenate([setting.run.sample(TILES, seed=seed) for setting in settings])
        show_tiles(tiles, samples, TILES, rows=[setting.name for setting in settings])
        for label, color in zip(tiles.get_yticklabels(), colors, strict=True):
            label.set_color(color)
            label.set_fontsize(9)
    heading(fig, "Measures by setting", f"{recipe}; bars are standard errors; uncurated samples from seed {seed}")
    return fig


def _named(name: str, value: Value) -> str:
    return name.replace("_", " ") + (f", by {value.features}" if value.features else "")
