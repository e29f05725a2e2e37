"""What differs between Linux, macOS and Windows. No other module asks which system it runs on.

| | Linux | macOS | Windows |
|---|---|---|---|
| signals that ask a process to stop | INT, TERM, HUP | INT, TERM, HUP | INT, TERM, BREAK |
| a process of its own | session | session | process group |
| an open file | can be replaced, and its folder renamed | as on Linux | can be neither |
| names of files | any | any | not `CON`, `NUL`, ..., nor with a dot or space at the end |
| freed memory | glibc keeps it if told to | | |
| peak memory | `/proc` | `getrusage`, bytes | peak working set |

Imports little, because the command line needs its signals before anything else is loaded.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

__all__ = [
    "VIRTUAL_FOLDERS", "allowed_name", "apart", "ask_to_stop", "cores", "cores_each", "ctrl_c_raises", "ended_by",
    "freed_memory_kept", "has_display", "hear_interrupts", "holds_devices", "ignore_stops", "interrupt",
    "keep_freed_memory", "peak_memory", "processor_name", "renames_open_folders", "replace", "reset_peak_memory",
    "return_freed_memory", "set_handlers", "signal_name", "stop_handlers", "sync", "wait_until_writable",
]  # fmt: skip

# The kernel's virtual folders, where a system has them; links in them lead everywhere.
VIRTUAL_FOLDERS = (Path("/proc"), Path("/sys"))
# HUP comes when the terminal is closed; BREAK is what one process of Windows can send to another.
STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
# Names that Windows keeps for devices, with any suffix.
DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}
# Seconds for which a file is waited for that another process of Windows has open, such as a virus scanner.
PATIENCE = 2.0


def _is_windows() -> bool:
    return sys.platform == "win32"


def _is_mac() -> bool:
    return sys.platform == "darwin"


# -- signals and processes ----------------------------------------------------------------------------


def stop_handlers() -> dict[int, Any]:
    """Returns the handlers of the signals that ask this process to stop, without ignored signals.

    They stay ignored: `nohup` ignores SIGHUP so that a training outlives its terminal.
    """
    handlers = {number: signal.getsignal(number) for number in _stops()}
    return {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}


def set_handlers(handlers: Mapping[int, Any]) -> None:
    """Sets handlers of signals, by their number."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def ignore_stops() -> None:
    """Makes this process ignore all signals that ask it to stop."""
    set_handlers(dict.fromkeys(_stops(), signal.SIG_IGN))


def _stops() -> list[int]:
    return [getattr(signal, name) for name in STOPS if hasattr(signal, name)]


def signal_name(number: int) -> str:
    """Returns the name of a signal, such as `SIGINT`."""
    return signal.Signals(number).name


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Lets Ctrl-C end the block with a `KeyboardInterrupt`, where the command line would end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def apart() -> dict[str, Any]:
    """Returns the arguments of `subprocess.Popen` for a process that Ctrl-C in this terminal does not reach."""
    if _is_windows():
        import subprocess

        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200)}
    return {"start_new_session": True}


def ask_to_stop(process: psutil.Process) -> None:
    """Asks another process to save and end, as Ctrl-C does; raises what psutil raises."""
    process.send_signal(signal.CTRL_BREAK_EVENT if _is_windows() else signal.SIGINT)  # type: ignore[attr-defined]


def interrupt() -> None:
    """Does in this process what Ctrl-C does, from any thread."""
    signal.raise_signal(signal.SIGINT)


def hear_interrupts() -> None:
    """Makes this process answer Ctrl-C, and `interrupt`, also where whoever started it ignores or blocks them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def ended_by(status: int) -> str:
    """Returns what ended a process, from its exit status: the name of a signal, or the status."""
    return signal_name(-status) if status < 0 else f"exit status {status}"


def cores() -> int:
    """Returns the number of cores that this process may use; Linux can give it fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_each(processes: int) -> int:
    """Returns the number of cores for each of so many processes, at least one."""
    return max(cores() // processes, 1)


# -- files --------------------------------------------------------------------------------------------


def sync(path: Path) -> None:
    """Waits until a file's content is on the disk; Windows asks for the right to write it."""
    with path.open("r+b" if _is_windows() else "rb") as file:
        os.fsync(file.fileno())


def replace(source: Path, target: Path) -> None:
    """Renames a file over another; Windows refuses while some process has the other open, which is waited for."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if not _is_windows() or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def renames_open_folders() -> bool:
    """Whether a folder can be renamed while a file in it is open."""
    return not _is_windows()


def holds_devices(folder: Path) -> bool:
    """Whether a folder holds devices, and links such as `/dev/stdout`, which must not be replaced."""
    return not _is_windows() and folder.resolve() == Path("/dev")


def allowed_name(name: str) -> str:
    """Returns a name that this system accepts for a file: the same, or with a character escaped as in a URL."""
    if not _is_windows():
        return name
    if name.partition(".")[0].rstrip().upper() in DEVICES:
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return f"{name[:-1]}%{ord(name[-1]):02X}" if name[-1:] in (".", " ") else name


# -- terminal -----------------------------------------------------------------------------------------


def has_display() -> bool:
    """Whether a browser can open a window."""
    return _is_windows() or _is_mac() or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ


def wait_until_writable(stream: Any) -> None:
    """Waits until a stream whose buffer was full can be written again; Windows can wait for sockets alone."""
    if _is_windows():
        time.sleep(0.01)
        return
    import select

    select.select([], [stream], [])


# -- memory and processor -----------------------------------------------------------------------------


def _glibc() -> Any:
    """Returns the C library of GNU, or None."""
    import ctypes

    with suppress(OSError):
        return ctypes.CDLL("libc.so.6")
    return None


def keep_freed_memory() -> None:
    """Makes the allocator of glibc, if it is in use, keep freed memory.

    By default it returns every large tensor to the kernel at once, and each new tensor costs page faults. With this,
    the training step of D1 ran 1.3 times and that of D2 1.25 times as fast on two cores.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    with suppress(AttributeError):
        libc = _glibc()
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 1 << 30)


def return_freed_memory() -> None:
    """Returns freed memory to the kernel, where glibc has kept it."""
    with suppress(AttributeError):
        _glibc().malloc_trim(0)


# One entry for each open block of `freed_memory_kept`.
_keeping: list[None] = []


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keeps freed memory inside a `with` block; the outermost of several blocks returns it to the kernel."""
    keep_freed_memory()
    _keeping.append(None)
    try:
        yield
    finally:
        _keeping.pop()
        if not _keeping:
            return_freed_memory()


def reset_peak_memory() -> None:
    """Sets the peak memory of this process to what it has now; Linux alone can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Returns the peak memory of this process in MiB, since the last reset where the system can reset it."""
    if _is_windows():
        import psutil

        return float(psutil.Process().memory_info().peak_wset / 2**20)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if _is_mac() else 1024)


def processor_name() -> str:
    """Returns the processor's name, or at least its kind."""
    import platform
    import subprocess

    with suppress(OSError, StopIteration, subprocess.SubprocessError):
        if _is_mac():
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
