"""Runs in a store, such as `s3://bucket/runs`: a copy on this machine, and the mirror that others see.

Everything reads and writes a run in a folder of this machine, below the cache. This module keeps that folder and the
store alike:

    ADDRESS/NAME/objects/SHA256    contents of files
    ADDRESS/NAME/manifest.json     size and SHA-256 of every file of the run
    ADDRESS/NAME/lease.json        who trains the run; renewed while it is trained

Objects are written first and the manifest last, and an object is removed when neither the manifest nor the one before
it names it. So a manifest always names a run that was whole at one moment, and a reader checks all that it downloads.

The manifest on which folder and store last agreed is the base. What differs from it in the folder was changed here,
what differs from it in the store was changed elsewhere. Both are kept; if the same file was changed on both sides, a
reader sets its own copy aside, and a training stops mirroring. Nothing is overwritten.

Stores have no locks: a lease is noticed by whoever looks. Two machines that begin in the same second may both go on
until the next checkpoint, where the second is told so.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import posixpath
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar

from zeuxis.errors import UserError, nearest, quoted
from zeuxis.files import (
    LOCK,
    TEMPORARY,
    LockedError,
    WriteError,
    cache_dir,
    exists,
    first_line,
    is_locked,
    is_name,
    make_folder,
    unfinished,
    why,
    write_file,
)
from zeuxis.progress import say, warn
from zeuxis.system import renames_open_folders

__all__ = [
    "ChangedError", "Copy", "Staged", "StoreError", "arrow", "at_hand", "bytes_elsewhere", "connect", "copy_of",
    "finish", "in_use", "is_address", "list_below", "local_folder", "reached", "refresh", "remove", "rename",
    "require_free",
]  # fmt: skip

T = TypeVar("T")
# Stores whose addresses are understood; `file` is a folder, such as one that several machines mount.
SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "file")
# S3: small objects are sent in one request, and so appear at once. Google: it would try for a quarter of an hour.
OPTIONS = {"s3": "allow_delayed_open=true", "gs": "retry_limit_seconds=20", "gcs": "retry_limit_seconds=20"}
MANIFEST, LEASE, OBJECTS = "manifest.json", "lease.json", "objects"
RECIPE = "recipe.toml"
# The version of manifests.
VERSION = 1
# Seconds after which a lease that is not renewed has ended, and after which a run is looked at again.
LEASE_SECONDS, LOOK_AGAIN = 300, 15
# Times that something is tried, and seconds before the second time; each further pause is twice as long.
ATTEMPTS, PAUSE = 3, 1.0
# Bytes that are moved at once, downloads at once, and limits of a manifest: files, folders in each other, bytes.
CHUNK, DOWNLOADS = 2**23, 8
MOST_FILES, DEEPEST, MOST_BYTES = 100_000, 8, 2**26
# Where this module keeps its notes, below the local folder of runs, and copies that it has set aside.
NOTES, ASIDE = ".store", ".aside"

# Size and SHA-256 of files, and size and time of the last change, by path.
Files = dict[str, tuple[int, str]]
Marks = dict[str, tuple[int, int]]


class StoreError(UserError):
    """A store that cannot be reached, or what is wrong with a run in it."""


class UnreachedError(StoreError):
    """A store that cannot be reached now: another attempt may succeed."""


class ChangedError(UserError):
    """A run that was changed here and elsewhere, in the same files."""


class _GoneError(Exception):
    """An object that a newer manifest no longer names."""


class Lease(NamedTuple):
    """Who trains a run.

    Attributes:
        host: name of the machine.
        machine: random name of the local folder of runs.
        process: random name of the process.
        age: seconds since it was renewed, by the clocks of the store and of this machine.
    """

    host: str
    machine: str
    process: str
    age: float

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.age < LEASE_SECONDS


_PROCESS = token_hex(8)
_stores: dict[Path, Store] = {}


def is_address(text: str) -> bool:
    """Whether text is an address in a store, such as `s3://bucket/runs`.

    Raises:
        UserError: for one that lacks a slash, which would be taken for a folder.
    """
    scheme, colon, rest = text.partition(":/")
    if colon and not rest.startswith("/") and scheme.lower() in SCHEMES:
        raise UserError(f"'{quoted(text)}' has one slash too few; an address is {scheme}://{quoted(rest)}.")
    return "://" in text


def arrow(what: str) -> Any:
    """Returns the library pyarrow; raises a `UserError` without it."""
    try:
        import pyarrow
        import pyarrow.fs
    except ImportError as error:
        raise UserError(f"To read {what}, Zeuxis needs the library pyarrow: pip install 'zeuxis[shards]'.") from error
    return pyarrow


def connect(address: str) -> tuple[Any, str]:
    """Returns the file system of an address, and the path in it.

    Raises:
        UserError: for an address that is not understood, or that holds a password.
    """
    scheme = address.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise UserError(
            f"'{quoted(address)}' is no store that can be read; an address is SCHEME://BUCKET/PATH."
            f"{nearest(scheme, SCHEMES)}"
        )
    if "@" in address.split("/")[2]:
        raise UserError(
            "An address with a key or password in it would be written into files; set them in the environment instead, "
            "such as AWS_ACCESS_KEY_ID."
        )
    fs = arrow("addresses such as s3://").fs
    more = OPTIONS.get(scheme, "")
    with reached(address):
        system, root = fs.FileSystem.from_uri(f"{address}{'&' if '?' in address else '?'}{more}" if more else address)
        return system, root.rstrip("/")


@contextmanager
def reached(address: str) -> Iterator[None]:
    """Turns what the library of a store raises in the block into a sentence."""
    try:
        yield
    except (UserError, _GoneError):
        raise
    except Exception as error:  # stores have errors of their own
        raise UnreachedError(f"'{address}' cannot be reached: {quoted(first_line(error).rstrip('.'), 300)}.") from error


class Store:
    """A folder of runs in a store, and its copy on this machine.

    Args:
        address: of the folder of runs.
        folder: of the copies.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address.rstrip("/"), folder
        self.system, self.root = connect(self.address)
        self.copies: dict[str, Copy] = {}
        make_folder(folder / NOTES)
        machine = folder / NOTES / "machine"
        if not machine.exists():
            write_file(machine, token_hex(8))
            write_file(folder / NOTES / "address", self.address)
        self.machine = machine.read_text("utf-8")

    def copy(self, name: str) -> Copy:
        """Returns the copy of a run, by its path below the folder of runs."""
        if name not in self.copies:
            self.copies[name] = Copy(self, name)
        return self.copies[name]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Waits until no other process of this machine changes the copies."""
        from filelock import FileLock

        with FileLock(self.folder / NOTES / LOCK):
            yield

    def list_below(self, folder: Path) -> None:
        """Makes empty folders for runs that this machine lacks; removes copies of those that the store has no more."""
        place = folder.relative_to(self.folder).as_posix()
        fs = arrow("addresses such as s3://").fs
        with reached(self.address):
            path = self.root if place == "." else f"{self.root}/{place}"
            found = self.system.get_file_info(fs.FileSelector(path, allow_not_found=True))
            bucket = self.root.partition("/")[0]
            if not found and bucket and self.system.get_file_info(bucket).type == fs.FileType.NotFound:
                raise StoreError(f"There is no bucket {quoted(bucket)}, which '{self.address}' names; make it first.")
        names = {info.base_name for info in found if info.type == fs.FileType.Directory and is_name(info.base_name)}
        for name in names:
            make_folder(folder / name)
        for own in folder.iterdir() if folder.is_dir() else ():
            if own.is_dir() and is_name(own.name) and own.name not in names:
                self.copy(own.relative_to(self.folder).as_posix()).drop_if_removed()


@dataclass
class Staged:
    """A run as it was at one moment.

    Attributes:
        present: paths of all its files.
        changed: for those that differ from the base, a second name of the content, and the file's mark.
    """

    present: set[str] = field(default_factory=set)
    changed: dict[str, tuple[Path, tuple[int, int]]] = field(default_factory=dict)

    def discard(self) -> None:
        """Removes the second names."""
        for file, _ in self.changed.values():
            file.unlink(missing_ok=True)


class Copy:
    """A run's folder on this machine, and its mirror in a store.

    Args:
        store: the folder of runs that it belongs to.
        name: its path below that.

    Attributes:
        base: the files on which folder and store last agreed.
        seen: marks of those that lie in the folder; others were not downloaded yet.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.folder, self.address = store.folder / name, f"{store.address}/{name}"
        self._note = store.folder / NOTES / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"
        self.base: Files = {}
        self.seen: Marks = {}
        self._looked, self._whole = -1e9, False
        self._lease: Lease | None = None
        with suppress(OSError, ValueError, KeyError):
            known = json.loads(self._note.read_bytes())
            self.base = {path: (size, sha) for path, (size, sha) in known["base"].items()}
            self.seen = {path: (size, changed) for path, (size, changed) in known["seen"].items()}

    # -- the store's side -------------------------------------------------------------------------------

    def manifest(self) -> Files | None:
        """Returns the files of the run in the store; None if it has none.

        Raises:
            StoreError: if it cannot be read, or names what no run has.
        """
        with reached(self.address):
            content = self._read(MANIFEST, MOST_BYTES)
        return None if content is None else _files(content, self.address)

    def _path(self, name: str) -> str:
        return f"{self.store.root}/{self.name}/{name}"

    def _read(self, name: str, most: int) -> bytes | None:
        """Returns the content of a small object; None if there is none."""
        try:
            with self.store.system.open_input_stream(self._path(name)) as stream:
                content = bytes(stream.read(most + 1))
        except FileNotFoundError:
            return None
        if len(content) > most:
            raise StoreError(f"{name} of '{self.address}' has more than {most:,} bytes, so it is not read.")
        return content

    def _write(self, name: str, content: bytes) -> None:
        """Writes a small object at once."""
        path = self._path(name)
        if self.store.system.type_name != "local":  # an object in a store appears when it is complete
            with self.store.system.open_output_stream(path) as stream:
                stream.write(content)
            return
        self.store.system.create_dir(posixpath.dirname(path), recursive=True)
        with self.store.system.open_output_stream(f"{path}.{_PROCESS}") as stream:
            stream.write(content)
        self.store.system.move(f"{path}.{_PROCESS}", path)

    def _objects(self) -> dict[str, int]:
        """Returns the sizes of all objects, by name."""
        selector = arrow("addresses such as s3://").fs.FileSelector(self._path(OBJECTS), allow_not_found=True)
        return {info.base_name: info.size for info in self.store.system.get_file_info(selector) if info.is_file}

    def _upload(self, source: Path, size: int, sha: str) -> None:
        path = self._path(f"{OBJECTS}/{sha}")
        if self.store.system.type_name == "local":
            self.store.system.create_dir(posixpath.dirname(path), recursive=True)
        with source.open("rb") as file, self.store.system.open_output_stream(path) as stream:
            for chunk in _chunks(file.read, size):
                stream.write(chunk)

    def _download(self, path: str, size: int, sha: str) -> None:
        """Downloads a file of the run, and puts it in place if it is what the manifest says."""
        digest, target = hashlib.sha256(), self.folder / path

        def fill(temporary: Path) -> None:
            read = 0
            with reached(self.address), temporary.open("wb") as file:
                try:
                    with self.store.system.open_input_stream(self._path(f"{OBJECTS}/{sha}")) as stream:
                        for chunk in _chunks(stream.read, size + 1):
                            digest.update(chunk)
                            read += file.write(chunk)
                except FileNotFoundError:
                    raise _GoneError from None
            if read != size or digest.hexdigest() != sha:
                raise StoreError(f"{path} of '{self.address}' is damaged: it is not what the manifest says.")

        make_folder(target.parent)
        write_file(target, fill)

    # -- the lease --------------------------------------------------------------------------------------

    def lease(self) -> Lease | None:
        """Returns who trains the run, or has trained it without ending well."""
        with reached(self.address):
            content = self._read(LEASE, 4096)
            if content is None:
                return None
            info = self.store.system.get_file_info(self._path(LEASE))
        with suppress(ValueError, KeyError, TypeError):
            written = json.loads(content)
            host, machine, process = (quoted(str(written[key])) for key in ("host", "machine", "process"))
            return Lease(host, machine, process, time.time() - (info.mtime_ns or 0) / 1e9)
        return None

    def take(self) -> None:
        """Says in the store that this process trains the run, or goes on training it; the folder must be locked.

        Raises:
            LockedError: if another machine trains it.
            StoreError: if the store cannot be reached.
        """
        other = self._other()
        if other is not None:
            raise LockedError(_held(self.address, other))
        written = {"host": socket.gethostname(), "machine": self.store.machine, "process": _PROCESS}
        with reached(self.address):
            self._write(LEASE, json.dumps(written).encode())

    def _other(self) -> Lease | None:
        """Returns the lease of another machine, if one trains the run."""
        self._lease = self.lease()
        lease = self._lease
        return lease if lease and lease.live and lease.machine != self.store.machine else None

    def release(self) -> None:
        """Ends this process's lease, if there is one."""
        lease = self.lease()
        if lease is not None and lease.process == _PROCESS:
            with reached(self.address):
                self.store.system.delete_file(self._path(LEASE))

    @property
    def leased(self) -> bool:
        """Whether another machine trains the run; looks again from time to time."""
        if time.monotonic() - self._looked > LOOK_AGAIN:
            self.pull(whole=self._whole)
        return self._lease is not None and self._lease.live and self._lease.machine != self.store.machine

    # -- from the store to the folder ---------------------------------------------------------------------

    def pull(self, *, whole: bool = True) -> None:
        """Brings the folder up to date.

        Args:
            whole: with all files; else with those that lists show.

        Raises:
            StoreError: if it cannot be done and nothing is here; else a warning says what is used.
        """
        if is_locked(self.folder) or (time.monotonic() - self._looked < LOOK_AGAIN and self._whole >= whole):
            return
        with self.store.locked():
            self.look(whole)

    def look(self, whole: bool) -> None:
        """Does what `pull` does, where no other process changes the copies."""
        try:
            _attempted(partial(self._pull, whole))
            self._other()
        except StoreError as error:
            missing = [path for path in self.base if path not in self.seen and (whole or _is_listed(path))]
            if missing or not exists(self.folder / RECIPE):
                raise
            warn(f"{error} The copy of {self.name} on this machine is used.")
        self._looked, self._whole = time.monotonic(), whole

    def _pull(self, whole: bool) -> None:
        there = self.manifest()
        if there is None:
            return
        here = self._here()
        ours, theirs = _changes(self.base, here), _changes(self.base, there)
        if any(here.get(path) != there.get(path) for path in ours & theirs):
            self._set_aside()
            here, ours = {}, set()
        at_hand = set(self._marks())
        wanted = [
            path
            for path in there
            if (whole or _is_listed(path))
            and path not in ours
            and (path not in at_hand or here.get(path) != there[path])
        ]
        self._require_space(sum(there[path][0] for path in wanted))
        _at_once(lambda path: self._download(path, *there[path]), [path for path in wanted if path != RECIPE])
        if RECIPE in wanted:  # last: whoever finds it finds the rest
            self._download(RECIPE, *there[RECIPE])
        for path in theirs - set(there) - ours:
            (self.folder / path).unlink(missing_ok=True)
        marks = self._marks()
        same = {path for path in there if path not in ours or here.get(path) == there[path]}
        self._agree(there, {path: marks[path] for path in same if path in marks})

    def _require_space(self, size: int) -> None:
        free = shutil.disk_usage(self.store.folder).free
        if size > free:
            raise WriteError(
                f"'{self.address}' needs {size / 2**20:,.0f} MiB, and {self.store.folder} has {free / 2**20:,.0f} "
                "free; set ZEUXIS_CACHE to another folder."
            )

    def _set_aside(self) -> None:
        """Moves this machine's copy to where nothing is mirrored, because the store has another."""
        target = make_folder(self.store.folder / ASIDE) / f"{self.folder.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        self.folder.rename(target)
        make_folder(self.folder)
        self.base, self.seen = {}, {}
        warn(
            f"{self.name} was changed on this machine and in '{self.store.address}', in the same files: the one in the "
            f"store is used, and the one of this machine is kept in {target}."
        )

    def drop_if_removed(self) -> None:
        """Removes the folder of a run that was removed from the store and not changed here."""
        with self.store.locked():
            if is_locked(self.folder) or self._changed(self.stage(None)):
                return
            if self.base or not any(self.folder.iterdir()):
                shutil.rmtree(self.folder)
                self._note.unlink(missing_ok=True)
                self.base, self.seen = {}, {}

    def _marks(self) -> Marks:
        return {path: _mark(self.folder / path) for path in _regular(self.folder)}

    def _here(self) -> Files:
        """Returns what the folder holds; files that were not downloaded count as the base says."""
        files = {path: entry for path, entry in self.base.items() if path not in self.seen}
        for path, mark in self._marks().items():
            known = self.seen.get(path) == mark
            files[path] = self.base[path] if known else (mark[0], _digest(self.folder / path, mark[0]))
        return files

    def _agree(self, base: Files, seen: Marks) -> None:
        self.base, self.seen = base, seen
        write_file(self._note, json.dumps({"run": self.name, "base": base, "seen": seen}))

    # -- from the folder to the store -----------------------------------------------------------------------

    def stage(self, place: Path | None) -> Staged:
        """Returns the run as it is now; what changed gets a second name in `place`, which keeps its content."""
        staged = Staged()
        for path in _regular(self.folder):
            source = self.folder / path
            with suppress(FileNotFoundError):
                mark = _mark(source)
                if self.seen.get(path) != mark:
                    target = _second_name(source, place / token_hex(8)) if place else source
                    staged.changed[path] = (target, mark)
                staged.present.add(path)
        return staged

    def _changed(self, staged: Staged) -> bool:
        return bool(staged.changed) or any(path not in staged.present for path in self.seen)

    def push(self, staged: Staged) -> None:
        """Makes the store hold the run as it was staged, and what was changed elsewhere in other files.

        Raises:
            ChangedError: if the same files were changed elsewhere.
            StoreError: if the store cannot be reached; what it holds is as before.
        """
        with reached(self.address):
            there = self.manifest()
            base = self.base if there is not None else {}  # a run that was removed is written again
            there = there or {}
            here = {path: entry for path, entry in self.base.items() if path in staged.present or path not in self.seen}
            here |= {path: (mark[0], _digest(file, mark[0])) for path, (file, mark) in staged.changed.items()}
            ours, theirs = _changes(base, here), _changes(base, there)
            both = sorted(path for path in ours & theirs if here.get(path) != there.get(path))
            if both:
                raise ChangedError(
                    f"'{self.address}' was changed elsewhere since it was read here ({both[0]}"
                    f"{f' and {len(both) - 1} more' if len(both) > 1 else ''}), so it is not replaced; the run of this "
                    f"machine is in {self.folder}."
                )
            merged = {path: entry for path, entry in there.items() if path not in ours}
            merged |= {path: here[path] for path in ours if path in here}
            sources = {path: self.folder / path for path in staged.present}
            sources |= {path: file for path, (file, _) in staged.changed.items()}
            self._send(set(merged.values()), {here[path]: source for path, source in sources.items()})
            content = {"zeuxis": VERSION, "files": dict(sorted(merged.items()))}
            self._write(MANIFEST, json.dumps(content, indent=0).encode())
            kept = {sha for _, sha in [*merged.values(), *there.values()]}
            for sha in self._objects().keys() - kept:
                self.store.system.delete_file(self._path(f"{OBJECTS}/{sha}"))
        marks = {path: mark for path, mark in self.seen.items() if path in staged.present}
        marks |= {path: mark for path, (_, mark) in staged.changed.items()}
        self._agree(merged, {path: mark for path, mark in marks.items() if here[path] == merged.get(path)})

    def _send(self, contents: set[tuple[int, str]], sources: Mapping[tuple[int, str], Path]) -> None:
        """Writes those contents that the store lacks, or has cut ones of."""
        present = self._objects()
        missing = sorted((size, sha) for size, sha in contents if present.get(sha) != size)
        for size, sha in missing:
            if (size, sha) not in sources:
                raise StoreError(f"The object {sha} of '{self.address}' is missing, and this machine does not have it.")
            self._upload(sources[size, sha], size, sha)
        present = self._objects() if missing else present
        for size, sha in missing:
            if present.get(sha) != size:
                raise UnreachedError(f"An upload to '{self.address}' was cut after {present.get(sha, 0):,} bytes.")

    def push_changes(self) -> None:
        """Sends what a command has changed in the folder, unless the run is being trained."""
        if is_locked(self.folder) or not self._changed(self.stage(None)):
            return
        other = self._other()
        if other is not None:
            say(f"{_held(self.address, other)} What was written into {self.folder} is sent by a later command.")
            return
        with self.store.locked(), unfinished(self.store.folder) as place:
            staged = self.stage(place)
            _attempted(partial(self.push, staged))

    def remove(self) -> None:
        """Removes the run from the store."""
        with reached(self.address):
            for action, name in (("delete_file", MANIFEST), ("delete_dir", "")):  # nobody sees a part of a run
                with suppress(FileNotFoundError):
                    getattr(self.store.system, action)(self._path(name).rstrip("/"))
        self._note.unlink(missing_ok=True)
        self.store.copies.pop(self.name, None)


