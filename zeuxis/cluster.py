"""Trainings on the machines of a Ray cluster, which share the folder of the runs.

Each training is a Ray task with cores of its own, or a GPU. The task starts the same process as `zeuxis.processes` does
on this machine, and passes on what it says. If the process or its machine dies, Ray runs the task once more, wherever
there is room, and the training goes on from its run folder. The processes of a command that ends see their input end,
save and end.

Source: P. Moritz et al., Ray: A Distributed Framework for Emerging AI Applications, OSDI 2018.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from zeuxis.errors import UserError, quoted
from zeuxis.files import first_line, is_locked
from zeuxis.processes import Backend, DiedError, Process, Task, stopped
from zeuxis.progress import say
from zeuxis.system import set_handlers, stop_handlers

__all__ = ["Cluster", "connected"]

# Times that Ray runs a task again: machines of a cluster come and go.
RETRIES = 3
# Seconds between messages of a task; until a cluster answers, or is given up; and until a task that waits is told of.
EVERY, REACHED, CONNECTED, LATE = 0.5, 5.0, 60.0, 20.0
# Seconds for which a task that is run again waits for the process of a machine that was cut off, which then ends.
PATIENCE = 120.0
# Settings of Ray: it reports nothing to its makers, and prints nothing to our standard output.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": ".*"}


class Channel:
    """An actor between the command and its tasks: what they say, how often they began, and whether to stop."""

    def __init__(self) -> None:
        self._said: dict[str, list[str]] = defaultdict(list)
        self._begun: dict[str, int] = defaultdict(int)
        self._reasons: dict[str, str] = {}
        self._stopping = False

    def begin(self, name: str) -> tuple[bool, int]:
        """Counts that a task begins; returns whether it should stop, and how often it has begun."""
        self._begun[name] += 1
        return self._stopping, self._begun[name]

    def tell(self, name: str, lines: list[str], died: str = "") -> bool:
        """Takes what a task says, or why its process has died; returns whether it should stop."""
        self._said[name] += lines
        self._reasons[name] = died
        return self._stopping

    def take(self, name: str) -> tuple[list[str], int, str]:
        """Returns what a task has said, how often it has begun, and why its process has died, if that is known."""
        return self._said.pop(name, []), self._begun[name], self._reasons.get(name, "")

    def stop(self) -> None:
        """Makes all tasks stop."""
        self._stopping = True


def train(task: Task, threads: int, cwd: str, channel: Any) -> UserError | None:
    """A Ray task: trains in a process on this machine; returns its error, or None if it has trained.

    Raises:
        DiedError: if the process dies.
    """
    import ray

    stopping, times = ray.get(channel.begin.remote(task.name))
    if stopping:
        return stopped(task.folder)
    if not task.folder.is_dir():
        return UserError(
            f"The machine {socket.gethostname()} has no folder {task.folder}. The machines of a Ray cluster need one "
            "folder for runs that all of them share, under the same path; choose it with --out."
        )
    waited_since = time.monotonic()
    while times > 1 and is_locked(task.folder / task.name) and time.monotonic() - waited_since < PATIENCE:
        time.sleep(EVERY)
    process = Process(task.content, threads, cwd if Path(cwd).is_dir() else None)
    lines: SimpleQueue[str] = SimpleQueue()
    reader = threading.Thread(target=lambda: deque(map(lines.put, process.lines()), maxlen=0), daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            reader.join(EVERY)
            if ray.get(channel.tell.remote(task.name, [lines.get() for _ in range(lines.qsize())])):
                process.close()
        return process.answer()
    except DiedError as death:
        ray.get(channel.tell.remote(task.name, [], str(death)))
        raise
    finally:
        process.close()


class Cluster(Backend):
    """The machines of a Ray cluster. Each task has an equal share of their cores, and of their GPUs if there are any.

    Args:
        ray: the library, connected to the cluster.
        jobs: tasks at once; by default one for each GPU, or for each core if there are none. More than cores wait.
        total: number of tasks.
    """

    def __init__(self, ray: Any, jobs: int | None, total: int) -> None:
        self._ray = ray
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(machine.get("CPU", 0)) for machine in machines]
        gpus = int(sum(machine.get("GPU", 0) for machine in machines))
        if not sum(cores):
            raise UserError("No machine of the Ray cluster offers cores; start one with `ray start --address HEAD`.")
        self.jobs = min(jobs or gpus or sum(cores), total, sum(cores))
        self.cores = max(c for c in range(1, max(cores) + 1) if sum(n // c for n in cores) >= self.jobs)
        self.gpus = 1 / math.ceil(self.jobs / gpus) if gpus else 0.0
        self._channel = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Channel).remote()
        self._train = ray.remote(max_retries=RETRIES, retry_exceptions=[DiedError])(train)
        self._stopping = False

    def run(self, task: Task, said: Callable[[str], None]) -> UserError | None:
        """As in `Backend`."""
        ray = self._ray
        if self._stopping:
            raise stopped(task.folder)
        answer = self._train.options(num_cpus=self.cores, num_gpus=self.gpus * task.gpu, name=task.name).remote(
            task, self.cores, str(Path.cwd()), self._channel
        )
        try:
            died = self._follow(task, answer, said)
            error: UserError | None = ray.get(answer)
            return error
        except ray.exceptions.TaskCancelledError:
            raise stopped(task.folder) from None
        except DiedError as death:
            raise task.given_up(died, RETRIES + 1) from death
        except ray.exceptions.RayActorError as error:
            raise UserError(
                f"The Ray cluster was lost while {task.folder / task.name} was trained. Its trainings save and end; "
                "the same command continues."
            ) from error
        except ray.exceptions.RayError as death:
            raise task.given_up(first_line(death).rstrip("."), RETRIES + 1) from death

    def _follow(self, task: Task, answer: Any, said: Callable[[str], None]) -> str:
        """Passes on what a task says until it ends; returns why its process died last, if it did."""
        times, since, told, died = 0, time.monotonic(), False, ""
        ready: list[Any] = []
        while not ready:
            ready, _ = self._ray.wait([answer], timeout=EVERY)
            lines, begun, died = self._ray.get(self._channel.take.remote(task.name))
            if begun > max(times, 1):
                task.say_again(died or "its machine or its Ray worker has died")
            times = begun
            for line in lines:
                said(line)
            if not begun and self._stopping:
                self._ray.cancel(answer)
            elif not begun and not told and time.monotonic() - since > LATE:
                told = True
                say(f"{task.name} waits: it needs {self._needs()}, and the Ray cluster has none free.")
        return died

    def _needs(self) -> str:
        return f"{self.cores} core{'s' * (self.cores > 1)}{' and a GPU' if self.gpus else ''}"

    def stop(self) -> None:
        """As in `Backend`."""
        self._stopping = True
        with suppress(self._ray.exceptions.RayError):  # the cluster is lost
            self._ray.get(self._channel.stop.remote())


@contextmanager
def connected(address: str, jobs: int | None, total: int) -> Iterator[Cluster]:
    """Yields the Ray cluster at an address, or the one that runs on this machine (`RAY_ADDRESS`, `ray start`).

    Args:
        address: `HOST:PORT` of its head, or `ray://HOST:PORT` of its client server; empty for this machine's.
        jobs: tasks at once, as of `Cluster`.
        total: number of tasks.

    Raises:
        UserError: if Ray is not installed, or if the cluster cannot be reached.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    try:
        import ray
    except ImportError as error:
        raise UserError("--on ray needs Ray: pip install 'zeuxis[ray]'.") from error
    own = not ray.is_initialized()  # in Python, the user may have connected already
    if own:
        _connect(ray, address or os.environ.get("RAY_ADDRESS") or "auto")
    try:
        yield Cluster(ray, jobs, total)
    finally:
        if own:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    """Connects to a cluster: first in another process, because Ray can end a process, or wait for long."""
    if address != "auto":
        _require_listening(address)
    script = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", script, address], capture_output=True, text=True, check=False, timeout=CONNECTED,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _unreachable(address, f"it did not answer within {CONNECTED:.0f} seconds") from None
    if tried.returncode != 0:
        raise _unreachable(address, next(iter(tried.stderr.strip().splitlines()[-1:]), "it did not answer"))
    handlers = stop_handlers()
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    set_handlers(handlers)  # Ray sets one of its own


def _require_listening(address: str) -> None:
    """Raises a `UserError` unless something listens at an address."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UserError(
            f"'{quoted(address)}' is not the address of a Ray cluster; write --on ray:HOST:PORT, as `ray start --head` "
            "shows it, such as ray:10.0.0.5:6379."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, f"nothing answers there ({getattr(error, 'strerror', None) or error})") from error


def _unreachable(address: str, reason: str) -> UserError:
    if address == "auto":
        return UserError(
            "No Ray cluster runs on this machine. Start one with `ray start --head`, or name one: --on ray:HOST:PORT."
        )
    return UserError(f"The Ray cluster at {quoted(address)} cannot be reached: {quoted(reason.rstrip('.'), 300)}.")
