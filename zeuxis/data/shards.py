"""Shards on a disk or in a store, trained on as a stream: WebDataset's tar files, and parquet files.

In a tar, files whose paths are equal up to the first dot of the name are one record: an image, and its label in
`KEY.json` or `KEY.cls`. In a parquet file, each row is a record: a column of image bytes, and one of labels. Shards
whose paths have the word test, val, valid or validation are held out. `index.json`, which `zeuxis data pack` writes,
says what is in the shards; without it, their labels are read once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic import Field

from zeuxis.data.files import MAX_BYTES, SUFFIXES, readable, row_image
from zeuxis.data.labels import LABEL_COLUMNS, label_of
from zeuxis.data.records import CutError, Record, Shards
from zeuxis.data.registry import Collection, locate, source
from zeuxis.data.streams import Count, streamed
from zeuxis.errors import UserError, one_of, quoted
from zeuxis.files import first_line, why
from zeuxis.recipe import DataOptions, Section
from zeuxis.stores import arrow, connect, is_address, reached

__all__ = ["BUFFER", "INDEX", "ShardOptions", "Storage", "are_shards", "parquet_records", "tar_records"]

FORMATS = (".tar", ".parquet")
INDEX = "index.json"
# Words in the path of a shard that is held out.
TEST = {"test", "val", "valid", "validation"}
BUFFER = 4096
# Bytes that are read from a store at once, and at most from a file of labels.
READ, MOST_TEXT = 2**23, 2**20


class ShardOptions(Section):
    """Options of the source, under `data.options`."""

    buffer: int = Field(BUFFER, ge=1, le=10_000_000, description="images of the stream that are shuffled together")
    image: str = Field("", description="the column of images, or their suffix in a tar; found if empty")
    label: str = Field(
        "", description="the column of classes, or their key in a tar's JSON; found by its name if empty"
    )


@source(
    "shards", "a stream of tar (WebDataset) or parquet shards, more than fit on a disk: --data FOLDER or s3://BUCKET/PATH",
    mirrors=True, options=ShardOptions,
)  # fmt: skip
def shards(options: DataOptions, own: ShardOptions) -> Collection:
    if not options.path:
        raise UserError("The data source 'shards' needs a path: --data PATH or s3://BUCKET/PATH, or data.path.")
    files = Files(Storage(options.path), own)
    return streamed(files, options, own.buffer, files.count)


def are_shards(path: Path) -> bool:
    """Whether a path is a shard, or a folder with shards in it or in folders below it named train."""
    if path.is_file():
        return path.suffix.lower() in FORMATS
    with suppress(OSError):
        for folder in (path, path / "train"):
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    if any(posixpath.splitext(entry.name)[1].lower() in FORMATS for entry in entries):
                        return True
    return False


class Storage:
    """The files below a folder or an address.

    Args:
        path: a file, a folder, or an address in a store.

    Raises:
        UserError: if there is nothing, or it cannot be reached.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not is_address(path):
            root = locate(path)
            self._local: Path | None = root if root.is_dir() else root.parent
            below = sorted(root.rglob("*")) if root.is_dir() else [root]
            stats = [(p.relative_to(self._local).as_posix(), p.stat()) for p in below if p.is_file()]
            self.files = {name: (s.st_size, str(s.st_mtime_ns)) for name, s in stats}
            return
        self._local = None
        self._system, place = connect(path)
        fs = arrow("addresses such as s3://").fs
        with reached(path):
            found = self._system.get_file_info(fs.FileSelector(place, recursive=True, allow_not_found=True))
            found = found or [self._system.get_file_info(place)]
            files = [info for info in found if info.is_file]
        if not files:
            raise UserError(f"There is nothing at '{path}'.")
        single = len(files) == 1 and files[0].path == place
        self._root = posixpath.dirname(place) if single else place
        self.files = {f.path.removeprefix(f"{self._root}/"): (f.size, str(f.mtime_ns)) for f in files}

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Opens a file for reading, at any place."""
        if self._local is not None:
            return (self._local / name).open("rb")
        raw = self._system.open_input_file(f"{self._root}/{name}")
        return cast("BinaryIO", io.BufferedReader(raw, READ))


class Files(Shards):
    """Tar and parquet files.

    Args:
        storage: where they are.
        own: the source's options.

    Raises:
        UserError: if there are none, or the index says that there are others.
    """

    def __init__(self, storage: Storage, own: ShardOptions) -> None:
        self.storage, self.own = storage, own
        names = sorted(n for n in storage.files if Path(n).suffix.lower() in FORMATS and Path(n).name[0] not in "._")
        if not names:
            raise UserError(f"'{storage.path}' has no shards: files that end in {' or '.join(FORMATS)}.")
        self.index = _index(storage) if INDEX in storage.files else None
        if self.index:
            listed = {shard["url"]: shard["filesize"] for shard in self.index["shardlist"]}
            for name, size in listed.items():
                if (actual := storage.files.get(name, (None, ""))[0]) != size:
                    state = "is missing" if actual is None else f"has {actual:,} bytes"
                    raise UserError(
                        f"The shard {name} in '{storage.path}' {state}, and {INDEX} says that it has {size:,} bytes: "
                        "it was cut or replaced. Copy it again, or pack the images again."
                    )
            self.left_out = {name: f"not in {INDEX}" for name in names if name not in listed}
            self.classes, names = self.index["classes"], list(listed)
        elif INDEX in storage.files:
            self.left_out = {INDEX: "not an index by `zeuxis data pack`, so the shards are counted"}
        self.names = names
        held = [bool(TEST & set(re.split(r"[^a-z]+", name.lower()))) for name in names]
        self.held = held if any(held) and not all(held) else []
        stamp = [storage.path, own.model_dump(exclude={"buffer"}), [(name, storage.files[name]) for name in names]]
        self.stamp = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()

    @cached_property
    def count(self) -> Count | None:
        """What the index says; None without one, or where options ask for other labels."""
        if not self.index or not self.held or self.own.image or self.own.label:
            return None
        return Count(
            images=[
                [{}, shard["classes"]] if held else [shard["classes"], {}]
                for shard, held in zip(self.index["shardlist"], self.held, strict=True)
            ],
            attributes=self.index["attributes"],
            digest=hashlib.sha256(json.dumps(self.index, sort_keys=True).encode()).hexdigest(),
            bare=next((shard["url"] for shard in self.index["shardlist"] if "" in shard["classes"]), ""),
            left_out={},
        )

    def records(self, i: int, *, images: bool = True) -> Iterator[Record]:
        """Yields the records of a shard; see `Shards.records`."""
        with self.storage.open(self.names[i]) as file:
            if self.names[i].lower().endswith(".tar"):
                yield from tar_records(file, self.own)
            else:
                yield from parquet_records(file, self.own, self.names[i], images=images)


def _index(storage: Storage) -> dict[str, Any] | None:
    """Returns the index of shards; None if the file is something else."""
    try:
        with storage.open(INDEX) as file:
            index: dict[str, Any] = json.loads(file.read())
        if not isinstance(index, dict) or "zeuxis" not in index:
            return None
        for shard in index["shardlist"]:
            good = isinstance(shard["url"], str) and isinstance(shard["filesize"], int)
            if not good or not all(isinstance(n, int) for n in shard["classes"].values()):
                raise ValueError(f"of a shard it says {quoted(str(shard))}")
        if not all(isinstance(name, str) for name in [*index["classes"], *index["attributes"]]):
            raise ValueError("its classes or attributes are not names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UserError(
            f"{INDEX} in '{storage.path}' cannot be read: {why(error)}. Remove it, and the shards will be counted."
        ) from error
    return index


def tar_records(file: BinaryIO, own: ShardOptions) -> Iterator[Record]:
    """Yields the records of a tar; a damaged one raises a `CutError` after its last complete record."""
    if (size := file.seek(0, io.SEEK_END)) < 1024:
        raise CutError("is shorter than any tar")
    file.seek(size - 512)
    cut = any(file.read(512))
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            key, files = "", dict[str, tarfile.TarInfo]()
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # it keeps all that it has seen
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                if f"{folder}/{stem}" != key:
                    yield from _record(tar, key, files, own)
                    key, files = f"{folder}/{stem}", {}
                files[suffix.lower()] = member
            # A header that cannot be read ends the tar for Python, like the zeros at its end.
            file.seek(tar.offset)
            broken = any(file.read(512))
            if not cut and not broken:  # the last record may lack files
                yield from _record(tar, key, files, own)
    except tarfile.TarError as error:
        raise CutError(f"is damaged ({error})") from error
    if broken and not cut:
        raise CutError(f"is damaged at byte {tar.offset:,}")
    if cut:
        raise CutError("ends without the mark of an end")


def _record(
    tar: tarfile.TarFile, key: str, files: Mapping[str, tarfile.TarInfo], own: ShardOptions
) -> Iterator[Record]:
    """Yields the record of a key's files, by their suffixes, if there is an image among them."""
    image = files.get(own.image) if own.image else next((f for s, f in files.items() if f".{s}" in SUFFIXES), None)
    if image is None:
        return

    def read(file: tarfile.TarInfo, most: int) -> bytes:
        if file.size > most:
            raise ValueError(f"it has more than the {most:,} bytes allowed")
        opened = tar.extractfile(file)
        return opened.read() if opened else b""

    told: dict[str, Any] = {}
    with suppress(ValueError, RecursionError):  # a record without a label is reported as one
        if "json" in files:
            stored = json.loads(read(files["json"], MOST_TEXT))
            told = stored if isinstance(stored, dict) else {}
        if "cls" in files:
            told["cls"] = read(files["cls"], MOST_TEXT).decode().strip()
    keys = [own.label] if own.label else [*LABEL_COLUMNS, "cls"]
    attributes = told.get("attributes")
    yield Record(
        readable(key.lstrip("/")),
        label_of(next((told[k] for k in keys if k in told), None)),
        {str(k): bool(v) for k, v in attributes.items()} if isinstance(attributes, dict) else {},
        lambda: read(image, MAX_BYTES),
    )


