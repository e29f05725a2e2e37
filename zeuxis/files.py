"""Files and folders that are either complete or absent.

`write_file` writes the files that Zeuxis leaves on a disk: to a temporary file in the same folder, which is synced and
then renamed. If the process is killed or the disk is full, either the old file or the new one remains. Temporary files
of a killed process have the prefix `TEMPORARY` and are removed by `sweep`. A failure is reported in one sentence.

A folder that takes long to fill also appears complete: `unfinished` makes a temporary one, under a lock that is freed
when its owner dies, and the caller renames it when it is full.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING
from urllib.parse import quote

from zeuxis.errors import UserError
from zeuxis.system import allowed_name, holds_devices, renames_open_folders, replace, sync

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = [
    "LOCK",
    "PACKED",
    "TEMPORARY",
    "LockedError",
    "WriteError",
    "cache_dir",
    "exists",
    "first_line",
    "is_locked",
    "is_name",
    "locked",
    "make_folder",
    "name_fault",
    "path_part",
    "regular",
    "rename_locked",
    "require_folder",
    "require_inside",
    "require_output",
    "require_place",
    "subfolder",
    "sweep",
    "unfinished",
    "unlock",
    "why",
    "write_file",
    "write_one_of_many",
]

# Prefix of the names of unfinished files.
TEMPORARY = ".writing-"
# Name of a folder's lock file, in that folder.
LOCK = "lock"
# Seconds to wait for a lock, and to ask whether it is held: whoever asks takes it for a moment, on a busy machine for
# longer.
WAIT, ASK = 1.0, 0.02
# Longest name of a file or folder, in bytes: systems allow 255, and numbers and suffixes are added.
LONGEST = 150
# Characters that some system forbids in file names; `%` is the escape character.
FORBIDDEN = frozenset('/\\:*?"<>|%')
# Files of a run that no other may replace.
OF_A_RUN = frozenset({
    "recipe.toml", "environment.json", "journal.jsonl", "warnings.jsonl", "changes.jsonl", "pruned.json",
    "left-out.txt", "evaluation.json", "notes.json", "blind.jsonl", "votes.jsonl", LOCK,
})  # fmt: skip
# Permissions of new files: those that the user's mask leaves.
os.umask(MASK := os.umask(0o022))
# Suffixes of single files that hold many images.
PACKED = (".zip", ".npy", ".npz")
# The locks of this process, by the folder that they were taken for.
_held: dict[Path, FileLock] = {}


class WriteError(UserError):
    """A file or folder that cannot be written: full disk, missing permission, missing folder."""


class LockedError(UserError):
    """A folder that another process has locked."""


def cache_dir() -> Path:
    """Returns the directory of decoded images and of copies from stores: `ZEUXIS_CACHE`, else the platform's cache."""
    from platformdirs import user_cache_path

    variable = os.environ.get("ZEUXIS_CACHE")
    return Path(variable).expanduser() if variable else user_cache_path("zeuxis", False)


def first_line(error: BaseException) -> str:
    """Returns the first line of what a library says of an error, or the error's name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def why(error: BaseException) -> str:
    """Returns the reason for a failed read or write, in words."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return {
        errno.EACCES: "you have no permission",
        errno.EPERM: "you have no permission",
        errno.EROFS: "the disk is read-only",
        errno.ENOENT: "there is no such file or folder",
        errno.EEXIST: "a file is in its place",
        errno.EISDIR: "it is a folder",
        errno.ENOTDIR: "a part of its path is a file",
        errno.ENAMETOOLONG: "its name is too long",
        errno.EFBIG: "this system allows no file as large",
    }.get(number or 0, getattr(error, "strerror", None) or str(error) or type(error).__name__)


