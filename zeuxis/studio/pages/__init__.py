"""The pages of the studio, one module each."""

from zeuxis.studio.pages import explore, runs
from zeuxis.studio.state import Studio

__all__ = ["register"]


def register(studio: Studio) -> None:
    """Adds all pages."""
    for module in (runs, explore):
        module.register(studio)
