"""The protocol of workers: they read a number of steps from standard input and answer with the seconds, line by line.

Imports only the standard library, so that any environment can import it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

__all__ = ["claim_output", "read_task", "serve", "wanted"]


def claim_output() -> TextIO:
    """Returns standard output for the answers, and redirects what libraries print to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    return answers


def read_task() -> dict[str, Any]:
    """Reads the task from the JSON file given on the command line."""
    task: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    return task


def wanted(answers: TextIO, answer: object) -> int:
    """Writes an answer and waits for the next number of steps; 0 if there is none."""
    print(answer, file=answers, flush=True)
    return int(sys.stdin.readline() or 0)


def serve(step: Callable[[], object], answers: TextIO, wait: Callable[[], object] = lambda: None) -> None:
    """Runs rounds until no more are requested; calls `wait` after each, for steps that are still running."""
    steps = wanted(answers, "ready")
    while steps:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        steps = wanted(answers, time.perf_counter() - start)
