"""Figures of a run: one module per kind of figure, which is drawn for every run that has the data for it."""

from zeuxis.figures.registry import FIGURES, Kind, draw_all, figure, kinds, save
from zeuxis.figures.style import sheet

__all__ = ["FIGURES", "Kind", "draw_all", "figure", "kinds", "save", "sheet"]
