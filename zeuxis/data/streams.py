"""What is known of shards before a training streams them: how many images each gives, and a sample of them.

Both are read once and kept in the cache, in a folder named by a hash of what they depend on. The sample has at most
`TRAIN` training images and `TEST` held-out ones, drawn by a fixed seed from at least `SPREAD` shards. It takes the
place of the whole set wherever images are looked up by index: evaluation, figures, nearest training images.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zeuxis.data.files import decode, readable, surveyed
from zeuxis.data.labels import in_order
from zeuxis.data.notes import Note, of_left_out
from zeuxis.data.records import CutError, Image, Record, Shards, Stream, attempted, is_test
from zeuxis.data.registry import Collection
from zeuxis.errors import UserError, one_of
from zeuxis.files import WriteError, cache_dir, make_folder, unfinished, unlock, why, write_file
from zeuxis.progress import bar, say
from zeuxis.recipe import DataOptions

__all__ = ["Count", "streamed"]

TRAIN, TEST = 10_000, 2_000
# A sample comes from so many shards, if there are as many: one shard may hold a single class.
SPREAD = 16


class Count(NamedTuple):
    """The images in shards.

    Attributes:
        images: number of images by class in each shard, for the training part and the test part; "" has no class.
        attributes: binary attributes that all images have.
        digest: hash of the shards' keys and labels, or of their bytes.
        bare: an image without a class; empty if there is none.
        left_out: shards that are damaged, and how.
    """

    images: list[list[dict[str, int]]]
    attributes: list[str]
    digest: str
    bare: str
    left_out: dict[str, str]


def streamed(shards: Shards, options: DataOptions, buffer: int, count: Count | None = None) -> Collection:
    """Returns the collection of images in shards: a sample of them, and the stream of all.

    Args:
        shards: the shards.
        options: the recipe's data section.
        buffer: images of the stream that are shuffled together.
        count: the images in them, if that is known.

    Raises:
        UserError: if they cannot be read, have no images, or cannot be kept in the cache.
    """
    count = count or _counted(shards, options)
    found = sum((Counter(part) for parts in count.images for part in parts), Counter[str]())
    if not found.total():
        raise UserError(f"{shards.names[0]} and all other shards contain no images: {_reasons(count)}.")
    classes = list(shards.classes) or in_order(name for name in found if name)
    for name in options.classes if classes else ():
        if not found[name]:
            raise (
                one_of("class", name, classes) if name not in classes else UserError(f"No image is of class '{name}'.")
            )
    known = list(dict.fromkeys(options.classes)) or classes
    attributes = [name for name in options.attributes if name in count.attributes]
    used = {name: i for i, name in enumerate(known)} if classes and not attributes else {}
    stream = Stream(
        shards=shards,
        counts=np.array([
            [sum(n for name, n in part.items() if not used or name in used) for part in parts] for parts in count.images
        ]),
        test_fraction=0.0 if shards.held else options.test_fraction,
        split_seed=options.split_seed,
        classes=used,
        attributes=attributes,
        buffer=buffer,
        fingerprint=count.digest,
    )  # fmt: skip
    folder, sample = _sampled(stream, count, [*used, "|", *attributes])
    ends = np.array([0, *sample["ends"]])

    def content(i: int) -> bytes:
        if i in reasons:
            raise ValueError(reasons[i])
        with (folder / "images.bin").open("rb") as file:
            file.seek(ends[i])
            return file.read(int(ends[i + 1] - ends[i]))

    reasons = {int(i): reason for i, reason in sample["reasons"].items()}
    survey = surveyed(content, len(sample["names"]))
    place = {name: i for i, name in enumerate(classes)}
    left_out = {**shards.left_out, **count.left_out}
    return Collection(
        fingerprint=hashlib.sha256(f"{count.digest} {sample['sha256']} {sample['names']}".encode()).hexdigest(),
        names=sample["names"],
        channels=survey.channels,
        sizes=survey.sizes,
        side=survey.side,
        read=lambda i, size: decode(content(i), size),
        labels=np.array([place.get(label, -1) for label in sample["labels"]]) if classes else None,
        classes=classes,
        attributes=np.array(sample["attributes"], np.uint8) if count.attributes else None,
        attribute_names=count.attributes,
        split=np.array(sample["split"]),
        sampled=survey.sampled,
        notes=[*of_left_out(left_out), *_notes(stream, count, found, sample)],
        left_out=left_out,
        stream=stream,
    )


def _reasons(count: Count) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in list(count.left_out.items())[:3]) or "no record has one"


def _notes(stream: Stream, count: Count, found: Counter[str], sample: dict[str, Any]) -> Iterator[Note]:
    """Yields what is left out, and of what the sample is one."""
    total = found.total()
    if stream.classes and count.bare:
        yield Note("left out", found[""], "left out (without a label)", count.bare, total)
    train, test = stream.total, int(stream.counts[:, 1].sum())
    split = np.array(sample["split"])
    if (kept := int((split == 1).sum())) < test:
        what = "used, as a sample of the held-out images"
        yield Note("sampled", kept, what, sample["names"][int(split.argmax())], test)
    if (kept := int((split == 0).sum())) < train:
        what = (
            "kept as a sample, for what looks up training images (nearest ones, memorisation, the FID of real images)"
        )
        yield Note("sampled", kept, what, sample["names"][int(split.argmin())], train)


def _counted(shards: Shards, options: DataOptions) -> Count:
    """Counts the images in shards, once."""
    fraction, seed = (0.0, 0) if shards.held else (options.test_fraction, options.split_seed)

    def count(folder: Path) -> dict[str, Any]:
        digest, left_out, bare = hashlib.sha256(), dict[str, str](), ""
        attributes: dict[str, None] | None = None
        images = []
        with bar("counting images", len(shards.names)) as advance:
            for i, name in enumerate(shards.names):
                parts = [Counter[str](), Counter[str]()]
                images.append(parts)
                digest.update(f"{name}\n".encode())
                try:
                    for key, label, known in _labels(shards, i):
                        parts[is_test(shards, fraction, seed, i, key)][label] += 1
                        digest.update(f"{key}\t{label}\t{known}\n".encode())
                        attributes = {a: None for a in (known if attributes is None else attributes) if a in known}
                        bare = bare or (f"{name}/{key}" if not label else "")
                except CutError as error:
                    left_out[name] = f"it {error}; the {sum(map(Counter.total, parts)):,} images before that are used"
                advance(1)
        return {
            "images": images, "attributes": list(attributes or ()), "digest": digest.hexdigest(), "bare": bare,
            "left_out": left_out,
        }  # fmt: skip

    return Count(**_kept([shards.stamp, fraction, seed], count)[1])


def _labels(shards: Shards, i: int) -> Iterator[tuple[str, str, dict[str, bool]]]:
    """Yields key, label and attributes of a shard's records."""
    done = 0

    def read() -> Iterator[Image]:
        nonlocal done
        for place, record in enumerate(shards.records(i, images=False)):
            if place >= done:
                done += 1
                yield Image("", 0, record, "")

    for image in attempted(read, shards.names[i]):
        yield image.record.key, image.record.label, dict(image.record.attributes)


