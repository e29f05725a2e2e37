"""How a worker is told to train: a line with a number of steps on standard input, a line with seconds back.

Imports nothing beyond the standard library, so that any environment can read it.
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
    """Keeps standard output for the answers: what libraries print goes to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    return answers


def read_task() -> dict[str, Any]:
    """What to train: the JSON file that the command line names."""
    task: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    return task


def wanted(answers: TextIO, answer: object) -> int:
    """Answers, and waits for the next number of steps; 0 where there is none."""
    print(answer, file=answers, flush=True)
    return int(sys.stdin.readline() or 0)


def serve(step: Callable[[], object], answers: TextIO, wait: Callable[[], object] = lambda: None) -> None:
    """Takes as many steps as each line asks for, and waits until they are done."""
    steps = wanted(answers, "ready")
    while steps:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        steps = wanted(answers, time.perf_counter() - start)
