"""Display of a training: a live bar with rates and current terms, or lines if there is no terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress

from zeuxis.progress import Words, console, say, warn
from zeuxis.training.callbacks.base import Callback
from zeuxis.training.journal import Line

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["Display"]

# Seconds between lines if the output is not a terminal.
LINE_EVERY = 15.0


class Display(Callback):
    """Shows epoch, step, images per second, time left and the main terms."""

    def __init__(self, *, visible: bool = True) -> None:
        self.visible = visible
        self._live = visible and console.is_terminal
        self._terms = ""

    def begin(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._start = (time.perf_counter(), trainer.images, trainer.progress)
        self._last_line = time.perf_counter()
        self._bar = Progress(
            Words("{task.description}", style="bold"),
            BarColumn(bar_width=24, complete_style="#3b6ea5", finished_style="#4c956c"),
            Words("{task.fields[status]}"),
            console=console,
            disable=not self._live,
        )
        self._bar.start()
        self._task = self._bar.add_task(trainer.folder.name, total=1.0, status="")

    def iterated(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        if self._live:
            self._bar.update(self._task, completed=trainer.progress, status=self._status())
        elif self.visible and (now - self._last_line > LINE_EVERY or trainer.complete):
            self._last_line = now
            say(f"{trainer.folder.name}  {trainer.progress:4.0%}  {self._status()}")

    def logged(self, trainer: Trainer, line: Line) -> None:
        roles = trainer.journal.roles
        terms = {name: value for name, value in line.items() if roles.get(name) in ("loss", "test")}
        errors = {name: line.get(f"{name}_stderr") for name in terms}
        self._terms = "  ".join(
            f"{name.removesuffix('/loss')} {value:.4g}" + (f" ± {errors[name]:.2g}" if errors[name] is not None else "")
            for name, value in terms.items()
        )

    def warned(self, words: str) -> None:
        if self.visible:
            warn(words)

    def end(self, trainer: Trainer) -> None:
        self._bar.stop()

    def _status(self) -> str:
        trainer = self._trainer
        start_time, images, progress = self._start
        elapsed = max(time.perf_counter() - start_time, 1e-6)
        rate = (trainer.images - images) / elapsed
        gained = trainer.progress - progress
        seconds_left = elapsed * (1 - trainer.progress) / gained if gained > 0 else 0
        time_left = f"{int(seconds_left) // 60}:{int(seconds_left) % 60:02d} left"
        return f"epoch {trainer.epoch:.1f}  step {trainer.step}  {rate:,.0f} img/s  {time_left}  {self._terms}"
