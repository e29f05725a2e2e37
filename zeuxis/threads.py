"""How many threads repeated work runs on: as many as pay, on a machine that does other things too.

The threads of an operation wait for one another. Beside another busy process one of them is often not running, and the
rest wait for it: two threads on two cores can then be slower than one, by 2 to 16 times. So the cost of a unit of work
(a training iteration, a chunk of samples) is watched, and another number of threads is tried for a moment where it
may pay:

- fewer, where other processes take processor time;
- more, where cores are idle;
- either, now and then, as causes do not always show. Beside two busy processes on two cores, two threads get the time
  of one core together, a single one two thirds of it.

What is at least a twentieth cheaper stays. A number that failed is left alone for a while, twice as long each time.

Results in float32 depend on the number of threads in their last digits; `fixed` keeps it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["Threads", "paced", "threads"]

T = TypeVar("T")
# Seconds of work that a number of threads is judged by, in passing and when it is tried.
WINDOW, TRIAL = 0.5, 0.25
# What must be gained by a change, and how much dearer a unit ends a trial at once.
GAIN, ABORT = 0.95, 1.5
# Seconds until what failed is tried again, at first and at most; and until something is tried for no reason.
FIRST, LAST, EXPLORE = 2.0, 60.0, 5.0
# Cores that others use, from which on a thread may be one too many; and idle cores that are worth a thread.
CROWDED, ROOM = 0.3, 0.5


class Clock:
    """Time as it passes, as the process uses it, and as the cores are idle; all in seconds."""

    def wall(self) -> float:
        """Time passed."""
        return time.perf_counter()

    def used(self) -> float:
        """Processor time of this process, of all its threads."""
        return time.process_time()

    def idle(self) -> float:
        """Time that cores had nothing to do, of all cores."""
        import psutil

        times = psutil.cpu_times()
        return float(times.idle + getattr(times, "iowait", 0.0))


class Threads:
    """Chooses the number of threads of PyTorch's operations on the processor, and of NumPy's products.

    Args:
        clock: tells the times; a test has one of its own.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.most = self.cores = 0
        self.number = 0
        self._is_fixed = False
        self._began = self._now()
        self._kind = ""
        self._trial = 0
        self._cost = 0.0
        self._pause: dict[int, float] = {}
        self._not_before: dict[int, float] = {}
        self._last_trial = self.clock.wall()

    @contextmanager
    def unit(self, kind: str) -> Iterator[None]:
        """Runs the block, one of many alike, on the chosen number of threads.

        Args:
            kind: what kind of work it is; costs of different kinds are not compared.
        """
        if not self.most:
            self._begin()
        if self._is_fixed or self.most == 1:
            yield
            return
        if kind != self._kind:
            self._kind, self._cost = kind, 0.0
            self._try(0)
        began = self.clock.wall()
        yield
        self._note(self.clock.wall() - began)

    @contextmanager
    def fixed(self, number: int) -> Iterator[None]:
        """Keeps a number of threads while the block runs; 0 leaves it to be chosen."""
        if not self.most:
            self._begin()
        if not number:
            yield
            return
        before, was_fixed = self.number, self._is_fixed
        self._is_fixed = True
        self._set(number)
        try:
            yield
        finally:
            self._is_fixed = was_fixed
            self._set(before)

    def _begin(self) -> None:
        """Starts with the cores that others have left idle since the program began."""
        import torch

        self.most = torch.get_num_threads()
        self.cores = max(os.cpu_count() or 1, self.most)
        wall, used, idle = (now - then for now, then in zip(self._now(), self._began, strict=True))
        free = (idle + used) / wall if wall > 0 else self.most
        others = max(self.cores - free, 0.0)
        self._set(max(self.most - round(others), 1))
        self._window()

    def _now(self) -> tuple[float, float, float]:
        return self.clock.wall(), self.clock.used(), self.clock.idle()

    def _set(self, number: int) -> None:
        import torch

        self.number = number
        if torch.get_num_threads() != number:
            from threadpoolctl import threadpool_limits

            torch.set_num_threads(number)
            threadpool_limits(number, user_api="blas")  # NumPy's and SciPy's products, in evaluations

    def _window(self) -> None:
        self._units, self._spent, self._began = 0, 0.0, self._now()

    def _try(self, number: int) -> None:
        """Begins a trial of a number of threads; 0 ends it."""
        if number:
            self._last_trial = self.clock.wall()
            self._held = self.number
            self._set(number)
        elif self._trial:
            self._set(self._held)
        self._trial = number
        self._window()

    def _note(self, seconds: float) -> None:
        self._units += 1
        self._spent += seconds
        if self._trial:
            # The first unit on another number of threads makes and ends threads.
            if self._units == 1 and seconds < ABORT * self._cost:
                self._spent = 0.0
            elif self._units == 1 or self._spent > max(TRIAL, self._cost) or seconds > ABORT * self._cost:
                self._judge(self._spent / max(self._units - 1, 1))
        elif self._spent > WINDOW:
            self._cost = self._spent / self._units
            self._look()

    def _judge(self, cost: float) -> None:
        number, now = self._trial, self.clock.wall()
        if cost < GAIN * self._cost:
            self._trial, self._cost = 0, cost
            self._pause, self._not_before = {}, {self._held: now + FIRST}
            self._window()
        else:
            pause = self._pause.get(number, FIRST)
            self._not_before[number] = now + pause
            self._pause[number] = min(2 * pause, LAST)
            self._try(0)

    def _look(self) -> None:
        """Looks back at a window: is another number of threads worth a trial?"""
        wall, used, idle = (now - then for now, then in zip(self._now(), self._began, strict=True))
        wall = max(wall, 1e-3)  # a clock may be set back
        free = idle / wall
        others = self.cores - free - used / wall
        fewer = max(min(round(self.cores - others), self.number - 1), 1)
        more = min(self.number + max(round(free), 1), self.most)
        wanted = 0
        if self.number > 1 and others > CROWDED:
            wanted = fewer
        elif self.number < self.most and free > ROOM:
            wanted = more
        elif self.clock.wall() - self._last_trial > EXPLORE:
            wanted = more if self.number == 1 else fewer
        if wanted and wanted != self.number and self.clock.wall() >= self._not_before.get(wanted, 0.0):
            self._try(wanted)
        else:
            self._window()


# One for the process, as PyTorch's number of threads is.
threads = Threads()


def paced(parts: Iterable[T], kind: str) -> Iterator[T]:
    """Yields parts of some work; what is done with each is a unit of it."""
    for part in parts:
        with threads.unit(kind):
            yield part
