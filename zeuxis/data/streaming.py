"""Batches of a stream: more training images than a disk holds, read, decoded and shuffled on the fly.

An epoch reads the shards in a random order and cuts their images into windows of `buffer` images (a multiple of the
batch size). A window is decoded by one thread per core while the one before it is trained on, and is then shuffled:

    order   = permutation(shards)    drawn with the seed (seed, epoch)
    places  = permutation(window)    drawn with the seed (seed, epoch, window)

So the k-th batch of a run depends only on the seed and k, as that of `Batches`: a checkpoint's number of batches is the
position in the stream, and a resumed run reads on from the window where it stopped. Memory holds two windows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch

from zeuxis.data.batches import Batch, Batches, finished, mirrors
from zeuxis.data.cache import TO_GREY, Prepared, reason, tell
from zeuxis.data.dataset import Dataset
from zeuxis.data.notes import Tally
from zeuxis.data.pictures import prepared_picture
from zeuxis.data.records import Image, Stream
from zeuxis.errors import UserError
from zeuxis.progress import warn
from zeuxis.recipe import DataOptions

__all__ = ["StreamedBatches", "batches_of"]

# Images that are handed to the decoding threads at a time.
CHUNK = 256
Window = tuple[np.ndarray, np.ndarray | None]
# Epoch and number of a window.
Key = tuple[int, int]


def batches_of(
    dataset: Dataset,
    options: DataOptions,
    batch_size: int,
    seed: int,
    device: torch.device,
    *,
    part: Callable[[int], slice] = slice,
) -> Batches | StreamedBatches:
    """Returns the training images in batches: of the stream, if there is one; arguments as of `Batches`."""
    if dataset.stream is None:
        return Batches(dataset, options, batch_size, seed, device, part=part)
    return StreamedBatches(dataset, dataset.stream, options, batch_size, seed, device, part)


class StreamedBatches:
    """The training images of a stream in batches, reshuffled each epoch; a smaller last batch is dropped.

    An image that cannot be read is replaced by another one of its window, and a warning names the first. After the
    first epoch, warnings say what was left out, cropped and converted.

    Args:
        dataset: the images.
        stream: its stream.
        options: the recipe's data section.
        batch_size: images per batch; at most the number of training images is used.
        seed: seed of the order and of mirroring.
        device: device of the batches.
        part: gives the rows of a batch that are returned, for their number; the window is decoded whole.
    """

    def __init__(
        self,
        dataset: Dataset,
        stream: Stream,
        options: DataOptions,
        batch_size: int,
        seed: int,
        device: torch.device,
        part: Callable[[int], slice] = slice,
    ) -> None:
        self.part = part
        self.stream, self.options, self.seed, self.device = stream, options, seed, device
        self.batch_size = min(batch_size, stream.total)
        self.per_epoch = stream.total // self.batch_size
        self.per_window = max(min(stream.buffer // self.batch_size, self.per_epoch), 1)
        self._shape, self._labelled = dataset.images.shape[1:], dataset.labels is not None
        self._held: tuple[Key, Window] | None = None
        self._ahead: tuple[Key, Future[Window]] | None = None
        self._place: tuple[Key, Iterator[Image]] | None = None
        self._tally, self._unreadable = Tally(), 0
        self._reader: ThreadPoolExecutor | None = None
        self._closing = threading.Event()

    def __getitem__(self, k: int) -> Batch:
        """Returns the k-th batch of the run."""
        epoch, place = divmod(k, self.per_epoch)
        number, inside = divmod(place, self.per_window)
        pixels, labels = self._window((epoch, number))
        batch = slice(inside * self.batch_size, (inside + 1) * self.batch_size)
        rows = self.part(self.batch_size)
        return finished(
            torch.from_numpy(pixels[batch][rows]).to(self.device, non_blocking=True),
            None if labels is None else torch.from_numpy(labels[batch][rows]).to(self.device, non_blocking=True),
            self.options,
            mirrors(self.options, [self.seed, epoch, place], self.batch_size, rows),
        )

    def close(self) -> None:
        """Stops reading ahead."""
        self._closing.set()
        if self._reader:
            self._reader.shutdown()
        self._reader = self._ahead = self._place = None

    def _window(self, key: Key) -> Window:
        """Returns a window, and starts to read the next one."""
        if self._held is None or self._held[0] != key:
            if self._reader is None:
                self._reader = ThreadPoolExecutor(1, "zeuxis-stream")
                self._closing.clear()
            ahead = self._ahead[1] if self._ahead and self._ahead[0] == key else self._reader.submit(self._load, key)
            self._held = (key, ahead.result())
            epoch, number = key
            last = (number + 1) * self.per_window >= self.per_epoch
            following = (epoch + 1, 0) if last else (epoch, number + 1)
            self._ahead = (following, self._reader.submit(self._load, following))
        return self._held[1]

    def _load(self, key: Key) -> Window:
        """Reads, decodes and shuffles a window."""
        epoch, number = key
        size = self.per_window * self.batch_size
        count = min(size, self.per_epoch * self.batch_size - number * size)
        places = np.random.default_rng([self.seed, epoch, number, 1]).permutation(count)
        pixels, labels = np.empty((count, *self._shape), np.uint8), np.zeros(count, np.int64)
        good, bad, first = list[int](), list[int](), ""
        source = self._images(key)
        images = islice(source, count)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            while (chunk := list(islice(images, CHUNK))) and not self._closing.is_set():
                first = first or chunk[0].name
                for image, outcome in zip(chunk, pool.map(self._decoded, chunk), strict=True):
                    place = int(places[len(good) + len(bad)])
                    labels[place] = image.label
                    self._tell(image, outcome, first=epoch == 0)
                    if isinstance(outcome, str):
                        bad.append(place)
                    else:
                        good.append(place)
                        pixels[place] = np.frombuffer(outcome.pixels, np.uint8).reshape(self._shape)
        if bad and not good:
            raise UserError(f"None of {len(bad):,} images of the stream, from {first} on, can be read.")
        self._place = ((epoch, number + 1), source)
        for i, place in enumerate(bad):
            other = good[i % len(good)]
            pixels[place], labels[place] = pixels[other], labels[other]
        if epoch == 0 and (number + 1) * self.per_window >= self.per_epoch:
            for note in self._tally.notes(self.per_epoch * self.batch_size):
                warn(f"In the first epoch of the stream: {note}")
        return pixels, labels if self._labelled else None

    def _images(self, key: Key) -> Iterator[Image]:
        """Returns the images of an epoch from a window on: read on where the last window ended, if that is there."""
        epoch, number = key
        place, self._place = self._place, None  # a read that fails does not go on from there
        if place and place[0] == key:
            return place[1]
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.stream.counts)).tolist()
        return self.stream.epoch(order, number * self.per_window * self.batch_size)

    def _decoded(self, image: Image) -> Prepared | str:
        """Returns an image as the cache would store it, or the reason why it is not used."""
        if isinstance(image.content, str):
            return image.content
        try:
            prepared = prepared_picture(image.content, self.options)
        except Exception as error:  # noqa: BLE001 - decoders raise anything; the image is reported and left out
            return reason(error)
        if not prepared.grey and self.options.channels == 1 and not self.options.convert:
            return f"it is {TO_GREY.partition(',')[0]}; data.convert=true would turn it grey"
        return prepared

    def _tell(self, image: Image, outcome: Prepared | str, *, first: bool) -> None:
        """Counts what happened to an image in the first epoch, and warns of the first that cannot be used."""
        if not isinstance(outcome, str):
            if first:
                tell(self._tally, image.name, outcome, self.options)
            return
        if not self._unreadable:
            warn(f"{image.name} is left out: {outcome}. Other images of the stream take the place of such.")
        self._unreadable += 1
        if first:
            self._tally.add("left out", "left out as unreadable", f"{image.name} ({outcome})")
