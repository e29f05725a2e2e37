"""The pages of the studio, one module each."""

from zeuxis.studio.pages import blind, compare, explore, run, runs, train
from zeuxis.studio.state import Studio

__all__ = ["register"]


def register(studio: Studio) -> None:
    """Adds all pages."""
    for module in (runs, run, train, explore, blind, compare):
        module.register(studio)
