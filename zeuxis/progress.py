"""Output on the terminal: notices, tables, and a progress bar that any part can use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

__all__ = [
    "TROUBLE", "Literal", "Words", "amount", "bar", "console", "counted", "fitted", "in_words", "plain", "rounded",
    "say", "status", "warn",
]  # fmt: skip

# The colour of warnings.
TROUBLE = "#c8553d"
# Without a terminal, seconds between two lines that say how far the work is.
EVERY = 30.0
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


def status(epoch: float, step: int, rate: float, seconds_left: float | None, terms: Mapping[str, float]) -> list[str]:
    """Returns the parts of a line that says how far a training is, most important first.

    Args:
        epoch: passes over the training images so far.
        step: iterations so far.
        rate: images per second.
        seconds_left: until the end of the budget, if it is known.
        terms: losses and test numbers by name; an error under `NAME_stderr` is shown beside its number.
    """
    left = [f"{_clock(seconds_left)} left"] if seconds_left is not None else []
    return [f"epoch {epoch:.1f}", *left, f"step {step}", f"{rate:,.0f} img/s", *(
        f"{name.removesuffix('/loss')} {value:.4g}"
        + (f" ± {terms[f'{name}_stderr']:.2g}" if f"{name}_stderr" in terms else "")
        for name, value in terms.items()
        if not name.endswith("_stderr")
    )]  # fmt: skip


def _clock(seconds: float) -> str:
    """Returns a duration as `3:20`, or `2:03:20` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def rounded(number: float) -> str:
    """Returns a number of epochs, steps or minutes with three digits, or all of them from 1,000 on."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def amount(number: float, unit: str) -> str:
    """Returns a number of epochs, steps or minutes with its unit: `12 epochs`, `1,800 steps`, `30 seconds`."""
    return in_words(60 * number) if unit == "minutes" else counted(rounded(number), unit)


def counted(number: str, units: str) -> str:
    """Returns a number, as text, with its units, which lose their s after 1."""
    return f"{number} {units.removesuffix('s') if number == '1' else units}"


def in_words(seconds: float) -> str:
    """Returns a rough duration in words: `40 seconds`, `25 minutes`, `3.5 hours`."""
    if seconds < 60:
        return counted(f"{seconds:.0f}", "seconds")
    if seconds < 90 * 60:
        return counted(f"{seconds / 60:.0f}", "minutes")
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.0f} days"


def fitted(parts: Sequence[str], width: int) -> str:
    """Returns as many of the parts, from the first on, as fit into a line of so many columns."""
    line = plain(parts[0])[:width]
    for part in map(plain, parts[1:]):
        if len(line) + 2 + len(part) > width:
            break
        line = f"{line}  {part}"
    return line


@contextmanager
def bar(description: str, total: int | None, *, visible: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar while the block runs; without a terminal, a line now and then.

    Args:
        description: what is being done.
        total: number of units, or None if it is unknown.
        visible: False to show nothing.

    Returns:
        A function that advances the bar by a number of units.
    """
    if visible and not console.is_terminal:
        with _lines(description, total) as advance:
            yield advance
        return
    columns = (
        Words("{task.description}", style="bold"),
        BarColumn(complete_style="#3b6ea5", finished_style="#4c956c"),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not visible, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def _lines(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Counts units, and says every half a minute how many are done, also while a single one takes longer."""
    done, began, over = 0, time.monotonic(), threading.Event()

    def advance(count: int) -> None:
        nonlocal done
        done += count

    def tell() -> None:
        while not over.wait(EVERY):
            of = f" of {total:,}" if total else ""
            say(f"{description}: {done:,}{of} after {in_words(time.monotonic() - began)}")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield advance
    finally:
        over.set()
        teller.join()
