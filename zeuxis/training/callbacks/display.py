"""Display of a training: a live bar with rates and current terms, or lines if there is no terminal."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress

from zeuxis.errors import quoted
from zeuxis.models import Generates
from zeuxis.progress import Words, amount, console, counted, fitted, in_words, say, status, warn
from zeuxis.sizing import SMALLEST
from zeuxis.training.callbacks.base import Callback
from zeuxis.training.journal import Line
from zeuxis.training.monitors import FEW_STEPS

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["Display"]

# Seconds between lines if the output is not a terminal.
LINE_EVERY = 15.0
# Columns of the bar, and of the longest name that is shown in full.
BAR, NAME = 24, 24
# Seconds after which the speed is known well enough to say what the budget takes, and the shortest worth saying.
TELL_AFTER, WORTH_TELLING = 5.0, 60.0
# The answer to Ctrl-C; a process that is one of several trainings has none.
STOPPING = "Stopping after this step, and saving; Ctrl-C again stops at once."


class Display(Callback):
    """Shows epoch, step, images per second, time left and the main terms."""

    def __init__(self, *, visible: bool = True) -> None:
        self.visible = visible
        self._live = visible and console.is_terminal
        self._terms: dict[str, float] = {}

    def begin(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._start = (time.perf_counter(), trainer.images, trainer.progress)
        # Time, progress and step after the first iteration, which is slow.
        self._measured: tuple[float, float, int] | None = None
        self._told = False
        self._last_line = time.perf_counter()
        self._bar = Progress(
            Words("{task.description}", style="bold"),
            BarColumn(bar_width=BAR, complete_style="#3b6ea5", finished_style="#4c956c"),
            Words("{task.fields[status]}"),
            console=console,
            disable=not self._live,
        )
        self._bar.start()
        self._task = self._bar.add_task(quoted(trainer.folder.name, NAME), total=1.0, status="")

    def iterated(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        self._tell_budget(now)
        if self._live:
            self._bar.update(self._task, completed=trainer.progress, status=self._status(self._room()))
        elif self.visible and (now - self._last_line > LINE_EVERY or trainer.complete):
            self._last_line = now
            say(f"{trainer.folder.name}  {trainer.progress:4.0%}  {self._status(1000)}")

    def logged(self, trainer: Trainer, line: Line) -> None:
        roles = trainer.journal.roles
        self._terms = {name: v for name, v in line.items() if roles.get(name) in ("loss", "test", "error")}

    def warned(self, words: str) -> None:
        if self.visible:
            warn(words)

    def stopping(self) -> None:
        if self.visible and STOPPING:
            with suppress(OSError):  # written directly, as the signal may have come while standard error was written
                os.write(2, f"{chr(10) if self._live else ''}{STOPPING}\n".encode())

    def end(self, trainer: Trainer) -> None:
        self._bar.stop()

    def _tell_budget(self, now: float) -> None:
        """Says once how long the budget takes, or what a time is too short for, at the speed of the first seconds."""
        if self._told or not self.visible:
            return
        trainer = self._trainer
        if self._measured is None:
            self._measured = (now, trainer.progress, trainer.step)
        time_before, progress, step = self._measured
        if now - time_before < TELL_AFTER or trainer.progress <= progress:
            return
        self._told = True
        left = (1 - trainer.progress) / (trainer.progress - progress)
        seconds = (now - time_before) * left
        unit, budget = trainer.options.budget
        if unit == "minutes":
            steps = trainer.step + round((trainer.step - step) * left)
            if steps < FEW_STEPS and isinstance(trainer.model, Generates) and not trainer.warm:
                enough = counted(f"{math.ceil(budget * FEW_STEPS / max(steps, 1))}", "minutes")
                smaller = ", or smaller images" if max(trainer.model.recipe.data.size) > SMALLEST else ""
                say(
                    f"At this speed {amount(budget, unit)} are about {steps} steps, and before some {FEW_STEPS} most "
                    f"models draw little but noise. Give it {enough} or more{smaller}."
                )
        elif seconds > WORTH_TELLING:
            whole = "The rest" if self._start[2] else f"The whole budget of {budget:g} {unit}"
            say(
                f"{whole} takes about {in_words(seconds)} at this speed. Ctrl-C stops at any time and keeps what is "
                f"trained; --minutes sets another budget."
            )

    def _room(self) -> int:
        """Columns that the name, the bar and the gaps leave for the status."""
        return max(console.width - min(len(self._trainer.folder.name), NAME) - BAR - 3, 0)

    def _status(self, width: int) -> str:
        trainer = self._trainer
        start_time, images, progress = self._start
        elapsed = max(time.perf_counter() - start_time, 1e-6)
        gained = trainer.progress - progress
        return fitted(
            status(
                trainer.epoch, trainer.step, (trainer.images - images) / elapsed,
                elapsed * (1 - trainer.progress) / gained if gained > 0 else None, self._terms,
            ),
            width,
        )  # fmt: skip
