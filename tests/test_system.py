"""What differs between systems, each branch run here: tests stand in for Windows and macOS."""

from __future__ import annotations

import ast
import ctypes
import fcntl
import os
import platform
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import zeuxis
from zeuxis import system
from zeuxis.files import TEMPORARY, WriteError, is_locked, is_name, locked, path_part, write_file
from zeuxis.training import Callback

PACKAGE = Path(zeuxis.__file__).parent


def seen_as(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Lets `zeuxis.system` see another platform; libraries see this one, which they were made for."""
    monkeypatch.setattr(system, "sys", SimpleNamespace(platform=name))


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, with the signals that Python has there."""
    seen_as(monkeypatch, "win32")
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", signal.SIGUSR1, raising=False)
    monkeypatch.setattr(Path, "rename", _rename_as_windows)
    counters = SimpleNamespace(peak_wset=5 * 2**20)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda process: counters)


def _rename_as_windows(folder: Path, target: Path) -> Path:
    """Refuses to rename a folder in which a file is open, as Windows does."""
    opened = [Path(file.path) for file in psutil.Process().open_files()]
    if any(path.is_relative_to(folder.resolve()) for path in opened):
        raise PermissionError(13, "The process cannot access the file because it is being used by another process")
    shutil.move(folder, target)
    return target


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """MacOS, which has no /proc."""
    seen_as(monkeypatch, "darwin")
    _without_proc(monkeypatch)


def _without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("read_text", "write_text"):
        real = getattr(Path, name)

        def opened(path: Path, *arguments: Any, _real: Any = real, **named: Any) -> Any:
            if path.is_relative_to("/proc"):
                raise FileNotFoundError(2, "No such file or directory", str(path))
            return _real(path, *arguments, **named)

        monkeypatch.setattr(Path, name, opened)


# -- one module ---------------------------------------------------------------------------------------

# Modules that some system lacks, or that mean something else on each.
MODULES = {"_winapi", "ctypes", "fcntl", "grp", "msvcrt", "posix", "pty", "pwd", "resource", "select", "signal"} | {
    "syslog", "termios", "tty", "winreg"
}  # fmt: skip
# What some system lacks of modules that all have.
PARTS = {
    "os": {
        "chown", "fchmod", "fork", "fsync", "getgid", "getloadavg", "getpgid", "geteuid", "getuid", "kill",
        "killpg", "mkfifo", "name", "nice", "posix_spawn", "sched_getaffinity", "setsid", "statvfs", "sync", "uname",
        "wait", "waitpid",
    },
    "platform": {"system"},
    "subprocess": {"CREATE_NEW_PROCESS_GROUP", "STARTUPINFO"},
    "sys": {"getwindowsversion", "platform"},
}  # fmt: skip
PLACES = ("/dev/", "/proc", "/sys", "libc.so", "kernel32")