def write_file(path: Path, content: str | bytes | Callable[[Path], object]) -> Path:
    """Writes a file atomically and returns its path; replaces a link there, does not follow it.

    Args:
        path: the file; its folder must exist.
        content: text (as UTF-8), bytes, or a function that writes to the path it is called with.

    Raises:
        WriteError: if it cannot be written; an earlier file remains.
    """
    temporary = None
    require_place(path)
    try:
        # The suffix stays the same: writers of pictures choose their format by it.
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        sync(temporary)
        temporary.chmod(0o666 & ~MASK)
        replace(temporary, path)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {why(error)}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def write_one_of_many(path: Path, content: bytes) -> None:
    """Writes a new file atomically, for many small ones: it is not synced, and its temporary name is not unique.

    A killed process leaves the file or nothing; a power failure may leave it incomplete.

    Raises:
        WriteError: if it cannot be written.
    """
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        temporary.write_bytes(content)
        replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WriteError(f"{path} cannot be written: {why(error)}.") from error


def exists(path: Path) -> bool:
    """Whether a file or folder exists; False also where `Path.exists` raises, as for names that are too long."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def require_place(path: Path) -> Path:
    """Returns a path if a file may be written there; call it before long work.

    Raises:
        WriteError: for a folder, a device, or a path in a folder that does not exist.
    """
    if exists(path) and path.is_dir():
        reason = "it is a folder"
    elif exists(path) and (not path.is_file() or holds_devices(path.parent)):
        reason = "it is not a regular file"
    elif not exists(path.parent):
        reason = "its folder does not exist"
    else:
        return path
    raise WriteError(f"{path} cannot be written: {reason}.")


def require_output(path: Path, *endings: str) -> Path:
    """Returns a path if what a command makes may be written there, in place of what it made before.

    Args:
        path: as asked for.
        endings: those that its name may have, such as ".html"; any where none is given.

    Raises:
        WriteError: as `require_place`; for another ending, and for a file that a run is made of.
    """
    if endings and path.suffix.lower() not in endings:
        raise WriteError(f"{path} cannot be written: its name should end in {' or '.join(endings)}.")
    folder = path.parent
    inside = folder.name in ("checkpoints", "snapshots") and exists(folder.parent / "recipe.toml")
    if inside or (path.name in OF_A_RUN and exists(folder / "recipe.toml")):
        raise WriteError(f"{path} cannot be written: it is one of the files that a run is made of.")
    return require_place(path)


def regular(path: Path) -> Path:
    """Returns a path that may be read: reading a pipe or a device might never end.

    Raises:
        OSError: if it is something else than a regular file, or there is nothing.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EISDIR if path.is_dir() else errno.EINVAL, "it is not a regular file")
    return path


def require_folder(path: Path) -> Path:
    """Returns a path if a folder is there or may be made there; call it before long work.

    Raises:
        WriteError: if a part of it is a file.
    """
    if file := next((part for part in (path, *path.parents) if exists(part) and not part.is_dir()), None):
        raise WriteError(f"The folder {path} cannot be made: {file} is a file.")
    return path


def make_folder(path: Path) -> Path:
    """Makes a folder and its parents, and returns its path.

    Raises:
        WriteError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"The folder {path} cannot be made: {why(error)}.") from error
    return path


def subfolder(root: Path, name: str) -> Path:
    """Makes a folder inside a run, and returns its path.

    Raises:
        WriteError: if the run is gone, or if the folder is a link out of it: a run from elsewhere must not choose
            where on this machine files are written.
    """
    path = root / name
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise WriteError(f"The folder {path} cannot be made: {why(error)}.") from error
    return require_inside(root, path)


def require_inside(root: Path, path: Path) -> Path:
    """Returns a path in a run, which need not exist yet, so that nothing is made before all else is checked.

    Raises:
        WriteError: if a link leads out of the run.
    """
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except OSError as error:
        raise WriteError(f"The folder {path} cannot be made: {why(error)}.") from error
    if not inside:
        raise WriteError(f"{path} is a link that leads out of the run, so nothing is written there; remove the link.")
    return path


def sweep(folder: Path) -> None:
    """Removes the unfinished files of a killed process in a folder and below; no other process may write there."""
    for path in folder.rglob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder's lock while the block runs; the lock is freed if the process dies.

    Raises:
        LockedError: if another process holds the lock.
        WriteError: if the folder is gone or cannot be written.
    """
    _held[folder] = _take_lock(folder)
    try:
        yield
    finally:
        _held.pop(folder).release()


