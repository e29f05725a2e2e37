"""Progress on the terminal: one bar that any part can drive, and lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["bar", "console"]

# Progress and notices go to standard error: standard output stays clean for --json and for paths.
console = Console(stderr=True)


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
