"""Several trainings at once on one machine: each in a process of its own, with an equal share of the cores.

Threads of this process wait for the processes (`zeuxis.study.worker`). A process that dies, because the system or a
person killed it, is started once more and goes on from its run folder. Closing its standard input asks a process to
save and end; so all end with this one, however this one ends.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from zeuxis.errors import DivergedError, StoppedError, UserError
from zeuxis.progress import console, plain, say
from zeuxis.system import apart, cores_each, ctrl_c_raises, ended_by

if TYPE_CHECKING:
    from zeuxis.study.plan import Part

__all__ = ["STOPPED", "Pool"]

STOPPED = "Stopped. Run the same command again to continue with the runs in {folder}."
# Processes for one training: the first, and one more if it dies.
TRIES = 2
# Seconds between lines of one training if the output is not a terminal.
LINE_EVERY = 15.0


class Pool:
    """Processes that train, at most `jobs` at once. Leaving its block stops those that run, which save first.

    Args:
        folder: where the runs go.
        jobs: number of processes.
        progress: show a line for each training.
    """

    def __init__(self, folder: Path, jobs: int, *, progress: bool = True) -> None:
        self.folder, self.progress = folder, progress
        threads = os.environ.get("OMP_NUM_THREADS") or str(cores_each(jobs))
        self._environment = os.environ | {"OMP_NUM_THREADS": threads}
        self._threads = ThreadPoolExecutor(jobs)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping, self._lock = False, threading.Lock()
        self._lines = Lines()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._stopping = True
            for process in self._running.values():
                _close(process)
        self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, part: Part, after: Future[None] | None = None) -> Future[None]:
        """Trains a part as soon as a process is free, and another that was submitted before has ended."""
        return self._threads.submit(self._train, part, after)

    def outcome(self, future: Future[None]) -> DivergedError | None:
        """Waits for a training; returns its error if it diverged.

        Raises:
            UserError: as in `train_part`; if its process died twice; and after Ctrl-C.
        """
        try:
            with ctrl_c_raises(), self._lines.shown(self.progress):
                while not future.done():
                    wait([future], timeout=1.0)
            future.result()
        except DivergedError as error:
            return error
        except KeyboardInterrupt:
            raise StoppedError(STOPPED.format(folder=self.folder)) from None
        return None

    def _train(self, part: Part, after: Future[None] | None) -> None:
        if after is not None:
            wait([after])
        for tries_left in reversed(range(TRIES)):
            answer, said, status = self._run(part)
            if answer is not None:
                error = pickle.loads(answer)
                if error is not None:
                    raise error
                return
            reason = f"its process ended ({ended_by(status)}{f': {said}' if said else ''})"
            if tries_left:
                say(f"{part.name}: {reason}. It is started once more, from its last checkpoint.")
        raise UserError(
            f"The training of {self.folder / part.name} was given up, because {reason}, {TRIES} times. A system ends "
            "processes when memory is short: try a smaller --jobs. The same command continues where it stopped."
        )

    def _run(self, part: Part) -> tuple[bytes | None, str, int]:
        """Runs a process; returns its answer, None if it died, the last line that it said, and its exit status."""
        with tempfile.TemporaryFile() as answer:
            process = self._start(part, answer)
            try:
                said = self._talk(part, process)
                status = process.wait()
            finally:
                with self._lock:
                    del self._running[part.name]
                    _close(process)
                self._lines.remove(part.name)
            answer.seek(0)
            return (answer.read() if status == 0 else None), said, status

    def _start(self, part: Part, answer: IO[bytes]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopping:
                raise StoppedError(STOPPED.format(folder=self.folder))
            process = subprocess.Popen(
                [sys.executable, "-m", "zeuxis.study.worker"], stdin=subprocess.PIPE, stdout=answer,
                stderr=subprocess.PIPE, env=self._environment, **apart(),
            )  # fmt: skip
            self._running[part.name] = process
            return process

    def _talk(self, part: Part, process: subprocess.Popen[bytes]) -> str:
        """Sends a process its task and shows what it says until it ends; returns the last line."""
        assert process.stdin is not None and process.stderr is not None
        with suppress(OSError):  # it has died, or is stopped
            process.stdin.write(pickle.dumps((part, self.folder, self.progress)))
            process.stdin.flush()
        line = ""
        for raw in process.stderr:
            line = raw.decode("utf-8", "replace").rstrip() or line
            self._lines.add(part.name, line)
        return line


def _close(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError, ValueError):
        assert process.stdin is not None
        process.stdin.close()


class Lines:
    """The newest line of each training: on a terminal in place, elsewhere now and then; all else as it comes."""

    def __init__(self) -> None:
        self._rows: dict[str, str] = {}
        self._said: dict[str, float] = {}

    def add(self, name: str, line: str) -> None:
        """Takes a line that a training says; those that begin with its name say how far it is."""
        if not line.startswith(f"{name}  "):
            say(line, lead=f"{name}  ")
        elif console.is_terminal:
            self._rows[name] = line
        elif time.monotonic() - self._said.get(name, -LINE_EVERY) >= LINE_EVERY or "  100%  " in line:
            self._said[name] = time.monotonic()
            say(line)

    def remove(self, name: str) -> None:
        """Forgets a training that has ended."""
        self._rows.pop(name, None)

    def _text(self) -> Text:
        return Text("\n".join(plain(line)[: max(console.width - 1, 20)] for line in list(self._rows.values())))

    @contextmanager
    def shown(self, visible: bool) -> Iterator[None]:
        """Shows the lines while the block runs, if there is a terminal."""
        if not visible or not console.is_terminal:
            yield
            return
        with Live(get_renderable=self._text, console=console, refresh_per_second=2, transient=True):
            yield
