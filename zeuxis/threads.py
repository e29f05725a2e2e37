"""Chooses the number of threads for repeated work: the fastest one, on a machine that also runs other processes.

The threads of an operation wait for one another. If another process is busy, one of them is often not running, and the
others wait for it: two threads on two cores can then be 2 to 16 times slower than one. So the time of a unit of work
(a training iteration, a batch of samples) is measured, and another number of threads is tried briefly where it may be
faster:

- fewer, if other processes use processor time;
- more, if cores are idle;
- either, now and then, because the cause is not always visible. Beside two busy processes on two cores, two threads
  together get the time of one core, and a single thread two thirds of it.

A number that is at least a twentieth faster is kept. A number that was not is tried again after a pause, which doubles
each time.

The last digits of float32 results depend on the number of threads; `fixed` keeps the number constant.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["Threads", "paced", "threads"]

T = TypeVar("T")
# Seconds of work that are measured: of the current number of threads, and in a trial of another.
WINDOW, TRIAL = 0.5, 0.25
# A trial succeeds below the first, and ends at once above the second, times the current time of a unit.
GAIN, ABORT = 0.95, 1.5
# Seconds until a failed number is tried again, at first and at most; and until a trial without a reason.
FIRST, LAST, EXPLORE = 2.0, 60.0, 5.0
# Cores used by other processes from which on fewer threads are tried; idle cores from which on more are tried.
CROWDED, ROOM = 0.3, 0.5


class Clock:
    """Wall time, processor time of this process, and idle time of the cores; all in seconds."""

    def wall(self) -> float:
        """Wall time."""
        return time.perf_counter()

    def used(self) -> float:
        """Processor time of this process, over all its threads."""
        return time.process_time()

    def idle(self) -> float:
        """Idle time, over all cores."""
        import psutil

        times = psutil.cpu_times()
        return float(times.idle + getattr(times, "iowait", 0.0))


class Threads:
    """Chooses the number of threads for PyTorch's operations on the CPU and for NumPy's matrix products.

    Args:
        clock: source of times; tests replace it.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.most = self.cores = 0
        self.number = 0
        self._is_fixed = False
        self._start_times = self._now()
        self._kind = ""
        self._trial = 0
        self._cost = 0.0
        self._pause: dict[int, float] = {}
        self._not_before: dict[int, float] = {}
        self._last_trial = self.clock.wall()

    @contextmanager
    def unit(self, kind: str) -> Iterator[None]:
        """Runs the block, one of many similar ones, on the chosen number of threads, and measures its time.

        Args:
            kind: kind of work; times of different kinds are not compared.
        """
        if not self.most:
            self._begin()
        if self._is_fixed or self.most == 1:
            yield
            return
        if kind != self._kind:
            self._kind, self._cost = kind, 0.0
            self._try(0)
        start = self.clock.wall()
        yield
        self._note(self.clock.wall() - start)

    @contextmanager
    def fixed(self, number: int) -> Iterator[None]:
        """Keeps the number of threads fixed while the block runs; with 0, it is chosen automatically."""
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
            self._window()  # what happened meanwhile says nothing about the chosen number

    def _begin(self) -> None:
        """Starts with as many threads as cores that other processes have left free since the program started."""
        import torch

        self.most = torch.get_num_threads()
        self.cores = max(os.cpu_count() or 1, self.most)
        wall, used, idle = (now - start for now, start in zip(self._now(), self._start_times, strict=True))
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
        self._units, self._spent, self._start_times = 0, 0.0, self._now()

    def _try(self, number: int) -> None:
        """Starts a trial of a number of threads; 0 ends the trial and restores the earlier number."""
        if number:
            self._last_trial = self.clock.wall()
            self._before_trial = self.number
            self._set(number)
        elif self._trial:
            self._set(self._before_trial)
        self._trial = number
        self._window()

    def _note(self, seconds: float) -> None:
        self._units += 1
        self._spent += seconds
        if self._trial:
            # The first unit on another number of threads also starts and ends threads.
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
            self._pause, self._not_before = {}, {self._before_trial: now + FIRST}
            self._window()
        else:
            pause = self._pause.get(number, FIRST)
            self._not_before[number] = now + pause
            self._pause[number] = min(2 * pause, LAST)
            self._try(0)

    def _look(self) -> None:
        """Starts a trial of another number of threads if the last window suggests one."""
        wall, used, idle = (now - start for now, start in zip(self._now(), self._start_times, strict=True))
        wall = max(wall, 1e-3)  # a clock may be set back
        free = idle / wall
        others = self.cores - free - used / wall
        fewer = max(min(round(self.cores - others), self.number - 1), 1)
        more = min(self.number + max(round(free), 1), self.most)
        candidate = 0
        if self.number > 1 and others > CROWDED:
            candidate = fewer
        elif self.number < self.most and free > ROOM:
            candidate = more
        elif self.clock.wall() - self._last_trial > EXPLORE:
            candidate = more if self.number == 1 else fewer
        if candidate and candidate != self.number and self.clock.wall() >= self._not_before.get(candidate, 0.0):
            self._try(candidate)
        else:
            self._window()


# One per process, like PyTorch's number of threads.
threads = Threads()


def paced(parts: Iterable[T], kind: str) -> Iterator[T]:
    """Yields parts of some work; the caller's work on each part is measured as one unit."""
    for part in parts:
        with threads.unit(kind):
            yield part
