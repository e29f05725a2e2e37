"""Data sets of the Hugging Face hub, and local ones in formats that its library `datasets` reads.

`hf:USER/NAME` is downloaded once into the library's own cache, or read as a stream; `hf:FOLDER` reads an image folder,
parquet or Arrow files on this machine. The images are decoded by the same code as all others, not by the library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from zeuxis.data.files import MAX_BYTES, decode, readable, row_image, surveyed
from zeuxis.data.labels import LABEL_COLUMNS, label_of
from zeuxis.data.records import Record, Shards
from zeuxis.data.registry import Collection, lookup, source
from zeuxis.data.shards import BUFFER
from zeuxis.data.streams import streamed
from zeuxis.errors import UserError, one_of
from zeuxis.files import first_line
from zeuxis.recipe import DataOptions, Section
from zeuxis.stores import is_address

# Names of the parts of a published split, the preferred first.
TRAIN, TEST = ("train", "training"), ("test", "validation", "valid", "val")


class HubOptions(Section):
    """Options of the source, under `data.options`."""

    config: str = Field("", description="which of the data set's configurations, where it has several")
    revision: str = Field("", description="a branch, tag or commit")
    image: str = Field("", description="the column of images; found by its type if empty")
    label: str = Field("", description="the column of classes; found by its type or name if empty")
    streaming: bool = Field(False, description="read it as a stream, without a copy on this machine")
    buffer: int = Field(BUFFER, ge=1, le=10_000_000, description="images of a stream that are shuffled together")


@source("hf", "a data set of the Hugging Face hub: --data hf:USER/NAME, or hf:FOLDER", mirrors=True, options=HubOptions)
def hub(options: DataOptions, own: HubOptions) -> Collection:
    if not options.path:
        raise UserError("The data source 'hf' needs a name: --data hf:USER/NAME, or data.path in the recipe.")
    if own.streaming:
        return streamed(Rows(options.path, own), options, own.buffer)
    splits, _ = _loaded(options.path, own)
    train, test = _parts(splits)
    parts = [splits[train], *([splits[test]] if test else [])]
    features = parts[0].features
    column = _column(options.path, features, own.image, "image", "Image")
    label = _label_column(options.path, features, own.label)
    parts = [part.select_columns([column, *([label] if label else [])]) for part in parts]
    parts = [part.cast_column(column, _undecoded()) for part in parts]
    ends = np.cumsum([len(part) for part in parts])

    def content(i: int) -> bytes:
        number = int(np.searchsorted(ends, i, side="right"))
        return _content(parts[number][int(i - (ends[number - 1] if number else 0))][column])

    total = int(ends[-1])
    survey = surveyed(content, total)
    names = [f"{name}/{i}" for name, part in zip((train, test), parts, strict=False) for i in range(len(part))]
    labels, classes = _labels(parts, label, features) if label else (None, [])
    stamp = " ".join([options.path, *(part._fingerprint for part in parts)])
    return Collection(
        fingerprint=hashlib.sha256(stamp.encode()).hexdigest(),
        names=names,
        channels=survey.channels,
        sizes=survey.sizes,
        side=survey.side,
        transparent=survey.transparent,
        read=lambda i, size: decode(content(i), size),
        content=content,
        labels=labels,
        classes=classes,
        split=np.repeat([0, 1], [len(part) for part in parts]) if test else None,
        sampled=survey.sampled,
    )


class Rows(Shards):
    """The rows of a data set that are read as a stream.

    Args:
        path: its name on the hub, or a folder.
        own: the source's options.

    Raises:
        UserError: if it cannot be read, or has no images.
    """

    def __init__(self, path: str, own: HubOptions) -> None:
        splits, stamp = _loaded(path, own)
        train, test = _parts(splits)
        self._parts = [splits[name] for name in (train, test) if name]
        features = self._parts[0].features or self._parts[0]._resolve_features().features
        self._image = _column(path, features, own.image, "image", "Image")
        self._label = _label_column(path, features, own.label)
        self._names = getattr(features[self._label], "names", None) if self._label else None
        self.classes = [readable(str(name)) for name in self._names or ()]
        self._places = [(part, i) for part, rows in enumerate(self._parts) for i in range(rows.num_shards)]
        self.names = [f"{(train, test)[part]}/{i}" for part, i in self._places]
        self.held = [bool(part) for part, _ in self._places] if test else []
        self.stamp = " ".join([path, stamp, self._image, self._label])

    def records(self, i: int, *, images: bool = True) -> Iterator[Record]:
        """Yields the rows of a shard; see `Shards.records`."""
        part, number = self._places[i]
        rows = self._parts[part]
        columns = [*([self._image] if images or not self._label else []), *([self._label] if self._label else [])]
        rows = rows.select_columns(columns)
        if self._image in columns:
            rows = rows.cast_column(self._image, _undecoded())
        for place, row in enumerate(rows.shard(num_shards=rows.num_shards, index=number)):
            value = row.get(self._label)
            known = self.classes[value] if self._names and value is not None and value >= 0 else label_of(value)
            yield Record(str(place), known, {}, lambda row=row: _content(row[self._image]))  # type: ignore[misc]


def _parts(splits: Any) -> tuple[str, str | None]:
    """Returns the names of the split to train on, and of the one that is held out, if there is one."""
    train = next((name for name in TRAIN if name in splits), next(iter(splits)))
    return train, next((name for name in TEST if name in splits and name != train), None)


def _content(row: Any) -> bytes:
    """Returns the bytes of an image that was not decoded."""
    found: bytes | None = None if row is None else row["bytes"]
    if row is not None and found is None:
        import fsspec

        path = row["path"]
        with fsspec.open(path) if is_address(path) else Path(path).open("rb") as file:
            found = file.read(MAX_BYTES + 1)
    return row_image(found)


def _loaded(path: str, own: HubOptions) -> tuple[Any, str]:
    """Returns the splits of a data set by name, as streams if asked, and a stamp that changes with its files."""
    try:
        import datasets
    except ImportError as error:
        raise UserError("The data source 'hf' needs the library datasets: pip install 'zeuxis[hf]'.") from error
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would report every use to another server
    local = lookup(path)
    try:
        place, config, revision = str(local) if local else path, own.config or None, own.revision or None
        if not own.streaming:
            return datasets.load_dataset(place, config, revision=revision), ""
        builder = datasets.load_dataset_builder(place, config, revision=revision)
        return builder.as_streaming_dataset(), str(builder.cache_dir)
    except Exception as error:  # it has errors of its own, of the hub's client and of the formats it reads
        where = "here" if local else "on the hub"
        raise UserError(f"The data set '{readable(path)}' cannot be read {where}: {first_line(error)}") from error


def _undecoded() -> Any:
    import datasets

    return datasets.Image(decode=False)


def _column(path: str, features: Any, asked: str, what: str, kind: str) -> str:
    """Returns the column that was asked for, else the first of a type."""
    if asked:
        if asked not in features:
            raise one_of(f"column of '{path}'", asked, features)
        return asked
    found = next((name for name, feature in features.items() if type(feature).__name__ == kind), None)
    if found is None:
        raise UserError(
            f"The data set '{path}' has no column of {what}s; its columns are {', '.join(features)}. Name one with "
            f"--set data.options.{what}=COLUMN."
        )
    return str(found)


def _label_column(path: str, features: Any, asked: str) -> str:
    """Returns the column of classes; empty if there is none."""
    if asked:
        return _column(path, features, asked, "label", "ClassLabel")
    typed = next((name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"), "")
    named = next((name for name in LABEL_COLUMNS if name in features), "")
    return typed or named


def _labels(parts: list[Any], column: str, features: Any) -> tuple[np.ndarray, list[str]]:
    """Returns the class index of each image, -1 for none, and the names of the classes."""
    values = [value for part in parts for value in part[column]]
    names = getattr(features[column], "names", None)
    if names:
        return np.array([-1 if value is None else value for value in values]), list(names)
    if any(isinstance(value, list | dict) for value in values):
        raise UserError(f"The column '{column}' holds several values an image; name another with data.options.label.")
    known = sorted({value for value in values if value is not None})
    index = {value: i for i, value in enumerate(known)}
    return np.array([index.get(value, -1) for value in values]), [readable(str(value)) for value in known]
