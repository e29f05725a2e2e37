"""Output on the terminal: notices, tables, and a progress bar that any part can use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["TROUBLE", "Literal", "Words", "bar", "console", "plain", "say", "warn"]

# The colour of warnings.
TROUBLE = "#c8553d"
# Harmless characters that Python calls unprintable: the line break, and the marks that join letters and emoji.
KEPT = "\n\u200c\u200d"


class Literal(Console):
    """A console that prints text literally: brackets are not markup, and control codes do not reach the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns text that is safe to print; uses only the options style, justify and overflow."""
        return Text(
            plain(text), **{name: options[name] for name in ("style", "justify", "overflow") if name in options}
        )


class Words(TextColumn):
    """A column of a progress bar that prints text literally, as `Literal` does."""

    def render(self, task: Task) -> Text:
        """Returns the column's text for a task."""
        return Text(plain(self.text_format.format(task=task)), style=self.style)


# Progress and notices go to standard error, so that standard output has only JSON, paths and tables.
console = Literal(stderr=True)


def plain(text: object) -> str:
    """Returns text that is safe to print: names of files and classes can contain codes that control the terminal.

    Control characters, marks that reverse the direction of text, and bytes that are not UTF-8 are escaped, as in
    `\\x1b`; line breaks stay.
    """
    return "".join(c if c in KEPT or c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def say(text: str, style: str = "", *, lead: str = "") -> None:
    """Prints a notice to standard error, literally: brackets are not markup, codes do not reach the terminal.

    Args:
        text: the notice.
        style: style of the notice, or only of its lead if it has one.
        lead: text before the notice, in bold.
    """
    words = ((plain(lead), f"bold {style}"), plain(text)) if lead else ((plain(text), style),)
    console.print(Text.assemble(*words), soft_wrap=True)


def warn(text: str) -> None:
    """Prints a warning to standard error."""
    say(text, lead="Warning: ", style=TROUBLE)


@contextmanager
def bar(description: str, total: int | None, *, visible: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar while the block runs.

    Args:
        description: what is being done.
        total: number of units, or None if it is unknown.
        visible: False to show nothing.

    Returns:
        A function that advances the bar by a number of units.
    """
    columns = (
        Words("{task.description}", style="bold"),
        BarColumn(complete_style="#3b6ea5", finished_style="#4c956c"),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, disable=not visible or not console.is_terminal, transient=True
    ) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