# -- what other modules call ----------------------------------------------------------------------------------


def local_folder(address: str) -> Path:
    """Returns the folder of this machine that stands for a folder of runs in a store.

    Raises:
        UserError: if the store cannot be reached.
    """
    address = address.rstrip("/")
    if int(os.environ.get("WORLD_SIZE", "1")) > int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        raise UserError(
            f"One training on several machines needs a folder that they share, not '{address}'; give one with --runs."
        )
    slug = re.sub(r"[^A-Za-z0-9]+", "-", address.partition("://")[2]).strip("-")[-60:]
    digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    folder = (cache_dir() / "stores" / f"{slug}-{digest}").absolute()
    if folder not in _stores:
        store = Store(address, folder)
        store.list_below(folder)
        _add(store)
    return folder


def _add(store: Store) -> None:
    if not _stores:
        atexit.register(finish)
    _stores[store.folder] = store


def copy_of(folder: Path) -> Copy | None:
    """Returns the copy that a folder is; None for a folder that is in no store.

    Raises:
        UserError: if the address of its store is no longer understood.
    """
    place, parent = folder.absolute(), (cache_dir() / "stores").absolute()
    if not place.is_relative_to(parent) or len(parts := place.relative_to(parent).parts) < 2:
        return None
    root = parent / parts[0]
    if not all(map(is_name, parts)):
        return None
    if root not in _stores:
        try:
            _add(Store((root / NOTES / "address").read_text("utf-8"), root))
        except OSError:
            return None
    return _stores[root].copy("/".join(parts[1:]))


