"""Draws the picture of the README: samples of the demo's three models, side by side.

Usage: python docs/make_picture.py demo/digits-vae-1 demo/digits-cgan-1 demo/digits-flow-1
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

import zeuxis
from zeuxis.evaluation import cost
from zeuxis.figures.style import STYLE, new_figure, show_tiles

if __name__ == "__main__":
    runs = [zeuxis.load(path) for path in sys.argv[1:]]
    with mpl.rc_context(STYLE):
        drawn = new_figure(3.6 * len(runs), 2.75)
        for ax, run in zip(drawn.subplots(1, len(runs)), runs, strict=True):
            show_tiles(ax, run.sample(50), 10)
            figures = cost(run)
            ax.set_title(f"{run.recipe.name}\n", fontsize=12)
            line = f"{figures.parameters:,} parameters, {figures.seconds:.0f} s on {run.environment['cores']} cores"
            ax.text(0, 1.03, line, transform=ax.transAxes, fontsize=9, color="#6b7785")
        drawn.savefig(Path(__file__).with_name("demo.png"), dpi=130, bbox_inches="tight", pad_inches=0.12)