def parquet_records(file: BinaryIO, own: ShardOptions, name: str, *, images: bool) -> Iterator[Record]:
    """Yields the rows of a parquet file."""
    library = arrow("parquet files")
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
    except library.ArrowInvalid as error:
        raise CutError(f"is not a complete parquet file ({first_line(error)})") from error
    schema = table.schema_arrow
    image = _image_column(library, schema, own.image, name)
    if own.label and own.label not in schema.names:
        raise one_of(f"column of {name}", own.label, schema.names)
    label = own.label or next((column for column in LABEL_COLUMNS if column in schema.names), "")
    classes = _class_names(schema, label)
    columns = [*([image] if images else []), *([label] if label else [])]
    row = 0
    # Without columns, a batch still says how many rows it has.
    for batch in table.iter_batches(64 if images else 4096, columns=columns):
        labels = batch.column(label).to_pylist() if label else [None] * batch.num_rows
        contents = batch.column(image) if images else None
        for i, value in enumerate(labels):
            known = (
                classes[value] if classes and isinstance(value, int) and 0 <= value < len(classes) else label_of(value)
            )
            yield Record(str(row), known, {}, lambda i=i, contents=contents: _cell(contents, i))  # type: ignore[misc]
            row += 1


def _cell(contents: Any, i: int) -> bytes:
    value = contents[i].as_py()
    return row_image(value.get("bytes") if isinstance(value, dict) else value)


def _image_column(library: Any, schema: Any, asked: str, name: str) -> str:
    """Returns the column that was asked for, else the first of bytes, or of a structure with bytes."""
    if asked and asked not in schema.names:
        raise one_of(f"column of {name}", asked, schema.names)
    for field in schema:
        kind, types = field.type, library.types
        inner = next((f.type for f in kind if f.name == "bytes"), kind) if types.is_struct(kind) else kind
        if (types.is_binary(inner) or types.is_large_binary(inner)) and asked in ("", field.name):
            return str(field.name)
    raise UserError(
        f"The parquet file {name} has no column of image bytes{f' called {asked}' if asked else ''}; its columns are "
        f"{', '.join(schema.names)}. Name one with --set data.options.image=COLUMN."
    )


def _class_names(schema: Any, label: str) -> Sequence[str]:
    """Returns the names of numbered classes, which the library `datasets` writes into a parquet file."""
    with suppress(KeyError, TypeError, ValueError, RecursionError):
        known = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
        return [readable(str(name)) for name in known]
    return []