def at_hand(folder: Path) -> Path:
    """Makes sure that a run of a store lies whole in its folder of this machine; returns the folder, as any other.

    Raises:
        StoreError: if that cannot be done.
    """
    copy = copy_of(folder)
    if copy is not None:
        copy.pull()
    return folder


def list_below(folder: Path) -> None:
    """Makes folders for the runs that a store has in this folder, which are filled when they are opened."""
    store = _stores.get(folder) or getattr(copy_of(folder), "store", None)
    if store is not None:
        store.list_below(folder.absolute())


def refresh(runs: Path) -> None:
    """Brings up to date what lists show of the runs in a folder; does nothing for folders that are in no store."""
    store = _stores.get(runs)
    if store is None:
        return
    names = [folder.name for folder in runs.iterdir() if folder.is_dir() and is_name(folder.name)]
    copies = [store.copy(name) for name in names if not is_locked(runs / name)]
    with store.locked():
        _at_once(partial(Copy.look, whole=False), copies)


def bytes_elsewhere(folder: Path) -> int:
    """Returns the size of those files of a run of a store that do not lie in its folder."""
    copy = copy_of(folder)
    return sum(size for path, (size, _) in copy.base.items() if path not in copy.seen) if copy else 0


def in_use(folder: Path) -> bool:
    """Whether a process trains a run, here or, if it is in a store, on another machine."""
    if is_locked(folder):
        return True
    copy = copy_of(folder)
    return copy is not None and copy.leased


