"""What is said on the terminal: notices, and one bar that any part can drive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["TROUBLE", "bar", "console", "plain", "say"]

# Progress and notices go to standard error: standard output stays clean for --json and for paths.
console = Console(stderr=True)
# The colour of warnings.
TROUBLE = "#c8553d"
# Not printable to Python, and harmless: the line break, and the marks that join letters and pictures.
KEPT = "\n\u200c\u200d"


def plain(text: object) -> str:
    """Text as it may reach a terminal: names of files and classes can hold codes that would steer it.

    Control characters, marks that reverse the direction of text, and bytes that are no UTF-8 are written out, as in
    `\\x1b`; line breaks stay.
    """
    return "".join(c if c in KEPT or c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def say(text: str, style: str = "") -> None:
    """Prints a notice to standard error, as it is: brackets are no markup, codes do not reach the terminal."""
    console.print(Text(plain(text), style=style), soft_wrap=True)


@contextmanager
def bar(description: str, total: int | None, *, visible: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar while the block runs.

    Args:
        description: what is being done.
        total: number of units, or None where it is unknown.
        visible: False to run silently.

    Returns:
        A function that advances the bar by a number of units.
    """
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(complete_style="#3b6ea5", finished_style="#4c956c"),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not visible or not console.is_terminal, transient=True) as shown:
        task = shown.add_task(description, total=total)
        yield lambda count: shown.advance(task, count)
