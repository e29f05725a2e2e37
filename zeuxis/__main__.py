"""The process of the command `zeuxis` (or `python -m zeuxis`): its signals, its streams and its exit code.

**Signals.** SIGINT (Ctrl-C), SIGTERM and SIGHUP (`zeuxis.system`) end the process with one sentence and exit code 130.
After the first signal, running code still removes its temporary files; a second signal, or one
during an import, ends the process at once. While a model trains, the trainer handles the first signal and saves the
run. To handle signals from the start, this module imports only what Python has already loaded; heavy imports come
later.

**Streams.** Results matter more than output. A standard stream that is closed, full or gone does not make a command
fail: the work is finished first, then a failed standard output is reported, with exit code 1. Characters that a
stream cannot encode are escaped, as in `\\u2193`.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, TextIO

from zeuxis import system

__all__ = ["main"]

STOPPED = 130


class Interrupted(BaseException):
    """Unwinds the process after a signal; a BaseException, so that no `except Exception` catches it."""


class Output(io.RawIOBase):
    """A standard stream whose writes never raise; `failure` holds the last error.

    Args:
        text: the stream that it replaces, which stays open as long as this one.
    """

    def __init__(self, text: TextIO) -> None:
        self.text, self.raw = text, getattr(text.buffer, "raw", text.buffer)
        self.failure: OSError | None = None

    def write(self, content: Any) -> int:
        """Writes bytes, waiting for a slow reader; returns how many were written."""
        try:
            while (count := self.raw.write(content)) is None:  # a non-blocking stream whose buffer is full
                system.wait_until_writable(self.raw)
        except OSError as error:
            self.failure = error
            return len(content)
        return int(count)

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The file descriptor of the underlying stream."""
        return int(self.raw.fileno())

    def isatty(self) -> bool:
        """Whether the underlying stream is a terminal."""
        return bool(self.raw.isatty())


_received = 0


def main() -> NoReturn:
    """Runs the command line; handles signals and failing output streams."""
    out = _safe_streams()
    system.set_handlers(dict.fromkeys(system.stop_handlers(), _answer))
    sys.unraisablehook = _unraisable
    code: Any = 0
    try:
        from zeuxis.cli import main as run

        run()
    except SystemExit as error:
        code = error.code
    except BaseException:
        if not _received:
            raise
        _say_stopped()
        code = STOPPED
    sys.stdout.flush()
    if out.failure:
        code = code or 1
        if not isinstance(out.failure, BrokenPipeError):  # a reader may stop early, as in `zeuxis recipes | head`
            from zeuxis.files import why

            sys.stderr.write(f"Error: The output cannot be written: {why(out.failure)}. The results are saved.\n")
    sys.stderr.flush()
    system.ignore_stops()  # the work is done; do not disturb the interpreter's shutdown
    sys.exit(_reported(code))


def _reported(code: Any) -> Any:
    """Returns the exit code; of one of several processes that train together, after reporting it to their launcher."""
    path = os.environ.get("ZEUXIS_EXIT_CODE")  # as in `zeuxis.training.distributed`
    if path is None or "WORLD_SIZE" not in os.environ:
        return code
    if os.environ.get("RANK") == "0":
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib is not loaded yet
            file.write(str(code or 0))
    return 0


def _safe_streams() -> Output:
    """Replaces the standard streams, open or closed, by safe ones; returns the standard output."""
    # Otherwise the next file opened would get a closed stream's descriptor, and messages would go into that file.
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
    """Handles a signal: unwinds the process, or ends it at once during an import or after an earlier signal."""
    global _received
    earlier, _received = _received, number
    if earlier or _importing(frame):  # a library whose import is interrupted can crash while the process unwinds
        _end()
    raise Interrupted


def _importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(unraisable: Any) -> None:
    """Ends the process if a signal came in a destructor or callback, where Python drops exceptions."""
    if isinstance(unraisable.exc_value, Interrupted):
        _end()
    sys.__unraisablehook__(unraisable)


def _end() -> NoReturn:
    _say_stopped()
    os._exit(STOPPED)


def _say_stopped() -> None:
    # An interrupted progress bar leaves the cursor hidden.
    cursor = "\x1b[?25h\n" if os.isatty(2) else ""
    sentence = f"{cursor}Stopped by {system.signal_name(_received)}. What was saved before is kept.\n"
    with suppress(OSError):
        os.write(2, sentence.encode())


if __name__ == "__main__":
    main()
