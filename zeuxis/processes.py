"""Processes that train, and where they run: on this machine, or on a Ray cluster (`zeuxis.cluster`).

A process (`zeuxis.study.worker`) takes a task from its standard input, says on standard error how far it is, and
answers how it ended. Closing its standard input asks it to save and end; so it ends with whoever started it, however
that one ends. Imports little: a cluster's machines wait for processes without loading PyTorch themselves.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from zeuxis.errors import StoppedError, UserError
from zeuxis.progress import say
from zeuxis.system import apart, cores_each, ended_by

__all__ = ["Backend", "DiedError", "Process", "Processes", "Task", "stopped"]

# Processes for one training: the first, and one more if it dies.
TRIES = 2


def stopped(folder: Path) -> StoppedError:
    """Returns the error of trainings into a folder that were stopped."""
    return StoppedError(f"Stopped. Run the same command again to continue with the runs in {folder}.")


class DiedError(Exception):
    """The death of a process, and its reason."""


class Task(NamedTuple):
    """A training that a process is given.

    Attributes:
        name: name of its run.
        folder: where its run goes.
        content: what the process reads: the training, the folder and whether to show progress, pickled.
        gpu: whether it trains on a GPU where there is one.
    """

    name: str
    folder: Path
    content: bytes
    gpu: bool = False

    def say_again(self, reason: str) -> None:
        """Says that a process has died and another is started."""
        say(f"{self.name}: {reason}. It is started once more, from its last checkpoint.")

    def given_up(self, reason: str, tries: int) -> UserError:
        """Returns the error of a task whose processes have died so many times."""
        return UserError(
            f"The training of {self.folder / self.name} was given up, because {reason}, {tries} times. A system ends "
            "processes when memory is short: try a smaller --jobs. The same command continues where it stopped."
        )


class Process:
    """A process that trains.

    Args:
        task: what it reads, as in `Task.content`.
        threads: its number of threads.
        cwd: its working folder; this process's if None.
    """

    def __init__(self, task: bytes, threads: int | str, cwd: str | None = None) -> None:
        self._task, self._said = task, ""
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
        self._process = subprocess.Popen(
            [sys.executable, "-m", "zeuxis.study.worker"], stdin=subprocess.PIPE, stdout=self._answer,
            stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, cwd=cwd, **apart(),
        )  # fmt: skip

    def lines(self) -> Iterator[str]:
        """Gives it its task, and yields what it says until it ends."""
        assert self._process.stdin is not None and self._process.stderr is not None
        with suppress(OSError, ValueError):  # it has died, or is stopped
            self._process.stdin.write(self._task)
            self._process.stdin.flush()
        for raw in self._process.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            self._said = line or self._said
            yield self._said

    def answer(self) -> UserError | None:
        """Waits until it ends; returns its error, or None if it has trained.

        Raises:
            DiedError: if it did not answer.
        """
        status = self._process.wait()
        if status != 0:
            raise DiedError(f"its process ended ({ended_by(status)}{f': {self._said}' if self._said else ''})")
        self._answer.seek(0)
        error: UserError | None = pickle.load(self._answer)
        return error

    def close(self) -> None:
        """Asks it to save and end."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()


class Backend(ABC):
    """Where tasks run, each in a process of its own.

    Attributes:
        jobs: tasks at once.
    """

    jobs: int

    @abstractmethod
    def run(self, task: Task, said: Callable[[str], None]) -> UserError | None:
        """Runs a task, again if its process dies, and returns its error, or None if it has trained.

        Args:
            task: the task.
            said: is called with each line that its process says.

        Raises:
            UserError: if its process dies too often, or if the backend was stopped.
        """

    @abstractmethod
    def stop(self) -> None:
        """Asks all running processes to save and end; no other starts."""


class Processes(Backend):
    """This machine: each process has an equal share of the cores.

    Args:
        jobs: tasks at once.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._threads = os.environ.get("OMP_NUM_THREADS") or cores_each(jobs)
        self._running: set[Process] = set()
        self._stopping, self._lock = False, threading.Lock()

    def run(self, task: Task, said: Callable[[str], None]) -> UserError | None:
        """As in `Backend`."""
        for tries_left in reversed(range(TRIES)):
            try:
                with self._started(task) as process:
                    for line in process.lines():
                        said(line)
                    return process.answer()
            except DiedError as death:
                if not tries_left:
                    raise task.given_up(str(death), TRIES) from death
                task.say_again(str(death))
        raise AssertionError("unreachable")

    @contextmanager
    def _started(self, task: Task) -> Iterator[Process]:
        with self._lock:
            if self._stopping:
                raise stopped(task.folder)
            process = Process(task.content, self._threads)
            self._running.add(process)
        try:
            yield process
        finally:
            with self._lock:
                self._running.discard(process)
                process.close()

    def stop(self) -> None:
        """As in `Backend`."""
        with self._lock:
            self._stopping = True
            for process in self._running:
                process.close()
