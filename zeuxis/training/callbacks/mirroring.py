"""Mirrors a run to its store while it is trained.

The run is staged after a checkpoint, which takes second names of its files and no time, and sent by a thread. A failure
is said once and tried again; the training never waits for the store, except at its end, for a few attempts.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from zeuxis.errors import UserError
from zeuxis.files import LockedError, WriteError, first_line, unfinished
from zeuxis.progress import say
from zeuxis.stores import ChangedError, Copy, Staged, copy_of
from zeuxis.training.callbacks.base import Callback

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["Mirror"]

# Seconds between renewals of the lease, and between attempts, first and longest.
RENEWED, PAUSE, LONGEST = 60.0, 1.0, 60.0
# Attempts that are made at the end of the training.
LAST_ATTEMPTS = 4


class Sender(threading.Thread):
    """Sends the newest staged state of a run, and renews its lease.

    Attributes:
        trouble: why it failed last, until it succeeds.
        lost: whether the store has another state of the run, so that nothing is sent any more.
    """

    def __init__(self, copy: Copy) -> None:
        super().__init__(name=f"mirror of {copy.name}", daemon=True)
        self.copy, self.trouble, self.lost = copy, "", False
        self._waiting: Staged | None = None
        self._exchange = threading.Lock()
        self._due, self._ended = threading.Event(), threading.Event()

    def offer(self, staged: Staged) -> None:
        """Takes a newer state, in place of one that was not sent yet."""
        with self._exchange:
            older, self._waiting = self._waiting, staged
        if older is not None:
            older.discard()
        self._due.set()

    def end(self) -> bool:
        """Waits until the last state is sent, or could not be; returns whether it was."""
        self._ended.set()
        self._due.set()
        self.join()
        return not self.trouble

    def run(self) -> None:
        """Sends what is offered, until the end."""
        failures, left = 0, LAST_ATTEMPTS
        while not self.lost and left:
            self._due.wait(RENEWED)
            self._due.clear()
            ended = self._ended.is_set()
            if self._send():
                failures = 0
                if ended and self._waiting is None:
                    return
                continue
            failures, left = failures + 1, left - ended
            if ended:
                time.sleep(PAUSE)
            else:  # the end of the training ends the pause
                self._ended.wait(min(PAUSE * 2**failures, LONGEST))
            self._due.set()

    def _send(self) -> bool:
        """Renews the lease and sends the newest state; keeps it for another attempt if that fails."""
        with self._exchange:
            staged, self._waiting = self._waiting, None
        try:
            self.copy.take()
            if staged is not None:
                self.copy.push(staged)
                staged.discard()
            self.trouble = ""
        except (ChangedError, LockedError) as error:
            self.lost, self.trouble = True, str(error)
        except Exception as error:  # noqa: BLE001 - whatever a store does, the training goes on
            self.trouble = f"{first_line(error).rstrip('.')}."
            with self._exchange:
                if self._waiting is None:
                    self._waiting = staged
                elif staged is not None:
                    staged.discard()
        return not self.trouble


class Mirror(Callback):
    """Mirrors the run after each checkpoint, if its folder stands for one in a store."""

    def __init__(self) -> None:
        self._sender: Sender | None = None
        self._said = ""
        self._stack = ExitStack()

    def begin(self, trainer: Trainer) -> None:
        copy = copy_of(trainer.folder)
        if copy is None:
            return
        try:
            copy.take()
        except LockedError as error:
            raise LockedError(
                f"{error} Nothing was trained; the run of this machine is in {trainer.folder}."
            ) from error
        except UserError as error:
            self._say(trainer, f"{error} The training goes on, and the store is tried again.")
        self._place = self._stack.enter_context(unfinished(copy.store.folder))
        self._sender = Sender(copy)
        self._sender.start()
        self._offer(trainer)

    def iterated(self, trainer: Trainer) -> None:
        if self._sender is None:
            return
        if trainer.saves:
            self._offer(trainer)
        sender = self._sender
        if sender.trouble:
            what = "it is mirrored no longer" if sender.lost else "the store is tried again"
            self._say(trainer, f"{sender.trouble} The training goes on, and {what}.")

    def _offer(self, trainer: Trainer) -> str:
        """Offers the newest state to the sender; returns why it cannot, or nothing."""
        assert self._sender is not None
        try:
            self._sender.offer(self._sender.copy.stage(self._place))
        except WriteError as error:
            self._say(trainer, f"{error} The training goes on without its mirror.")
            return str(error)
        return ""

    def _say(self, trainer: Trainer, words: str) -> None:
        """Says what fails once, until something else does."""
        if words != self._said:
            self._said = words
            trainer.say(words)

    def end(self, trainer: Trainer) -> None:
        if self._sender is None:
            return
        with self._stack:
            sender, copy = self._sender, self._sender.copy
            trouble = self._offer(trainer)
            if sender.end() and not trouble:
                say(f"'{copy.address}' is up to date, at step {trainer.step}.")
                self._release(copy)
            else:
                later = "" if sender.lost else " A later command with this address sends it."
                trouble = trouble or sender.trouble
                say(f"'{copy.address}' is not up to date: {trouble} The run is in {trainer.folder}.{later}")

    def _release(self, copy: Copy) -> None:
        try:
            copy.release()
        except UserError as error:
            say(f"{error} Other machines take the run for one that is being trained for a few minutes.")
