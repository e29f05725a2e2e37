"""Records in shards that are read in order, and the stream of training images that they make.

An epoch reads the shards in an order that depends on the seed and the epoch, and each shard from its first record to
its last. Which records a shard gives is counted beforehand, so the n-th training image of an epoch has a known place.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from zeuxis.errors import UserError
from zeuxis.files import why

__all__ = ["CutError", "Image", "Record", "Shards", "Stream", "attempted"]

# Reads of a shard without a new record before it is given up, and seconds before the second; each waits twice as long.
ATTEMPTS, PAUSE = 5, 0.5


class CutError(Exception):
    """A shard that is damaged or ends too early; the message says how, in words that follow `it`."""


class Record(NamedTuple):
    """One record of a shard.

    Attributes:
        key: its name, unique in its shard.
        label: name of its class; empty if it has none.
        attributes: whether it has each binary attribute.
        content: reads the image file's bytes, before the next record is read; raises a `ValueError` if there are none.
    """

    key: str
    label: str
    attributes: Mapping[str, bool]
    content: Callable[[], bytes]


class Image(NamedTuple):
    """A record that is used.

    Attributes:
        name: its shard and key, for messages.
        label: index of its class; 0 without classes.
        record: the record, whose content may no longer be readable.
        content: the bytes of its file, or the reason why there are none.
    """

    name: str
    label: int
    record: Record
    content: bytes | str


class Shards(ABC):
    """Records in shards.

    Attributes:
        names: one per shard, for messages.
        held: whether each shard is of the published test part; empty if none is published.
        stamp: changes whenever the content may have changed.
        classes: names of the classes, in the order of their indices; empty if they are found by reading all labels.
        left_out: files that are not used, and why.
    """

    names: list[str]
    held: list[bool]
    stamp: str
    classes: Sequence[str] = ()
    left_out: Mapping[str, str] = {}

    @abstractmethod
    def records(self, i: int, *, images: bool = True) -> Iterator[Record]:
        """Yields the records of shard i in order.

        Args:
            i: index of the shard.
            images: False if no content is going to be read.

        Raises:
            CutError: where the shard is damaged or ends too early.
            Exception: of any kind if it cannot be read now, but perhaps later.
        """


@dataclass(frozen=True)
class Stream:
    """The images of some shards that a recipe uses, read in order.

    Attributes:
        shards: the shards.
        counts: `(S, 2)`, training and test images that each shard gives.
        test_fraction: share of the keys that are held out; 0 if a split is published.
        split_seed: seed of that split.
        classes: index of each class that is used; empty if the images have no classes.
        attributes: binary attributes whose combination is the class, if any.
        buffer: images that are shuffled together.
        fingerprint: hash of the shards' keys and labels, or of their bytes.
    """

    shards: Shards
    counts: np.ndarray
    test_fraction: float
    split_seed: int
    classes: Mapping[str, int]
    attributes: Sequence[str]
    buffer: int
    fingerprint: str

    @property
    def total(self) -> int:
        """Number of training images."""
        return int(self.counts[:, 0].sum())

    def epoch(self, order: Sequence[int], start: int) -> Iterator[Image]:
        """Yields the training images of shards in this order, from the `start`-th on."""
        for shard in order:
            count = int(self.counts[shard, 0])
            if start < count:
                yield from self.part(shard, np.arange(start, count))
            start = max(start - count, 0)

    def part(self, shard: int, places: np.ndarray, *, test: bool = False) -> Iterator[Image]:
        """Yields images of one shard; reads it again, from where it was, if it cannot be read at first.

        Args:
            shard: its index.
            places: of the images among the shard's training images, or its test images; ascending.
            test: whether to yield test images.

        Raises:
            UserError: if the shard cannot be read, or gives other images than it gave when it was counted.
        """
        done, name = 0, self.shards.names[shard]

        def read() -> Iterator[Image]:
            nonlocal done
            place = -1
            for record in self.shards.records(shard):
                label = self.label(record)
                if label < 0 or self.is_test(shard, record.key) != test:
                    continue
                place += 1
                if done < len(places) and place == places[done]:
                    image = Image(f"{name}/{record.key}", label, record, _content(record))
                    done += 1
                    yield image
                if done == len(places):
                    return
            raise CutError(f"ends after {place + 1:,} images, and had more when they were counted")

        if len(places):
            try:
                yield from attempted(read, name)
            except CutError as error:
                raise UserError(
                    f"The shard {name} has changed: it {error}. Put the same shard back, then resume the run."
                ) from error

    def is_test(self, shard: int, key: str) -> bool:
        """Whether a record is held out."""
        return is_test(self.shards, self.test_fraction, self.split_seed, shard, key)

    def label(self, record: Record) -> int:
        """Returns the index of a record's class; -1 if the record is not used."""
        if self.attributes:
            return sum(record.attributes[name] << place for place, name in enumerate(self.attributes))
        return self.classes.get(record.label, -1) if self.classes else 0


def is_test(shards: Shards, fraction: float, seed: int, shard: int, key: str) -> bool:
    """Whether a record is held out: by its shard if a split is published, else by a hash of its shard and key."""
    if shards.held:
        return shards.held[shard]
    digest = hashlib.blake2b(f"{seed} {shards.names[shard]} {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < fraction * 2**64


def _content(record: Record) -> bytes | str:
    try:
        return record.content()
    except ValueError as error:
        return str(error)


def attempted(read: Callable[[], Iterator[Image]], name: str) -> Iterator[Image]:
    """Yields what a function yields; calls it again, after a pause, if a shard cannot be read.

    Args:
        read: continues after what it has yielded before.
        name: of the shard, for messages.

    Raises:
        UserError: if the shard cannot be read several times without anything new.
        CutError: if it is damaged.
    """
    failures = 0
    while True:
        try:
            for image in read():
                failures = 0
                yield image
        except (UserError, CutError):
            raise
        except Exception as error:  # of the system, of the network, of a library of a store
            failures += 1
            if failures == ATTEMPTS:
                raise UserError(
                    f"The shard {name} cannot be read, after {ATTEMPTS} attempts: "
                    f"{why(error).rstrip('.')}. A run can be resumed from its last checkpoint once it can be read."
                ) from error
            time.sleep(PAUSE * 2 ** (failures - 1))
        else:
            return