def _take_lock(folder: Path, wait: float = WAIT) -> FileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=wait, poll_interval=0.01)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(f"{folder} is in use by another process; wait until it ends, or stop it.") from None
    except OSError as error:
        # The lock is what is in the way only where it is no file.
        place = folder / LOCK if (folder / LOCK).is_dir() else folder
        raise WriteError(f"{place} cannot be written: {why(error)}.") from error
    return lock


def unlock(folder: Path) -> None:
    """Ends a lock inside its block of `locked`, and removes the lock file."""
    _held[folder].release()
    (folder / LOCK).unlink(missing_ok=True)


def rename_locked(folder: Path, target: Path) -> None:
    """Renames a folder inside its block of `locked`; the lock goes along."""
    if renames_open_folders():
        folder.rename(target)
        return
    _held[folder].release()
    folder.rename(target)
    _held[folder] = _take_lock(target)


def is_locked(folder: Path) -> bool:
    """Whether a process holds a folder's lock; False if that is unknown, as in another user's folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        _take_lock(folder, wait=ASK).release()
    except WriteError:
        return False
    except LockedError:
        return True
    return False


@contextmanager
def unfinished(parent: Path) -> Iterator[Path]:
    """Yields a new, locked folder in `parent`, to be filled and renamed; removes it if it was not renamed.

    So it does with `parent`, if that was made for it and stays empty. First removes the unfinished folders of killed
    processes.

    Raises:
        WriteError: if it cannot be made.
    """
    for abandoned in parent.glob(f"{TEMPORARY}*"):
        if abandoned.is_dir() and not is_locked(abandoned):
            shutil.rmtree(abandoned, ignore_errors=True)
    with ExitStack() as cleanup:
        if not exists(parent):
            cleanup.callback(_remove_empty, parent)
        for attempts_left in reversed(range(5)):
            folder = make_folder(parent / f"{TEMPORARY}{token_hex(4)}")
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                cleanup.enter_context(locked(folder))
                break
            except (WriteError, LockedError):  # before it was locked, another process may have removed it as abandoned
                if not attempts_left:
                    raise
        yield folder


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it is not empty, or could not be made
        folder.rmdir()


def is_name(text: str) -> bool:
    """Whether text can name a file or folder and is not a path: printable, not hidden, not blank, not too long."""
    return not name_fault(text)


def name_fault(text: str) -> str:
    """Returns why text cannot name a file or folder, in words such as "it has a slash"; empty if it can."""
    if not text.strip():
        return "it is blank" if text else "it is empty"
    if {"/", "\\"} & set(text):
        return "it has a slash"
    if text.startswith("."):
        return "it begins with a dot"
    if not text.isprintable():
        return "it has characters that cannot be printed"
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    return "" if text == allowed_name(text) else "this system allows no file of that name"


def path_part(text: str) -> str:
    """Turns any text into a name that `is_name` accepts; different texts give different names.

    Forbidden characters are escaped as in a URL; a name that is too long is cut and ends in a digest.
    """
    name = "".join(
        c if c.isprintable() and c not in FORBIDDEN else quote(c.encode("utf-8", "surrogatepass"), "") for c in text
    )
    if not name.strip():
        name = quote(name) or "%"
    if name[0] == ".":
        name = f"%2E{name[1:]}"
    name = allowed_name(name)
    if len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return name.encode()[: LONGEST - 9].decode(errors="ignore") + f"-{digest}"
