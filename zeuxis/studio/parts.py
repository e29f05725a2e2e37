"""Pieces that several pages show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zeuxis.studio.shell import Tag, button, picture
from zeuxis.studio.state import Studio, address

__all__ = ["GREY", "drop_area", "duration", "log_of", "strip", "table"]

# A colour that reads on light and on dark.
GREY = "#7c8894"


def strip(studio: Studio, name: str) -> Tag:
    """Some samples of a run, in one picture."""
    source = f"{address('picture/strip', name)}?v={studio.shelf.version(name)}"
    return picture(source, f"Samples of {name}", "pixels", loading="lazy")


def log_of(output: str) -> None:
    """What a command has printed."""
    with Tag("details"):
        Tag("summary", "What the command prints")
        Tag("pre", output, class_="log", tabindex="0", aria_label="Output of the command")


def duration(seconds: float) -> str:
    """A rough duration in words: `40 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def drop_area(studio: Studio, handler: Callable[[Path], Any]) -> Tag:
    """A place to drop images on; the handler gets the folder, or archive, that they were written to."""
    with Tag("div", class_="drop", style="margin-top:.8rem") as zone:
        Tag("span", "Drop images, a folder or a zip here, or ")
        button("choose files").on("click", js_handler="(e) => e.target.parentElement.querySelector('input').click()")
        chosen = Tag("input", type="file", multiple=True, class_="unseen", tabindex=-1, aria_label="Files of images")
        chosen.on("change", js_handler="(e) => zeuxisUpload(e.target.files, e.target.parentElement)")
        Tag("div", role="status", aria_live="polite", class_="small")
    zone.on("dragover", js_handler="(e) => e.preventDefault()")
    zone.on("drop", js_handler="(e) => { e.preventDefault(); zeuxisDropped(e.dataTransfer, e.currentTarget); }")
    return zone.heard("uploaded", lambda name: handler(studio.uploads.place(str(name))), "e.detail")


def table(
    heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]], best: Sequence[Sequence[bool]] = ()
) -> None:
    """A table; cells of `best` are bold."""
    if heading:
        Tag("h3", heading, style="margin-top:1rem")
    with Tag("div", class_="card scroll", tabindex="0", role="region", aria_label=heading or columns[0]), Tag("table"):
        with Tag("thead"), Tag("tr"):
            for i, name in enumerate(columns):
                Tag("th", name, scope="col", class_="" if i == 0 else "n")
        with Tag("tbody"):
            for r, row in enumerate(rows):
                with Tag("tr"):
                    for c, text in enumerate(row):
                        bold = bool(best) and best[r][c]
                        if c == 0:
                            Tag("th", text, scope="row")
                        else:
                            Tag("td", text, class_="n", style="font-weight:700" if bold else None)
