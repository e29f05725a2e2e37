"""Figures by name: every module of this package may register one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import matplotlib as mpl
from matplotlib.figure import Figure

from zeuxis.errors import UserError
from zeuxis.figures.style import STYLE
from zeuxis.progress import bar, console
from zeuxis.run import Run

__all__ = ["Kind", "draw_all", "figure", "kinds", "save"]


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Attributes:
        name: its file's name, without the suffix.
        title: a heading for reports.
        caption: what the reader sees and what it means.
        order: its place in a report.
        applies: whether a run can be drawn so.
        draw: draws it.
    """

    name: str
    title: str
    caption: str
    order: int
    applies: Callable[[Run], bool]
    draw: Callable[[Run], Figure]


_KINDS: dict[str, Kind] = {}
Draw = Callable[[Run], Figure]


def figure(
    name: str, title: str, caption: str, *, order: int, applies: Callable[[Run], bool]
) -> Callable[[Draw], Draw]:
    """Registers a function as a kind of figure."""

    def register(draw: Draw) -> Draw:
        _KINDS[name] = Kind(name, title, caption, order, applies, draw)
        return draw

    return register


def kinds() -> list[Kind]:
    """Returns all kinds of figures in the order of a report."""
    package = import_module("zeuxis.figures")
    for module in iter_modules(package.__path__):
        import_module(f"zeuxis.figures.{module.name}")
    return sorted(_KINDS.values(), key=lambda kind: (kind.order, kind.name))


def save(kind: Kind, run: Run, path: Path) -> Path:
    """Draws one figure and writes it; the suffix, .png or .svg, chooses the format."""
    with mpl.rc_context(STYLE):
        drawn = kind.draw(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(path, dpi=160, bbox_inches="tight", pad_inches=0.15)
    return path


def draw_all(run: Run, *, progress: bool = True) -> dict[str, Path]:
    """Draws everything that applies into the run's `figures` folder.

    Returns:
        The path of each figure by the name of its kind, in the order of a report.

    Raises:
        UserError: if the run folder cannot be written.
    """
    wanted = [kind for kind in kinds() if kind.applies(run)]
    drawn = {}
    try:
        (run.path / "figures").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"Figures cannot be written to {run.path / 'figures'}: {error.strerror or error}.") from error
    with bar(f"drawing {run.name}", len(wanted), visible=progress) as advance:
        for kind in wanted:
            try:
                drawn[kind.name] = save(kind, run, run.path / "figures" / f"{kind.name}.png")
            except UserError as error:  # a run copied without its data still shows all that needs none
                console.print(f"The figure '{kind.name}' is left out: {error}", soft_wrap=True)
            advance(1)
    return drawn