def _sampled(stream: Stream, count: Count, used: list[str]) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of the sample, and what is known of it."""

    def write(folder: Path) -> dict[str, Any]:
        rows, reasons, digest = list[tuple[str, Record, int, int]](), dict[int, str](), hashlib.sha256()
        end = 0
        drawn = [_drawn(stream.counts[:, part], most) for part, most in enumerate((TRAIN, TEST))]
        total = sum(len(places) for part in drawn for places in part.values())
        with (folder / "images.bin").open("wb") as file, bar("taking a sample", total) as advance:
            for part, places in enumerate(drawn):
                for shard, chosen in places.items():
                    for image in stream.part(shard, chosen, test=bool(part)):
                        if isinstance(image.content, bytes):
                            file.write(image.content)
                            digest.update(image.content)
                            end += len(image.content)
                        else:
                            reasons[len(rows)] = image.content
                        rows.append((image.name, image.record, part, end))
                        advance(1)
        return {
            "names": [readable(name) for name, _, _, _ in rows],
            "labels": [record.label for _, record, _, _ in rows],
            "attributes": [[int(record.attributes[name]) for name in count.attributes] for _, record, _, _ in rows],
            "split": [part for _, _, part, _ in rows],
            "ends": [end for _, _, _, end in rows],
            "reasons": reasons,
            "sha256": digest.hexdigest(),
        }

    key = [stream.shards.stamp, stream.fingerprint, stream.test_fraction, stream.split_seed, TRAIN, TEST, *used]
    return _kept(key, write)


def _drawn(counts: np.ndarray, most: int) -> dict[int, np.ndarray]:
    """Returns the places of a sample of at most so many images, by shard."""
    generator = np.random.default_rng(0)
    order = generator.permutation(np.flatnonzero(counts))
    enough = int(np.searchsorted(counts[order].cumsum(), most)) + 1
    shards = np.sort(order[: max(enough, SPREAD)])
    if not len(shards):
        return {}
    ends = counts[shards].cumsum()
    places = np.sort(generator.permutation(int(ends[-1]))[:most])
    parts = np.split(places, np.searchsorted(places, ends[:-1]))
    return {int(s): part - end + counts[s] for s, end, part in zip(shards, ends, parts, strict=True) if len(part)}


def _kept(key: list[Any], make: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """Returns a folder in the cache and its index; makes it if it is not there, or is damaged.

    Args:
        key: what the content depends on.
        make: fills a folder, and returns its index; a `sha256` in it is that of `images.bin`.
    """
    parent = make_folder(cache_dir() / "streams")
    folder = parent / hashlib.sha256(json.dumps([1, *key]).encode()).hexdigest()[:24]
    with suppress(FileNotFoundError):
        try:
            return folder, _index(folder)
        except ValueError:
            say(f"{folder} is damaged; it is made again.")
            shutil.rmtree(folder, ignore_errors=True)
    try:
        with unfinished(parent) as building:
            index = make(building)
            text = json.dumps(index)
            write_file(building / "index.json", json.dumps({"index": text, "seal": _seal(text)}))
            unlock(building)
            try:
                building.rename(folder)
            except OSError:
                if not folder.is_dir():  # another process may have made the same meanwhile
                    raise
        return folder, _index(folder)
    except OSError as error:
        raise WriteError(
            f"What is known of the shards cannot be kept in {parent}: {why(error)}. Free some space, or set "
            "ZEUXIS_CACHE to another folder."
        ) from error


def _seal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _index(folder: Path) -> dict[str, Any]:
    """Returns a folder's index; raises a `ValueError` if it or the images are damaged."""
    try:
        stored = json.loads((folder / "index.json").read_text("utf-8"))
        index: dict[str, Any] = json.loads(stored["index"])
        good = stored["seal"] == _seal(stored["index"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("index.json has changed") from error
    if good and "sha256" in index:
        with (folder / "images.bin").open("rb") as file:
            good = hashlib.file_digest(file, "sha256").hexdigest() == index["sha256"]
    if not good:
        raise ValueError("images.bin or index.json has changed")
    return index
