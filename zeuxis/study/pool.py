"""Several trainings at once, each in a process that a backend runs (`zeuxis.processes`) and a thread here waits for."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from zeuxis.errors import DivergedError, PrunedError, one_of, require_within
from zeuxis.processes import Backend, Processes, Task, stopped
from zeuxis.progress import console, plain, say
from zeuxis.system import ctrl_c_raises

if TYPE_CHECKING:
    from zeuxis.study.plan import Part

__all__ = ["Pool", "backend_on"]

# Seconds between lines of one training if the output is not a terminal.
LINE_EVERY = 15.0
# Largest number of trainings at once.
MOST_JOBS = 256


@contextmanager
def backend_on(on: str, jobs: int | None, total: int) -> Iterator[Backend | None]:
    """Yields where trainings run; None for this process, one after another.

    Args:
        on: `local`, this machine; `ray` or `ray:ADDRESS`, a Ray cluster.
        jobs: trainings at once; by default one, or as many as the cluster holds.
        total: number of trainings.

    Raises:
        UserError: for an unknown name, and as in `zeuxis.cluster.connected`.
    """
    if jobs is not None:
        require_within("The number of jobs", jobs, 1, MOST_JOBS)
    name, _, address = on.partition(":")
    if name == "ray":
        from zeuxis.cluster import connected

        with connected(address, jobs, total) as cluster:
            yield cluster
    elif on == "local":
        yield Processes(jobs) if jobs is not None and jobs > 1 else None
    else:
        raise one_of("place to train on", on, ["local", "ray"])


class Pool:
    """Trainings at once. Leaving its block stops those that run, which save first.

    Args:
        folder: where the runs go.
        backend: where the processes run.
        progress: show a line for each training.
    """

    def __init__(self, folder: Path, backend: Backend, *, progress: bool = True) -> None:
        self.folder, self.backend, self.progress = folder, backend, progress
        self._threads = ThreadPoolExecutor(backend.jobs)
        self._lines = Lines()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.backend.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, part: Part, after: Future[None] | None = None) -> Future[None]:
        """Trains a part as soon as a process is free, and another that was submitted before has ended."""
        folder = self.folder.absolute()  # a process on another machine may work elsewhere
        gpu = part.recipe.training.device not in ("cpu", "mps")
        task = Task(part.name, folder, pickle.dumps((part, folder, self.progress)), gpu)
        return self._threads.submit(self._train, task, after)

    def outcome(self, future: Future[None]) -> DivergedError | PrunedError | None:
        """Waits for a training; returns its error if it diverged or was pruned.

        Raises:
            UserError: as in `train_part`; if its process died too often; and after Ctrl-C.
        """
        try:
            with ctrl_c_raises(), self._lines.shown(self.progress):
                while not future.done():
                    wait([future], timeout=1.0)
            future.result()
        except (DivergedError, PrunedError) as error:
            return error
        except KeyboardInterrupt:
            if self.progress:
                say("Stopping after the running steps, and saving.")
            raise stopped(self.folder) from None
        return None

    def _train(self, task: Task, after: Future[None] | None) -> None:
        if after is not None:
            wait([after])
        try:
            error = self.backend.run(task, partial(self._lines.add, task.name))
        finally:
            self._lines.remove(task.name)
        if error is not None:
            raise error


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
