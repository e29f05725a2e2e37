"""Registry of figures by name; every module of this package may register one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from zeuxis.errors import NoWeightsError, UserError, one_of
from zeuxis.figures.style import write
from zeuxis.files import subfolder
from zeuxis.progress import bar, say
from zeuxis.registry import Registry
from zeuxis.run import Run

__all__ = ["FIGURES", "Kind", "checked_options", "draw_all", "figure", "kinds", "save"]


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Attributes:
        name: file name without the suffix.
        title: heading in reports.
        caption: what the figure shows and what it means.
        order: position in a report.
        applies: whether the figure can be drawn for a run.
        draw: draws the figure; its keyword arguments are the options.
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


# Largest value of a figure's numeric option, such as the points of a map or the ways between latents.
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
    """Draws one figure and writes it; the suffix, such as .png or .svg, sets the format."""
    write(lambda: kind.draw(run, **(options or {})), path)
    return path


def draw_all(
    run: Run,
    *,
    only: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    form: str = "png",
    progress: bool = True,
) -> dict[str, Path]:
    """Draws all figures that apply to a run into its `figures` folder.

    Args:
        run: the run.
        only: names of kinds; if empty, all that apply.
        options: options of figures, such as `{"points": 2621}`; each figure gets those that it has.
        form: png, svg or pdf.
        progress: show a progress bar.

    Returns:
        The path of each figure by its kind's name, in the order of a report.

    Raises:
        UserError: if a figure or an option is unknown or does not apply, or if the run folder cannot be written.
    """
    selected = [kind for kind in kinds() if _applies(kind, run)]
    for name in only:
        if name not in [kind.name for kind in selected]:
            raise one_of(f"figure of {run.name}", name, [kind.name for kind in selected])
    selected = [kind for kind in selected if not only or kind.name in only]
    checked = checked_options(dict(options or {}), {k: v for kind in selected for k, v in kind.options.items()})
    paths, without_weights, left_out = {}, list[str](), dict[str, list[str]]()
    folder = subfolder(run.path, "figures")
    with bar(f"drawing {run.name}", len(selected), visible=progress) as advance:
        for kind in selected:
            try:
                own_options = {name: value for name, value in checked.items() if name in kind.options}
                paths[kind.name] = save(kind, run, folder / f"{kind.name}.{form}", own_options)
            except NoWeightsError:
                if only:
                    raise
                without_weights.append(kind.name)
            except UserError as error:  # a run copied without its data still gets the figures that need none
                if only:
                    raise
                left_out.setdefault(str(error), []).append(f"'{kind.name}'")
            advance(1)
    for reason, names in left_out.items():
        say(f"{'The figure' if len(names) == 1 else 'The figures'} {' and '.join(names)} "
            f"{'is' if len(names) == 1 else 'are'} left out: {reason}")  # fmt: skip
    if without_weights:
        say(
            f"{run.name} has no checkpoint yet, so figures that need weights are left out: "
            f"{', '.join(without_weights)}."
        )
    return paths


def _applies(kind: Kind, run: Run) -> bool:
    try:
        return kind.applies(run)
    except NoWeightsError:
        return False


def checked_options(options: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options of figures, if `known` has defaults of the same types for all; raises a `UserError` otherwise."""
    for name, value in options.items():
        if name not in known:
            raise one_of("option of these figures", name, known)
        default = known[name]
        if type(value) is not type(default) or (isinstance(value, int) and not 1 <= value <= MOST):
            expected = f"a whole number from 1 to {MOST:,}" if isinstance(default, int) else "text"
            raise UserError(f"The figures' option {name} is {expected}, such as {default!r}, not {value!r}.")
    return options
