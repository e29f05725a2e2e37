"""Work that takes long: each piece is a process of its own, which outlives the page and the studio.

A job is a command of the command line. What it is and what it printed lies in `RUNS/.studio`, so that a studio that
was killed and started again shows it. A training is stopped by Ctrl-C, sent to whichever process holds its run's lock:
also one that was started in a terminal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex

import psutil

from zeuxis.errors import UserError
from zeuxis.files import LOCK, make_folder, write_file
from zeuxis.progress import plain
from zeuxis.system import apart, ask_to_stop

__all__ = ["Job", "Jobs", "holder"]

# Bytes of a job's output that are shown, and seconds after which an ended job is forgotten.
TAIL, KEPT = 2**14, 7 * 24 * 3600


@dataclass(frozen=True)
class Job:
    """A command that was started from the studio.

    Attributes:
        id: of its files.
        kind: train, resume, figures, report, evaluate, compare or data.
        run: the run that it works on; the new run's name for a training.
        arguments: of the command line.
        pid: of its process.
        born: when the process was started, by the system's clock: a number may be given to another process later.
        started: seconds since 1970.
        result: the file that it writes, if the studio asked for one.
    """

    id: str
    kind: str
    run: str
    arguments: list[str]
    pid: int
    born: float
    started: float
    result: str = ""


class Jobs:
    """The jobs on the runs of one folder.

    Args:
        runs: the folder.
    """

    def __init__(self, runs: Path) -> None:
        self.runs, self.folder = runs, runs / ".studio"
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, kind: str, run: str, arguments: Sequence[str], result: str = "") -> Job:
        """Starts `zeuxis ARGUMENTS` as a process of its own.

        Raises:
            UserError: if its output cannot be kept.
        """
        make_folder(self.folder)
        self._forget()
        name = f"{int(time.time() * 1000):014d}-{token_hex(3)}"
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "zeuxis", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=os.environ | {"COLUMNS": "110"}, **apart(),
            )  # fmt: skip
        self._children[name] = process
        try:
            born = psutil.Process(process.pid).create_time()
        except psutil.Error:  # it has ended already
            born = 0.0
        job = Job(name, kind, run, list(arguments), process.pid, born, time.time(), result)
        write_file(self.folder / f"{name}.json", json.dumps(asdict(job)) + "\n")
        return job

    def all(self) -> list[Job]:
        """Returns all jobs, newest first."""
        jobs = []
        for path in sorted(self.folder.glob("*.json"), reverse=True):
            try:
                jobs.append(Job(**json.loads(path.read_bytes())))
            except (OSError, ValueError, TypeError):  # being removed, or damaged
                continue
        return jobs

    def of(self, run: str, *kinds: str) -> Job | None:
        """Returns the newest job on a run, of some kinds; None if there is none."""
        return next((job for job in self.all() if job.run == run and (not kinds or job.kind in kinds)), None)

    def alive(self, job: Job) -> bool:
        """Whether a job's process still runs."""
        child = self._children.get(job.id)
        if child is not None:
            return child.poll() is None
        try:
            process = psutil.Process(job.pid)
            return bool(abs(process.create_time() - job.born) < 1 and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def output(self, job: Job) -> str:
        """Returns the end of what a job has printed, as plain text."""
        try:
            with (self.folder / f"{job.id}.log").open("rb") as file:
                file.seek(max(file.seek(0, 2) - TAIL, 0))
                return plain(file.read().decode("utf-8", errors="replace").replace("\r", "\n")).strip()
        except OSError:
            return ""

    def failure(self, job: Job) -> str:
        """Returns the sentence with which an ended job failed; "" if it did not."""
        output = self.output(job)
        if self.alive(job):
            return ""
        start = output.rfind("Error: ")
        child = self._children.get(job.id)
        if start >= 0:
            return output[start + len("Error: ") :]
        failed = child is not None and child.returncode not in (0, 130)
        return (output.splitlines() or ["It ended without a word."])[-1] if failed else ""

    def stop(self, run: Path) -> bool:
        """Asks the process that trains a run to save and end; returns whether there is one."""
        process = holder(run)
        if process is None:
            return False
        try:
            ask_to_stop(process)
        except psutil.Error as error:
            raise UserError(f"The process that trains {run.name} cannot be stopped: {error}.") from error
        return True

    def forget(self, job: Job) -> None:
        """Removes the files of a job that has ended."""
        if not self.alive(job):
            for suffix in ("json", "log"):
                (self.folder / f"{job.id}.{suffix}").unlink(missing_ok=True)

    def _forget(self) -> None:
        for job in self.all():
            if time.time() - job.started > KEPT:
                self.forget(job)


def holder(folder: Path) -> psutil.Process | None:
    """Returns the process that holds a run's lock, other than this one; None if there is none that can be seen."""
    lock = str((folder / LOCK).resolve())
    for process in psutil.process_iter(["name"]):
        if process.pid == os.getpid():
            continue
        try:
            if any(file.path == lock for file in process.open_files()):
                return process
        except (psutil.Error, OSError):
            continue
    return None
