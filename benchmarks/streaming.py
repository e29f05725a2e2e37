"""Memory and speed of a stream: `python -m benchmarks.streaming [--format parquet] [--records N] [--minutes M]`.

A source makes shards of noise in memory, tar or parquet, so that there are as many records as wanted and no disk is
waited for. Every few seconds a line says how many images were read, how fast, and how much memory
the process holds.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import psutil
import torch
from PIL import Image

from zeuxis.data import batches_of, load, source
from zeuxis.data.records import Record, Shards
from zeuxis.data.registry import Collection
from zeuxis.data.shards import ShardOptions, parquet_records, tar_records
from zeuxis.data.streams import Count, streamed
from zeuxis.recipe import DataOptions, Section

__all__ = ["Made", "main", "measured"]

SIDE, PER_SHARD, CLASSES = 32, 2_000, ("even", "odd")
FORMATS = ("tar", "parquet")


class MadeOptions(Section):
    """Options of the source."""

    records: int = 200_000
    format: str = "tar"
    buffer: int = 4096


def pictures(count: int) -> Iterator[tuple[bytes, str]]:
    """Yields so many PNGs of noise, and their classes."""
    generator = np.random.default_rng(0)
    for i in range(count):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file, "PNG")
        yield file.getvalue(), CLASSES[i % 2]


@cache
def shard(count: int, kind: str) -> bytes:
    """Returns a shard of so many records."""
    made = io.BytesIO()
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        images, labels = zip(*pictures(count), strict=True)
        pyarrow.parquet.write_table(pyarrow.table({"image": images, "label": labels}), made)
        return made.getvalue()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for i, (image, label) in enumerate(pictures(count)):
            for name, content in ((f"{i:09d}.png", image), (f"{i:09d}.json", json.dumps({"label": label}).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


class Made(Shards):
    """Shards of noise, all with the same content; the last is held out."""

    def __init__(self, records: int, kind: str) -> None:
        self.kind = kind
        self.sizes = [min(PER_SHARD, records - first) for first in range(0, records, PER_SHARD)] + [1_000]
        self.names = [f"shard-{i}" for i in range(len(self.sizes))]
        self.held = [False] * (len(self.sizes) - 1) + [True]
        self.stamp, self.classes = f"made {records} {kind}", CLASSES

    def count(self) -> Count:
        """Returns the images in them."""
        images = [{"even": (n + 1) // 2, "odd": n // 2} for n in self.sizes]
        parts = [[{}, found] if held else [found, {}] for found, held in zip(images, self.held, strict=True)]
        return Count(parts, [], self.stamp, "", {})

    def records(self, i: int, *, images: bool = True) -> Iterator[Record]:
        """Yields the records of a shard."""
        file = io.BytesIO(shard(self.sizes[i], self.kind))
        if self.kind == "parquet":
            yield from parquet_records(file, ShardOptions(), self.names[i], images=images)
        else:
            yield from tar_records(file, ShardOptions())


@source("made", "shards of noise", mirrors=True, options=MadeOptions)
def made(options: DataOptions, own: MadeOptions) -> Collection:
    shards = Made(own.records, own.format)
    return streamed(shards, options, own.buffer, shards.count())


def measured(
    records: int, seconds: float, every: float = 10.0, kind: str = "tar"
) -> Iterator[tuple[int, float, float]]:
    """Reads a stream once, or for so long; yields images so far, images a second since then, and resident MB."""
    options = DataOptions(source="made", size=SIDE, channels=3, options={"records": records, "format": kind})
    batches = batches_of(load(options), options, 256, 0, torch.device("cpu"))
    process, start = psutil.Process(), time.perf_counter()
    said, then = 0, start
    for k in range(batches.per_epoch):
        batches[k]
        done, now = (k + 1) * batches.batch_size, time.perf_counter()
        if now - then >= every or k + 1 == batches.per_epoch or now - start >= seconds:
            yield done, (done - said) / (now - then), process.memory_info().rss / 2**20
            said, then = done, now
        if now - start >= seconds:
            break
    batches.close()


def main() -> None:
    """Prints a line every few seconds, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000, help="records of the stream")
    parser.add_argument("--format", choices=FORMATS, default="tar", help="of the shards")
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after so long")
    arguments = parser.parse_args()
    lines, start = [], time.perf_counter()
    for done, rate, memory in measured(arguments.records, 60 * arguments.minutes, kind=arguments.format):
        lines.append((done, memory))
        print(f"{done:>12,} images  {rate:>7,.0f} a second  {memory:>7,.0f} MB resident", flush=True)
    late = [memory for _, memory in lines[len(lines) // 4 :]]
    print(
        f"{lines[-1][0]:,} images in {time.perf_counter() - start:.0f} s; after the first quarter, resident memory "
        f"stayed within {min(late):,.0f} to {max(late):,.0f} MB; {lines[-1][0] / time.process_time():,.0f} images in a "
        "second of a core."
    )


if __name__ == "__main__":
    main()
