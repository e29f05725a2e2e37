"""What is drawn from a run: one file a kind of figure, drawn whenever the run has the capability."""

from zeuxis.figures.registry import FIGURES, Kind, draw_all, figure, kinds, save
from zeuxis.figures.style import sheet

__all__ = ["FIGURES", "Kind", "draw_all", "figure", "kinds", "save", "sheet"]
