"""Pieces that several pages show."""

from __future__ import annotations

from zeuxis.studio.shell import Tag, picture
from zeuxis.studio.state import Studio, address

__all__ = ["strip"]


def strip(studio: Studio, name: str) -> Tag:
    """Some samples of a run, in one picture."""
    source = f"{address('picture/strip', name)}?v={studio.shelf.version(name)}"
    return picture(source, f"Samples of {name}", "pixels", loading="lazy")