def require_free(folder: Path) -> None:
    """Raises a `LockedError` if another machine trains a run of a store."""
    copy = copy_of(folder)
    if copy is not None and (other := copy._other()):
        raise LockedError(_held(copy.address, other))


def remove(folder: Path) -> None:
    """Removes a run from its store, if it is in one."""
    copy = copy_of(folder)
    if copy is not None:
        copy.remove()


def rename(folder: Path, target: Path) -> None:
    """Makes a store follow a folder that was renamed."""
    new = copy_of(target)
    if new is not None:
        new.push_changes()
        remove(folder)


def finish() -> None:
    """Sends what was changed in runs of stores; a failure is said, and a later command sends it."""
    for store in list(_stores.values()):
        for path in sorted(store.folder.rglob(RECIPE)):
            place = path.parent.relative_to(store.folder)
            if not place.parts or not all(map(is_name, place.parts)):
                continue
            try:
                store.copy(place.as_posix()).push_changes()
            except UserError as error:
                warn(f"{error} What was written into {path.parent} is sent by a later command.")
    _stores.clear()


# -- parts ----------------------------------------------------------------------------------------------------


def _attempted(action: Callable[[], T]) -> T:
    """Returns what an action returns; tries it again if the store fails, or has changed meanwhile."""
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except (UnreachedError, _GoneError) as error:
            if attempt == ATTEMPTS - 1:
                if isinstance(error, _GoneError):
                    raise StoreError("A run changes faster than it can be downloaded; try again.") from error
                raise
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError


