"""Watches a training that another process runs: a line, curves in the terminal, and a page that renews itself.

Everything comes from the run folder, which is only read: watching costs the training nothing, and ending it leaves the
training alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

import numpy as np
from rich.live import Live
from rich.text import Text

from zeuxis.curves import Curves, thinned
from zeuxis.listing import entry
from zeuxis.progress import Literal, fitted, plain, status
from zeuxis.recipe import run_recipe
from zeuxis.stores import in_use
from zeuxis.system import ctrl_c_raises
from zeuxis.training.journal import read_warnings

__all__ = ["PAGE", "Watched", "watch"]

# Seconds between looks at the journal, between lines if the output is not a terminal, and between renewals of the page.
EVERY, LINE_EVERY, PAGE_EVERY = 1.0, 15.0, 15.0
# The speed is that of the last so many seconds.
WINDOW = 60.0
# Rows of a curve, fewest and most, and columns from which on two stand side by side.
LOWEST, HIGHEST, WIDE = 8, 14, 110
PAGE = "live.html"


class Watched:
    """What a run's folder says of its training now.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.resolve().name
        self.options = run_recipe(folder).training
        self._curves = Curves(folder / "journal.jsonl")
        self._seen: list[tuple[float, float, float]] = []  # seconds, images, and share of the budget at earlier looks
        self._warned = 0
        self.read()

    @property
    def running(self) -> bool:
        """Whether a process trains it, here or, if it is in a store, elsewhere."""
        return in_use(self.folder)

    def read(self) -> bool:
        """Reads what was added to the journal; returns whether there was anything."""
        before = self._curves.last.get("step")
        self._curves.read()
        last = self._curves.last
        if not last or last.get("step") == before:
            return False
        seconds = last["seconds"]
        self._seen = [seen for seen in self._seen if seconds - WINDOW <= seen[0] < seconds]
        self._seen.append((seconds, last.get("images", 0), self.progress))
        return True

    @property
    def progress(self) -> float:
        """Used share of the budget, 0..1."""
        last = self._curves.last
        return min(self.options.used(last) / self.options.budget[1], 1.0) if last else 0.0

    def line(self, width: int = 1000) -> str:
        """Returns name, share of the budget, and as much of speed, time left and terms as fits into the width."""
        last = self._curves.last
        if not last:
            return f"{self.name}  has no journal line yet"
        # A single look knows only the mean since the start.
        seconds, images, progress = self._seen[0] if len(self._seen) > 1 else (0.0, 0.0, 0.0)
        spent, gained = max(last["seconds"] - seconds, 1e-6), self.progress - progress
        terms = {name: last[name] for name in self._curves.names("loss", "test")}
        parts = status(
            last["epoch"], int(last["step"]), (last["images"] - images) / spent,
            spent * (1 - self.progress) / gained if gained > 0 else None, terms,
        )  # fmt: skip
        return fitted([self.name, f"{self.progress:4.0%}", *parts], width)

    def warnings(self) -> list[str]:
        """Returns the warnings that were added since the last call."""
        lines = read_warnings(self.folder / "warnings.jsonl")
        new, self._warned = [line["warning"] for line in lines[self._warned :]], len(lines)
        return new

    def plots(self, width: int, height: int) -> str:
        """Draws losses and test numbers as text of at most so many columns and rows; as many curves as fit."""
        names = self._curves.names("loss", "test")
        columns = 2 if width >= WIDE and len(names) > 1 else 1
        rows = max(height // LOWEST, 1)
        names = names[: rows * columns]
        if not names:
            return ""
        lines = -(-len(names) // columns)
        each = min(max(height // lines, LOWEST), HIGHEST)
        drawn = [self._plot(name, width // columns - columns + 1, each) for name in names]
        return "\n".join(
            "\n".join("  ".join(pieces).rstrip() for pieces in zip(*drawn[i : i + columns], strict=True))
            for i in range(0, len(drawn), columns)
        )

    def _plot(self, name: str, width: int, height: int) -> list[str]:
        """Draws a curve; the first steps, whose large values would flatten the rest, may leave the picture."""
        import plotext

        curve = np.array(self._curves.curve(name), np.float64)
        late = curve[min(len(curve) // 20, 20) :, 1]
        shown = curve[(curve[:, 1] >= late.min()) & (curve[:, 1] <= late.max())]
        kept = shown[thinned(shown[:, 1], 4 * width)]
        figure = plotext.figure
        figure.clear()
        drawn = figure.signal(kept[:, 0].tolist(), kept[:, 1].tolist(), marker="braille")
        drawn.lines()
        figure.draw(drawn)
        figure.plot_size(width, height)
        figure.title(plain(name))
        text = plotext.uncolorize(str(figure.build()))
        return [line.ljust(width) for line in text.rstrip("\n").split("\n")]


def watch(folder: Path, *, page: bool = False, every: float = EVERY, say: Callable[[str], None] = print) -> str:
    """Shows a training until it ends, or until Ctrl-C, which leaves the training alone.

    Args:
        folder: the run folder.
        page: also write `live.html` into the run, which shows the same in a browser and renews itself.
        every: seconds between looks.
        say: prints a line where the output is not a terminal.

    Returns:
        A sentence on how it ended.
    """
    run = Watched(folder)
    with _screen(run, say) as show:
        running, paged = run.running, 0.0
        with ctrl_c_raises(), suppress(KeyboardInterrupt):
            while True:
                fresh = run.read()
                show(running)
                if page and (not running or not paged or (fresh and time.monotonic() - paged > PAGE_EVERY)):
                    _write_page(run, running)
                    paged = time.monotonic()
                if not running:
                    break
                time.sleep(every)
                running = run.running
        if running:
            return f"{run.name} is still being trained; `zeuxis watch {quote(run.name)}` shows it again."
    last = entry(folder)
    how = {"finished": "has used up its budget", "settled": "has settled"}.get(last.state, "was stopped")
    return f"{run.name} {how} at step {last.step:,} ({last.progress}). Next: zeuxis report {quote(run.name)}" + (
        f", zeuxis resume {quote(run.name)}" if last.state == "stopped" else ""
    )


@contextmanager
def _screen(run: Watched, say: Callable[[str], None]) -> Iterator[Callable[[bool], None]]:
    """Yields a function that shows the run: on a terminal in place, elsewhere as lines from time to time."""
    output = Literal()
    shown = -LINE_EVERY

    def show_line(running: bool) -> None:
        nonlocal shown
        for words in run.warnings():
            say(f"Warning: {plain(words)}")
        if not running or time.monotonic() - shown > LINE_EVERY:
            shown = time.monotonic()
            say(run.line())

    if not output.is_terminal:
        yield show_line
        return
    with Live(console=output, auto_refresh=False, vertical_overflow="crop") as live:

        def show(running: bool) -> None:
            for words in run.warnings():
                output.print(Text(f"Warning: {plain(words)}"), soft_wrap=True)
            width, height = output.size
            plots = run.plots(width - 1, height - 3)
            live.update(Text("\n".join([plots, run.line(width - 1)] if plots else [run.line(width - 1)])), refresh=True)

        yield show


def _write_page(run: Watched, running: bool) -> None:
    from zeuxis.report import live_page
    from zeuxis.run import Run

    live_page(Run(run.folder), run.line(), renew=int(PAGE_EVERY) if running else None)