def questions(path: Path) -> list[str]:
    """What a module asks of the system it runs on."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and node.body
             and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES | {"os", "sys", "platform"}:
            found.append(f"from {node.module}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in PARTS.get(node.value.id, ()):
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
            if isinstance(node.args[0], ast.Name) and node.args[0].id in PARTS:
                found.append(f"hasattr({node.args[0].id})")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            found += [place for place in PLACES if node.value.startswith(place)]
        elif isinstance(node, ast.keyword) and node.arg in ("start_new_session", "creationflags", "preexec_fn"):
            found.append(node.arg)
    return found


def test_no_other_module_asks_which_system_it_runs_on() -> None:
    asked = {path.relative_to(PACKAGE).as_posix(): questions(path) for path in PACKAGE.rglob("*.py")}
    own = asked.pop("system.py")
    assert {"signal", "select", "ctypes", "resource", "sys.platform", "os.fsync", "/proc"} <= {*own}, (
        "it is found there"
    )
    assert {name: found for name, found in asked.items() if found} == {}


# -- signals and processes ----------------------------------------------------------------------------


def test_the_signals_that_stop() -> None:
    names = [system.signal_name(number) for number in system.stop_handlers()]
    assert names == ["SIGINT", "SIGTERM", "SIGHUP"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in system.stop_handlers(), "as under nohup"
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("windows")
def test_a_training_on_windows_is_saved_when_its_console_asks_and_its_folder_is_locked(tmp_path: Path) -> None:
    """Its folder is renamed when it is complete, though Windows renames no folder whose lock file is open."""

    class Console(Callback):
        def iterated(self, trainer: Any) -> None:
            assert is_locked(trainer.folder)
            if trainer.step == 3:
                signal.raise_signal(signal.SIGUSR1)

    before = signal.getsignal(signal.SIGUSR1)
    run = zeuxis.train("digits-vae", steps=50, runs=tmp_path, progress=False, callbacks=[Console()])
    assert run.step == 4 and not is_locked(run.path)
    assert signal.getsignal(signal.SIGUSR1) == before
    assert [path.name for path in tmp_path.iterdir()] == [run.name]
    assert zeuxis.resume(run, steps=6, progress=False).step == 6


@pytest.mark.usefixtures("windows")
def test_the_cache_is_made_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path))
    zeuxis.train("digits-vae", steps=1, runs=tmp_path / "runs", progress=False)
    (made,) = (tmp_path / "images").iterdir()
    assert sorted(path.name for path in made.iterdir()) == ["digests.bin", "images.bin", "index.json"]


def test_a_process_apart_is_not_reached_by_ctrl_c() -> None:
    code = "import os; print(os.getsid(0) == os.getpid())"
    told = subprocess.run([sys.executable, "-c", code], **system.apart(), capture_output=True, text=True, check=True)
    assert told.stdout == "True\n"


def test_another_process_is_asked_to_stop() -> None:
    code = "import time\ntry:\n    print(flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('saved')"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **system.apart())
    assert other.stdout is not None
    other.stdout.readline()
    system.ask_to_stop(psutil.Process(other.pid))
    assert other.communicate(timeout=20)[0] == "saved\n"


@pytest.mark.usefixtures("windows")
def test_processes_on_windows() -> None:
    assert system.apart() == {"creationflags": 0x200}
    sent: list[int] = []
    system.ask_to_stop(SimpleNamespace(send_signal=sent.append))  # type: ignore[arg-type]
    assert sent == [signal.CTRL_BREAK_EVENT]  # type: ignore[attr-defined]


def test_what_ended_a_process() -> None:
    assert system.ended_by(-9) == "SIGKILL" and system.ended_by(3) == "exit status 3"


def test_the_cores_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert system.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert system.cores() == 8


# -- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "mode"), [("linux", os.O_RDONLY), ("darwin", os.O_RDONLY), ("win32", os.O_RDWR)])
def test_a_file_is_synced_with_the_rights_that_the_system_asks_for(
    name: str, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    seen_as(monkeypatch, name)
    monkeypatch.setattr(os, "fsync", lambda number: modes.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE))
    assert write_file(tmp_path / "a.txt", "text").read_text() == "text"
    assert modes == [mode]


@pytest.mark.parametrize(
    ("name", "refusals", "written"), [("linux", 1, "old"), ("win32", 2, "new"), ("win32", 99, "old")]
)
def test_a_file_that_is_open_elsewhere_is_waited_for_on_windows(
    name: str, refusals: int, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, left, real = tmp_path / "a.txt", [refusals], Path.replace
    path.write_text("old")

    def refuse(source: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(13, "Access is denied")
        return real(source, target)

    seen_as(monkeypatch, name)
    monkeypatch.setattr(system, "PATIENCE", 0.2)
    monkeypatch.setattr(Path, "replace", refuse)
    if written == "old":
        with pytest.raises(WriteError, match="no permission"):
            write_file(path, "new")
    else:
        write_file(path, "new")
    assert path.read_text() == written and not list(tmp_path.glob(f"{TEMPORARY}*"))


NAMES = {
    "con": "%63on",
    "NUL.txt": "%4EUL.txt",
    "com3": "%63om3",
    "end.": "end%2E",
    "end ": "end%20",
    "console": "console",
}


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize(("name", "allowed"), NAMES.items())
def test_names_that_windows_keeps_are_escaped(name: str, allowed: str) -> None:
    assert path_part(name) == allowed and is_name(allowed)
    assert is_name(name) == (name == allowed)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_windows_keeps_are_names_elsewhere(name: str) -> None:
    assert path_part(name) == name and is_name(name)


@pytest.mark.usefixtures("windows")
def test_windows_has_no_folder_of_devices() -> None:
    assert not system.holds_devices(Path("/dev"))


def test_the_folder_of_devices() -> None:
    assert system.holds_devices(Path("/dev")) and not system.holds_devices(Path("/tmp"))


# -- terminal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "has"), [("linux", False), ("darwin", True), ("win32", True)])
def test_displays(name: str, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    seen_as(monkeypatch, name)
    assert system.has_display() == has
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert system.has_display()


def test_a_full_pipe_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    monkeypatch.setattr(select, "select", lambda *streams: waited.append(streams))
    system.wait_until_writable("pipe")
    assert waited == [([], ["pipe"], [])]
    seen_as(monkeypatch, "win32")
    system.wait_until_writable("pipe")
    assert len(waited) == 1, "select takes no pipe there"


# -- memory and processor -----------------------------------------------------------------------------


def test_memory_is_kept_by_glibc_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    libc = SimpleNamespace(mallopt=lambda *options: calls.append(options), malloc_trim=calls.append)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    system.keep_freed_memory()
    system.return_freed_memory()
    assert calls == [(-3, 1 << 30), (-1, 1 << 30), 0]
    with system.freed_memory_kept():
        with system.freed_memory_kept():
            pass
        assert calls.count(0) == 1, "the block around it still keeps its memory"
    assert calls.count(0) == 2
    calls[3:] = []

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    system.keep_freed_memory()
    system.return_freed_memory()
    assert len(calls) == 3


def test_peak_memory_is_measured_anew_on_linux() -> None:
    block = b"x" * (100 * 2**20)
    before = system.peak_memory()
    del block
    system.return_freed_memory()
    system.reset_peak_memory()
    assert before - system.peak_memory() > 50


@pytest.mark.usefixtures("mac")
def test_peak_memory_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    system.reset_peak_memory()
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3 * 2**20))
    assert system.peak_memory() == 3.0
    seen_as(monkeypatch, "freebsd14")
    assert system.peak_memory() == 3 * 1024.0


@pytest.mark.usefixtures("windows")
def test_peak_memory_on_windows() -> None:
    assert system.peak_memory() == 5.0


def test_the_processor_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    _without_proc(monkeypatch)
    assert system.processor_name() == "arm"
    seen_as(monkeypatch, "darwin")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="Apple M4\n"))
    assert system.processor_name() == "Apple M4"

    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert system.processor_name() == "arm"


def test_asking_whether_a_folder_is_locked_does_not_lock_it(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert is_locked(tmp_path)
    asked: list[bool] = []

    def ask() -> None:
        asked.extend(is_locked(tmp_path) for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        with locked(tmp_path):  # while others ask
            pass
    for thread in threads:
        thread.join()
    assert len(asked) == 600


def test_a_second_thread_never_sees_half_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "slow_entries"
    package.mkdir()
    (package / "__init__.py").write_text("from zeuxis.registry import Registry\nTHINGS = Registry('thing', __name__)\n")
    for name in "ab":
        (package / f"{name}.py").write_text(
            f"import time\nfrom slow_entries import THINGS\ntime.sleep(0.1)\nTHINGS.register('{name}', 1)\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    from slow_entries import THINGS  # type: ignore[import-not-found]

    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(len(THINGS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [2, 2, 2]