def _at_once(action: Callable[[T], object], items: Sequence[T]) -> None:
    """Does an action for all items, several at once; after an error or Ctrl-C it begins no other."""
    pool = ThreadPoolExecutor(DOWNLOADS)
    try:
        list(pool.map(action, items))
    finally:
        pool.shutdown(cancel_futures=True)


def _held(address: str, lease: Lease) -> str:
    left = max(LEASE_SECONDS - lease.age, 0)
    return (
        f"'{address}' is being trained on the machine {lease.host}, which said so {max(lease.age, 0):.0f} seconds ago. "
        f"If that training has died, its lease ends in {left:.0f} seconds."
    )


def _files(content: bytes, address: str) -> Files:
    """Returns the files that a manifest names; refuses what could lead out of the run's folder."""
    try:
        tree = json.loads(content)
        if tree["zeuxis"] != VERSION:
            raise ValueError(f"it is of version {quoted(str(tree['zeuxis']))}, and this Zeuxis reads {VERSION}")
        files = {path: (size, sha) for path, (size, sha) in tree["files"].items()}
        if len(files) > MOST_FILES:
            raise ValueError(f"it names {len(files):,} files, and at most {MOST_FILES:,} are read")
        folders = {parent.as_posix() for path in files for parent in Path(path).parents}
        for path, (size, sha) in files.items():
            if not _is_path(path) or path in folders:
                raise ValueError(f"'{quoted(path)}' is not the path of a file in a run")
            if type(size) is not int or size < 0 or not re.fullmatch("[0-9a-f]{64}", str(sha)):
                raise ValueError(f"size or SHA-256 of '{quoted(path)}' is not one")
        if len({path.casefold() for path in files}) < len(files):
            raise ValueError("two of its files differ in capital letters alone")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"The manifest of '{address}' is refused: {first_line(error)}.") from error
    return files


