"""Figures by name: every module of this package may register one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from zeuxis.errors import UserError, one_of
from zeuxis.figures.style import write
from zeuxis.files import subfolder
from zeuxis.progress import bar, say
from zeuxis.registry import Registry
from zeuxis.run import Run

__all__ = ["FIGURES", "Kind", "draw_all", "figure", "kinds", "save"]


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Attributes:
        name: its file's name, without the suffix.
        title: a heading for reports.
        caption: what the reader sees and what it means.
        order: its place in a report.
        applies: whether a run can be drawn so.
        draw: draws it; its keyword arguments are the figure's options.
    """

    name: str
    title: str
    caption: str
    order: int
    applies: Callable[[Run], bool]
    draw: Callable[..., Figure]

    @property
    def options(self) -> dict[str, Any]:
        """The figure's options with their defaults."""
        parameters = list(inspect.signature(self.draw).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}


# The largest number that an option of a figure takes: points of a map, ways between latents.
MOST = 10_000
FIGURES: Registry[Kind] = Registry("figure", "zeuxis.figures")
Draw = Callable[..., Figure]


def figure(
    name: str, title: str, caption: str, *, order: int, applies: Callable[[Run], bool]
) -> Callable[[Draw], Draw]:
    """Registers a function as a kind of figure."""

    def register(draw: Draw) -> Draw:
        FIGURES.register(name, Kind(name, title, caption, order, applies, draw), draw.__module__)
        return draw

    return register


def kinds() -> list[Kind]:
    """Returns all kinds of figures in the order of a report."""
    return sorted(FIGURES.values(), key=lambda kind: (kind.order, kind.name))


def save(kind: Kind, run: Run, path: Path, options: Mapping[str, Any] | None = None) -> Path:
    """Draws one figure and writes it; the suffix, .png or .svg, chooses the format."""
    write(lambda: kind.draw(run, **(options or {})), path)
    return path


def draw_all(
    run: Run, *, only: Sequence[str] = (), options: Mapping[str, Any] | None = None, progress: bool = True
) -> dict[str, Path]:
    """Draws everything that applies into the run's `figures` folder.

    Args:
        run: what to draw.
        only: names of kinds; else all that apply.
        options: options of figures, such as `{"points": 2621}`, given to those that have them.
        progress: show a bar.

    Returns:
        The path of each figure by the name of its kind, in the order of a report.

    Raises:
        UserError: for a figure or an option that is not known or does not apply, or if the run folder cannot be
            written.
    """
    wanted = [kind for kind in kinds() if kind.applies(run)]
    for name in only:
        if name not in [kind.name for kind in wanted]:
            raise one_of(f"figure of {run.name}", name, [kind.name for kind in wanted])
    wanted = [kind for kind in wanted if not only or kind.name in only]
    given = _checked(dict(options or {}), {k: v for kind in wanted for k, v in kind.options.items()})
    drawn = {}
    folder = subfolder(run.path, "figures")
    with bar(f"drawing {run.name}", len(wanted), visible=progress) as advance:
        for kind in wanted:
            try:
                mine = {name: value for name, value in given.items() if name in kind.options}
                drawn[kind.name] = save(kind, run, folder / f"{kind.name}.png", mine)
            except UserError as error:  # a run copied without its data still shows all that needs none
                if only:
                    raise
                say(f"The figure '{kind.name}' is left out: {error}")
            advance(1)
    return drawn


def _checked(given: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name not in known:
            raise one_of("option of these figures", name, known)
        default = known[name]
        if type(value) is not type(default) or (isinstance(value, int) and not 1 <= value <= MOST):
            what = f"a whole number from 1 to {MOST:,}" if isinstance(default, int) else "text"
            raise UserError(f"The figures' option {name} is {what}, such as {default!r}, not {value!r}.")
    return given
