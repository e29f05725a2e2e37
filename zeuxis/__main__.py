"""The process of the command `zeuxis`, which is also `python -m zeuxis`: its signals, its streams and its exit code.

**Signals.** SIGINT (Ctrl-C), SIGTERM and SIGHUP end the process with one sentence and exit code 130. The first one lets
what is at work remove its temporary files; one that comes during an import, and a second one, end the process at once.
While a model trains, the trainer answers the first signal, and saves the run. Signals are answered as soon as Python
runs this module, so nothing is imported here that Python has not loaded by then; what is heavy comes later.

**Streams.** What is printed is worth less than what is made. A standard stream that is closed, full or gone fails no
command: the work is done first, and a failed standard output is told at the end, with exit code 1. Characters that a
stream cannot take are written out, as in `\\u2193`.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, TextIO

__all__ = ["main"]

STOPPED = 130
# SIGHUP is a terminal that was closed; Windows has none.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(BaseException):
    """Unwinds the process after a signal; no `except Exception` on the way keeps it."""


class Output(io.RawIOBase):
    """A standard stream that never fails, and keeps its failure for the end.

    Args:
        text: the stream that it stands for, which stays open as long as this one.
    """

    def __init__(self, text: TextIO) -> None:
        self.text, self.raw = text, getattr(text.buffer, "raw", text.buffer)
        self.failure: OSError | None = None

    def write(self, content: Any) -> int:
        """Writes bytes, waiting where the other end is slow; returns how many were taken."""
        try:
            while (written := self.raw.write(content)) is None:  # it is non-blocking, and its other end is full
                select.select([], [self.raw], [])
        except OSError as error:
            self.failure = error
            return len(content)
        return int(written)

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The number of the stream below."""
        return int(self.raw.fileno())

    def isatty(self) -> bool:
        """Whether the stream below is a terminal."""
        return bool(self.raw.isatty())


_received = 0


def main() -> NoReturn:
    """Runs the command line to its end, whatever signals come and whatever becomes of its output."""
    out = _safe_streams()
    # What is ignored stays ignored: `nohup` ignores SIGHUP so that a training outlives its terminal.
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _answer)
    sys.unraisablehook = _unraisable
    code: Any = 0
    try:
        from zeuxis.cli import main as run

        run()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        if not _received:
            raise
        _say_stopped()
        code = STOPPED
    sys.stdout.flush()
    if out.failure:
        code = code or 1
        if not isinstance(out.failure, BrokenPipeError):  # the reader has seen enough, as in `zeuxis recipes | head`
            from zeuxis.files import why

            sys.stderr.write(f"Error: The output cannot be written: {why(out.failure)}. What was made is saved.\n")
    sys.stderr.flush()
    for number in SIGNALS:  # the work is done; Python's own end is not to be disturbed
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def _safe_streams() -> Output:
    """Puts safe streams in the place of the standard ones, whether open or closed; returns the standard output."""
    # A closed stream's number would otherwise go to the next file that is opened, and messages into that file.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - open while the process lives
    outputs = []
    for name in ("stdout", "stderr"):
        outputs.append(Output(getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")))  # noqa: PTH123, SIM115
        text = outputs[-1].text
        wrapped = io.TextIOWrapper(
            io.BufferedWriter(outputs[-1]), text.encoding, "backslashreplace", line_buffering=bool(text.line_buffering)
        )
        setattr(sys, name, wrapped)
    return outputs[0]


def _answer(number: int, frame: FrameType | None) -> None:
    """Answers a signal: unwinds the process, or ends it at once where that cannot be done or was begun before."""
    global _received
    again, _received = _received, number
    if again or _importing(frame):  # an import that is broken off can leave a library that crashes while it unwinds
        _end()
    raise Interrupted


def _importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(unraisable: Any) -> None:
    """Python drops what is raised in a destructor or callback; a signal must not be dropped."""
    if isinstance(unraisable.exc_value, Interrupted):
        _end()
    sys.__unraisablehook__(unraisable)


def _end() -> NoReturn:
    _say_stopped()
    os._exit(STOPPED)


def _say_stopped() -> None:
    # A bar that was broken off has hidden the cursor.
    cursor = "\x1b[?25h\n" if os.isatty(2) else ""
    sentence = f"{cursor}Stopped by {signal.Signals(_received).name}. What was saved before stays.\n"
    with suppress(OSError):
        os.write(2, sentence.encode())


if __name__ == "__main__":
    main()
