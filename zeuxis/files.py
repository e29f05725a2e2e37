"""Files that are either whole or not there.

Everything that Zeuxis leaves on a disk is written by `write_file`: beside its place, synced, and renamed over it. A
process that is killed, or a disk that fills, leaves the old file or the new one. What a kill left beside it carries the
prefix `TEMPORARY` and is removed by `sweep`. A failure is one sentence.

A folder that takes long to fill appears whole too: `unfinished` makes it beside its place, under a lock that dies with
its owner, to be renamed when it is full.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote

from zeuxis.errors import UserError

__all__ = [
    "LOCK",
    "TEMPORARY",
    "LockedError",
    "WriteError",
    "exists",
    "is_locked",
    "is_name",
    "locked",
    "make_folder",
    "path_part",
    "require_place",
    "subfolder",
    "sweep",
    "unfinished",
    "why",
    "write_file",
]

# What the names of unfinished files begin with.
TEMPORARY = ".writing-"
# A folder's lock, in the folder.
LOCK = "lock"
# Bytes of a name that becomes a file's or a folder's: systems allow 255, and numbers and suffixes are added.
LONGEST = 150
# What no name of a file may hold on one system or another; `%` stands for what is written out.
FORBIDDEN = frozenset('/\\:*?"<>|%')


class WriteError(UserError):
    """A file or folder that cannot be written: a full disk, missing rights, a folder that is gone."""


class LockedError(UserError):
    """A folder that another process works on."""


def why(error: BaseException) -> str:
    """The reason of a failed read or write, in words."""
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
    }.get(number or 0, getattr(error, "strerror", None) or str(error) or type(error).__name__)


def write_file(path: Path, content: str | bytes | Callable[[Path], object]) -> Path:
    """Writes a file whole and returns its path; a link in its place is replaced, not followed.

    Args:
        path: the file; its folder exists.
        content: text (as UTF-8), bytes, or a function that writes to the path that it is given.

    Raises:
        WriteError: if it cannot be written; what stood there before stays.
    """
    temporary = None
    require_place(path)
    try:
        # The suffix stays: writers of pictures choose their format by it.
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {why(error)}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; False too where `Path.exists` raises, as for names that are too long."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def require_place(path: Path) -> Path:
    """Returns the path of a file if it may be written there; to be asked before the work, which can be long.

    Raises:
        WriteError: for a folder, a device, or a place in a folder that there is not.
    """
    if exists(path) and path.is_dir():
        reason = "it is a folder"
    # Devices are not to be renamed over, nor are links such as /dev/stdout, which may lead to a file.
    elif exists(path) and (not path.is_file() or path.parent.resolve() == Path("/dev")):
        reason = "it is no regular file"
    elif not exists(path.parent):
        reason = "its folder does not exist"
    else:
        return path
    raise WriteError(f"{path} cannot be written: {reason}.")


def make_folder(path: Path) -> Path:
    """Makes a folder with all above it, and returns it.

    Raises:
        WriteError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"The folder {path} cannot be made: {why(error)}.") from error
    return path


def subfolder(root: Path, name: str) -> Path:
    """Makes a folder inside a run, and returns it.

    Raises:
        WriteError: if the run is gone, or if the folder is a link that leads out of it: a run from elsewhere must not
            say where on this machine something is written.
    """
    path = root / name
    try:
        path.mkdir(exist_ok=True)
        inside = path.resolve().is_relative_to(root.resolve())
    except OSError as error:
        raise WriteError(f"The folder {path} cannot be made: {why(error)}.") from error
    if not inside:
        raise WriteError(f"{path} is a link that leads out of the run, so nothing is written there; remove the link.")
    return path


def sweep(folder: Path) -> None:
    """Removes what a killed process left unfinished in a folder and below; nobody else may be writing there."""
    for path in folder.rglob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder's lock while the block runs; the lock of a process that dies is free.

    Raises:
        LockedError: if another process holds it.
        WriteError: if the folder is gone or cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(f"{folder} is in use by another process; wait until it ends, or stop it.") from None
    except OSError as error:
        raise WriteError(f"{folder} cannot be written: {why(error)}.") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process holds a folder's lock; False where nobody can tell, as in a folder of somebody else."""
    if not (folder / LOCK).exists():
        return False
    try:
        with locked(folder):
            return False
    except WriteError:
        return False
    except LockedError:
        return True


@contextmanager
def unfinished(parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, locked, to be filled and renamed; it is removed if it was not renamed.

    What killed processes left of theirs is removed first.

    Raises:
        WriteError: if it cannot be made.
    """
    for abandoned in parent.glob(f"{TEMPORARY}*"):
        if abandoned.is_dir() and not is_locked(abandoned):
            shutil.rmtree(abandoned, ignore_errors=True)
    with ExitStack() as held:
        for attempts_left in reversed(range(5)):
            folder = make_folder(parent / f"{TEMPORARY}{token_hex(4)}")
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                held.enter_context(locked(folder))
                break
            except (WriteError, LockedError):  # another process may have removed it as abandoned before it was locked
                if not attempts_left:
                    raise
        yield folder


def is_name(text: str) -> bool:
    """Whether text names a file or folder and no path: printable, not hidden, not empty, and not too long."""
    return (
        text.isprintable()
        and not text.startswith(".")
        and not {"/", "\\"} & set(text)
        and 0 < len(text.encode("utf-8", "surrogatepass")) <= LONGEST
    )


def path_part(text: str) -> str:
    """Turns any text into a name by `is_name`, and different texts into different names.

    What a name may not hold is written as in a URL; what is too long is cut, and ends in a digest.
    """
    written = "".join(
        c if c.isprintable() and c not in FORBIDDEN else quote(c.encode("utf-8", "surrogatepass"), "") for c in text
    )
    if not written or written[0] == ".":
        written = f"%2E{written[1:]}" if written else "%"
    if len(written.encode()) <= LONGEST:
        return written
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return written.encode()[: LONGEST - 9].decode(errors="ignore") + f"-{digest}"