def _is_path(path: str) -> bool:
    parts = path.split("/")
    return len(parts) <= DEEPEST and all(map(is_name, parts)) and path != LOCK


def _regular(folder: Path) -> list[str]:
    """Returns the paths of a run's files; links, hidden files and the lock are not part of it."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if is_name(name)]
        for name in names:
            path = Path(place) / name
            relative = path.relative_to(folder).as_posix()
            if not name.startswith(TEMPORARY) and _is_path(relative) and path.is_file() and not path.is_symlink():
                found.append(relative)
    return sorted(found)


def _is_listed(path: str) -> bool:
    """Whether lists show what is in a file."""
    return "/" not in path and path.endswith((".toml", ".json", ".jsonl"))


def _mark(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _second_name(source: Path, target: Path) -> Path:
    """Gives a file a second name, or copies it where that would keep the first from being replaced or is impossible."""
    try:
        if not renames_open_folders():
            raise OSError
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            if not source.exists():
                raise FileNotFoundError(source) from error
            raise WriteError(f"{target} cannot be written: {why(error)}.") from error
    return target


def _chunks(read: Callable[[int], Any], size: int) -> Iterator[bytes]:
    """Yields what is read, up to a number of bytes."""
    while size > 0 and (chunk := bytes(read(min(CHUNK, size)))):
        yield chunk
        size -= len(chunk)


def _digest(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in _chunks(file.read, size):
            digest.update(chunk)
    return digest.hexdigest()


def _changes(base: Files, now: Files) -> set[str]:
    """Returns the paths in which two lists of files differ."""
    return {path for path in {*base, *now} if base.get(path) != now.get(path)}
