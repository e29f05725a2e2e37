"""One process at a time trains a run: a lock in its folder, which dies with its owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from zeuxis.errors import UserError
from zeuxis.files import WriteError, why

__all__ = ["alone", "is_trained"]

NAME = "lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder while the block runs.

    Raises:
        UserError: if another process holds it, or the folder cannot be written.
    """
    lock = FileLock(folder / NAME, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder} is being trained by another process; wait until it ends, or stop it.") from None
    except OSError as error:
        raise WriteError(f"{folder} cannot be written: {why(error)}.") from error
    try:
        yield
    finally:
        lock.release()


def is_trained(folder: Path) -> bool:
    """Whether a process is training the run in this folder."""
    if not (folder / NAME).exists():
        return False
    try:
        with alone(folder):
            return False
    except WriteError:  # nobody can tell in a folder that is not ours
        return False
    except UserError:
        return True
