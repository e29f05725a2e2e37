"""Streams: shards that are packed, counted, sampled, trained on and resumed; damaged ones; a store on loopback."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image

import zeuxis
from zeuxis.data import SOURCES, Batch, batches_of, choose, load, records, shards, streams
from zeuxis.data.pack import pack, size_of
from zeuxis.errors import UserError
from zeuxis.recipe import DataOptions, load_recipe
from zeuxis.run import Run
from zeuxis.training import Callback, Trainer, resume, start

CPU = torch.device("cpu")
NAMES = ["cat", "dog"]


def picture(i: int, kind: str = "PNG", side: int = 8, mode: str = "RGB") -> bytes:
    """An image of one colour, which says which it is."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (i % 251, i // 251, 7)).convert(mode).save(file, kind)
    return file.getvalue()


def number(pixels: np.ndarray) -> np.ndarray:
    """The numbers of images `(..., H, W, C)`."""
    red, green = pixels[..., 0, 0, 0].astype(int), pixels[..., 0, 0, 1].astype(int)
    return np.asarray(red + 251 * green)


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def files_of(numbers: range) -> dict[str, bytes]:
    """The files of a shard; image i is of class `NAMES[i % 2]`."""
    files: dict[str, bytes] = {}
    for i in numbers:
        files |= {f"{i:05d}.png": picture(i), f"{i:05d}.json": json.dumps({"label": NAMES[i % 2]}).encode()}
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five shards of 20 training images and one of 10 for testing, without an index."""
    for shard in range(5):
        write_tar(tmp_path / "set" / f"train-{shard}.tar", files_of(range(20 * shard, 20 * shard + 20)))
    write_tar(tmp_path / "set" / "test-0.tar", files_of(range(100, 110)))
    return tmp_path / "set"


def options(data: Path | str, **more: object) -> DataOptions:
    chosen = {key.removeprefix("data."): value for key, value in choose(str(data)).items()}
    return DataOptions(**{**chosen, "size": 8, "channels": 3, **more})


def numbers_of(batch: Batch) -> list[int]:
    found = number((batch.images.permute(0, 2, 3, 1) * 255).round().numpy())
    if batch.labels is not None:
        assert (batch.labels.numpy() == found % 2).all(), "an image keeps its label"
    return list(found)


# -- packing ------------------------------------------------------------------------------------------


def test_what_is_packed_is_read_by_webdataset_and_by_us(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    kinds = ["PNG", "JPEG", "BMP"]
    for i in range(90):
        place = tmp_path / "pets" / NAMES[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.{kinds[i % 3].lower()}").write_bytes(picture(i, kinds[i % 3]))
    (tmp_path / "pets" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    packed = pack(options(tmp_path / "pets"), tmp_path / "out", size_of("20KB"))
    assert (packed.train + packed.test, packed.shards) == (90, len(list((tmp_path / "out").glob("*.tar"))))
    assert packed.shards > 4 and packed.test > 0
    assert "1 of 91 images is left out as unreadable, such as cat/broken.png" in " ".join(map(str, packed.notes))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["classes"] == NAMES and sum(shard["nsamples"] for shard in index["shardlist"]) == 90

    seen = set()
    for shard in sorted((tmp_path / "out").glob("*.tar")):
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False):
            told = json.loads(sample["json"])
            kind, i = ("jpg" if "jpg" in sample else "png"), int(Path(told["name"]).stem)
            assert told["label"] == NAMES[i % 2]
            if i % 3 == 2:  # a BMP becomes a PNG of the same pixels
                assert number(np.asarray(Image.open(io.BytesIO(sample["png"])))) == i
            else:
                assert sample[kind] == (tmp_path / "pets" / told["name"]).read_bytes()
            seen.add(i)
    assert seen == set(range(90))

    found = load(options(tmp_path / "out"), progress=False)
    assert (found.train_count, len(found.test), found.classes) == (packed.train, packed.test, tuple(NAMES))
    assert not found.notes, "all of it fits into the sample"


def test_pack_refuses_what_it_cannot_do(tmp_path: Path, folder: Path) -> None:
    for size in ("", "0MB", "12 parsecs", "1e9", "1..2MB", "99999GB"):
        with pytest.raises(UserError, match=r"is no size of a shard; give one from 1KB"):
            size_of(size)
    assert size_of("1.5 gb") == 1_500_000_000 and size_of("4000") == 4000
    with pytest.raises(UserError, match="exists; choose another"):
        pack(DataOptions(source="digits"), tmp_path, 10**6)
    with pytest.raises(UserError, match="are a stream, and need no packing"):
        pack(options(folder), tmp_path / "again", 10**6)
    with pytest.raises(UserError, match="are drawn at the size of a recipe, and need no packing"):
        pack(DataOptions(source="sprites"), tmp_path / "again", 10**6)
    assert not (tmp_path / "again").exists()


# -- reading ------------------------------------------------------------------------------------------


def test_each_epoch_reads_every_image_once_in_its_own_order(folder: Path) -> None:
    found = load(options(folder, options={"buffer": 30}), progress=False)
    assert (found.train_count, len(found.test), found.classes) == (100, 10, tuple(NAMES))
    assert sorted(number(found.images[found.test])) == list(range(100, 110))
    batches = batches_of(found, options(folder), 10, 5, CPU)
    assert (batches.per_epoch, batches.batch_size) == (10, 10)
    epochs = [[i for k in range(10) for i in numbers_of(batches[10 * epoch + k])] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert len({i // 20 for i in epochs[0][:30]}) == 2, "thirty images are shuffled together, of two shards"
    batches.close()


def test_a_batch_depends_on_the_seed_and_its_number_alone(folder: Path) -> None:
    chosen = options(folder, flip=True, options={"buffer": 32})
    found = load(chosen, progress=False)
    first, second = batches_of(found, chosen, 8, 3, CPU), batches_of(found, chosen, 8, 3, CPU)
    in_order = [first[k] for k in range(26)]
    for k in (25, 3, 13, 12, 0):
        torch.testing.assert_close(second[k].images, in_order[k].images, rtol=0, atol=0)
        assert torch.equal(second[k].labels, in_order[k].labels)  # type: ignore[arg-type]
    other = batches_of(found, chosen, 8, 4, CPU)
    assert not torch.equal(other[0].images, in_order[0].images)
    for batches in (first, second, other):
        batches.close()


def test_classes_are_chosen_and_keys_are_held_out_by_a_hash(tmp_path: Path) -> None:
    for shard in range(4):
        write_tar(tmp_path / "set" / f"{shard}.tar", files_of(range(50 * shard, 50 * shard + 50)))
    whole = load(options(tmp_path / "set"), progress=False)
    assert whole.train_count + len(whole.test) == 200 and 8 <= len(whole.test) <= 35
    dogs = options(tmp_path / "set", classes=["dog"])
    found = load(dogs, progress=False)
    assert found.classes == ("dog",) and found.train_count + len(found.test) == 100
    batches = batches_of(found, dogs, found.train_count, 0, CPU)
    trained = number((batches[0].images.permute(0, 2, 3, 1) * 255).round().numpy())
    assert set(trained) | set(number(found.images[found.test])) == set(range(1, 200, 2))
    assert not set(trained) & set(number(whole.images[whole.test])), "what is held out does not depend on the classes"
    batches.close()
    with pytest.raises(UserError, match=r"no class 'dgo'. Did you mean 'dog'"):
        load(options(tmp_path / "set", classes=["dgo"]), progress=False)


def test_attributes_become_classes(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for i in range(40):
        told = {"attributes": {"odd": i % 2, "large": i >= 20, **({"rare": 1} if i else {})}}
        files |= {f"{i}.png": picture(i), f"{i}.json": json.dumps(told).encode()}
    write_tar(tmp_path / "set" / "train-0.tar", files)
    write_tar(tmp_path / "set" / "val-0.tar", files)
    chosen = options(tmp_path / "set", attribute="odd,large")
    found = load(chosen, progress=False)
    assert found.attribute_names == ("odd", "large"), "one image lacks the third"
    batches = batches_of(found, chosen, 40, 0, CPU)
    trained = number((batches[0].images.permute(0, 2, 3, 1) * 255).round().numpy())
    assert (batches[0].labels.numpy() == trained % 2 + 2 * (trained >= 20)).all()  # type: ignore[union-attr]
    batches.close()


@pytest.mark.parametrize("structure", [False, True])
def test_parquet_shards(tmp_path: Path, structure: bool) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="zeuxis[shards] is not installed")
    from pyarrow import parquet

    (tmp_path / "set").mkdir()
    for name, numbers in {"train-0": range(30), "train-1": range(30, 60), "test-0": range(60, 70)}.items():
        images = [{"bytes": picture(i), "path": None} if structure else picture(i) for i in numbers]
        table = pyarrow.table({"note": ["x"] * len(images), "image": images, "label": [i % 2 for i in numbers]})
        named = {"info": {"features": {"label": {"names": NAMES, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(named)})
        parquet.write_table(table, tmp_path / "set" / f"{name}.parquet", row_group_size=7)
    found = load(options(tmp_path / "set"), progress=False)
    assert (found.train_count, len(found.test), found.classes) == (60, 10, tuple(NAMES))
    batches = batches_of(found, options(tmp_path / "set"), 60, 0, CPU)
    assert sorted(numbers_of(batches[0])) == list(range(60))
    batches.close()
    with pytest.raises(UserError, match=r"no column of test-0.parquet 'imge'. Did you mean 'image'"):
        load(options(tmp_path / "set", options={"image": "imge"}), progress=False)
    (tmp_path / "set" / "train-1.parquet").write_bytes((tmp_path / "set" / "train-1.parquet").read_bytes()[:900])
    found = load(options(tmp_path / "set"), progress=False)
    assert found.train_count == 30 and "is not a complete parquet file" in found.left_out["train-1.parquet"]


def test_a_sample_of_bounded_size_takes_the_place_of_the_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "TRAIN", 12)
    monkeypatch.setattr(streams, "TEST", 4)
    found = load(options(folder), progress=False)
    assert (found.train_count, len(found.train), len(found.test), len(found.images)) == (100, 12, 4, 16)
    assert found.describe()["train_images"] == 100
    assert len({i // 20 for i in number(found.images[found.train])}) > 1, "it is of several shards"
    notes = [str(note) for note in found.notes]
    assert any(note.startswith("4 of 10 images are used, as a sample of the held-out images") for note in notes)
    assert any(note.startswith("12 of 100 images are kept as a sample") for note in notes)
    kept = next(path for path in (Path(os.environ["ZEUXIS_CACHE"]) / "streams").glob("*/images.bin"))
    kept.write_bytes(b"damaged")
    again = load(options(folder), progress=False)
    assert again.fingerprint == found.fingerprint and (again.images == found.images).all()


# -- training -----------------------------------------------------------------------------------------

SMALL = {"training.batch_size": 8, "training.test_every": "never", "data.channels": 3,
         "training.threads": 1, "training.precision": "float32"}  # fmt: skip


def settings(data: Path | str, steps: int, buffer: int = 24) -> dict[str, object]:
    return {**SMALL, **choose(str(data)), "data.options": {"buffer": buffer}, "training.steps": steps}


@pytest.mark.parametrize("at", [2, 13, 24])
def test_stopped_and_resumed_equals_never_interrupted(at: int, folder: Path, tmp_path: Path) -> None:
    class Stops(Callback):
        def iterated(self, trainer: Trainer) -> None:
            if trainer.step == at:
                trainer.stop("enough")

    recipe = load_recipe("digits-vae", settings(folder, 29))  # three epochs of 12, in windows of three batches
    start(recipe, tmp_path, name="whole", visible=False)
    start(recipe, tmp_path, name="stopped", visible=False, callbacks=[Stops()])
    assert resume(tmp_path / "stopped", visible=False)
    whole, stopped = (Run(tmp_path / name).model.networks.state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


KILLED = """
import os, signal, sys
from pathlib import Path
from zeuxis.recipe import load_recipe
from zeuxis.training import Callback, start
import json, torch
torch.set_num_threads(1)

class Killer(Callback):
    def iterated(self, trainer):
        if trainer.step == 11:
            os.kill(os.getpid(), signal.SIGKILL)

start(load_recipe("digits-vae", json.loads(sys.argv[1])), Path(sys.argv[2]), name="killed", visible=False,
      callbacks=[Killer()])
"""


@pytest.mark.slow
def test_killed_and_resumed_equals_never_interrupted(folder: Path, tmp_path: Path) -> None:
    chosen = settings(folder, 17) | {"training.checkpoint_every": "4 steps"}
    ended = subprocess.run([sys.executable, "-c", KILLED, json.dumps(chosen), str(tmp_path)], check=False)
    assert ended.returncode == -9
    assert resume(tmp_path / "killed", visible=False)
    start(load_recipe("digits-vae", chosen), tmp_path, name="whole", visible=False)
    whole, killed = (Run(tmp_path / name).model.networks.state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_run_is_evaluated_on_the_held_out_images_and_refuses_other_shards(folder: Path, tmp_path: Path) -> None:
    start(load_recipe("digits-vae", settings(folder, 3)), tmp_path, name="run", visible=False)
    run = Run(tmp_path / "run")
    assert run.environment["data"]["train_images"] == 100
    images, labels = run.test_images()
    assert sorted(number((images * 255).round())) == list(range(100, 110)) and labels is not None
    assert len(run.choose_images("train")) == 100
    write_tar(folder / "train-3.tar", files_of(range(200, 220)))
    with pytest.raises(UserError, match="has changed since it was trained"):
        resume(tmp_path / "run", {"training.steps": 5}, visible=False)


@pytest.mark.slow
def test_memory_is_flat_and_every_image_is_read() -> None:
    command = [sys.executable, "-m", "benchmarks.streaming", "--records", "60000", "--minutes", "60"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    last = re.search(r"([\d,]+) images in .* within ([\d,]+) to ([\d,]+) MB", ended.stdout)
    assert last is not None
    images, low, high = (int(part.replace(",", "")) for part in last.groups())
    assert images == 60_000 // 256 * 256 and high - low < 40, ended.stdout


# -- damaged shards -----------------------------------------------------------------------------------


def test_a_cut_shard_is_named_and_used_up_to_the_cut(folder: Path) -> None:
    path, whole = folder / "train-2.tar", (folder / "train-2.tar").read_bytes()
    # A record is two headers, an image and its label, of 512 bytes each. The cut is in an image, or before a record.
    for cut, reason in ((11 * 2048 + 700, "is damaged (unexpected end of data)"), (12 * 2048, "ends without the mark")):
        path.write_bytes(whole[:cut])
        found = load(options(folder), progress=False)
        assert found.train_count == 91 and list(found.left_out) == ["train-2.tar"]
        assert f"it {reason}" in found.left_out["train-2.tar"]
        assert "the 11 images before that are used" in found.left_out["train-2.tar"]
    batches = batches_of(found, options(folder), 91, 0, CPU)
    assert sorted(numbers_of(batches[0])) == [*range(51), *range(60, 100)]
    batches.close()


def test_a_shard_damaged_in_the_middle_is_named(folder: Path) -> None:
    """For Python, a header that cannot be read ends a tar as its end does."""
    path = folder / "train-2.tar"
    content = bytearray(path.read_bytes())
    content[11 * 2048 : 11 * 2048 + 100] = b"?" * 100  # the name of a record's first file, so its checksum is wrong
    path.write_bytes(content)
    found = load(options(folder), progress=False)
    assert found.train_count == 90, "of the record before, files may be missing"
    assert "it is damaged at byte 22,528" in found.left_out["train-2.tar"]


def test_damage_after_packing_is_a_sentence(tmp_path: Path) -> None:
    pack(DataOptions(source="digits"), tmp_path / "out", size_of("400KB"))
    path = tmp_path / "out" / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:200_000])
    command = [sys.executable, "-m", "zeuxis", "train", "digits-vae", "--data", str(tmp_path / "out"), "--steps", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "train-000001.tar" in ended.stderr and "was cut or replaced" in " ".join(ended.stderr.split())
    assert not (tmp_path / "runs").exists()
    path.unlink()
    with pytest.raises(UserError, match=r"train-000001.tar in .* is missing, and index.json says"):
        load(options(tmp_path / "out"), progress=False)
    (tmp_path / "out" / "index.json").write_text('{"zeuxis": 1, "shardlist": [{"url": 3}]}')
    with pytest.raises(
        UserError, match=r"index.json in .* cannot be read: .*Remove it, and the shards will be counted"
    ):
        load(options(tmp_path / "out"), progress=False)


def test_images_that_cannot_be_used_are_replaced_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = files_of(range(40))
    files["00007.png"] = b"no image"
    files["00009.png"] = picture(9, side=20)
    del files["00011.json"]
    files["00013.json"] = b"{"
    files |= {"00014.txt": b"a caption", "folder/00050.json": b'{"label": "cat"}'}  # no image
    write_tar(tmp_path / "set" / "train-0.tar", files)
    write_tar(tmp_path / "set" / "test-0.tar", files_of(range(100, 104)))
    found = load(options(tmp_path / "set"), progress=False)
    assert found.train_count == 38
    notes = " ".join(map(str, found.notes))
    assert "2 of 44 images are left out (without a label), such as train-0.tar/00011" in notes
    assert "1 of 42 images is left out as unreadable, such as train-0.tar/00007" in notes
    batches = batches_of(found, options(tmp_path / "set"), 19, 0, CPU)
    seen = Counter(i for k in range(2) for i in numbers_of(batches[k]))
    batches.close()
    assert set(seen) == set(range(40)) - {7, 11, 13} and max(seen.values()) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "train-0.tar/00007 is left out: it is not an image in a format that can be read" in said
    assert "1 of 38 images is scaled down to 8x8, such as train-0.tar/00009 (20x20)" in said


def test_a_colour_image_in_a_grey_stream_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "TRAIN", 5)
    files = {f"{i}.png": picture(i, mode="L") for i in range(100)} | {"50.png": picture(50)}
    write_tar(tmp_path / "set" / "train-0.tar", files)
    write_tar(tmp_path / "set" / "test-0.tar", {f"{i}.png": picture(i, mode="L") for i in range(3)})
    grey = options(tmp_path / "set", channels=1)
    warnings: list[str] = []
    monkeypatch.setattr("zeuxis.data.streaming.warn", warnings.append)
    batches = batches_of(load(grey, progress=False), grey, 100, 0, CPU)
    assert batches[0].labels is None
    batches.close()
    assert "train-0.tar/50 is left out: it is in colour; data.convert=true would turn it grey" in warnings[0]


def test_what_is_not_there_is_a_sentence(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    for path in (tmp_path / "other").iterdir():
        write_tar(path, {"readme.txt": b"nothing"})
    with pytest.raises(UserError, match=r"test-0.tar and all other shards contain no images"):
        load(options(tmp_path / "other"), progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no shards: files that end in .tar or .parquet"):
        load(DataOptions(source="shards", path=str(tmp_path / "empty")), progress=False)
    with pytest.raises(UserError, match="needs a path"):
        load(DataOptions(source="shards"), progress=False)
    with pytest.raises(UserError, match=r"'ftp://.*' is no store that can be read; an address is SCHEME://BUCKET/PATH"):
        load(options("ftp://host/shards"), progress=False)
    with pytest.raises(UserError, match=r"'s3:/bucket/x' has one slash too few; an address is s3://bucket/x"):
        choose("s3:/bucket/x")
    with pytest.raises(UserError, match="would be written into files"):
        load(options("s3://key:secret@bucket/shards"), progress=False)
    assert choose(str(folder / "train-1.tar"))["data.source"] == "shards"


def test_a_read_that_fails_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that breaks after so many bytes, twice, and one that never works."""
    found = load(options(folder), progress=False)
    monkeypatch.setattr(records, "PAUSE", 0.001)
    opened = shards.Storage.open
    broken: list[int] = []

    class Breaks(io.BufferedReader):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 15_000:
                broken.append(self.tell())
                raise ConnectionResetError(104, "Connection reset by peer")
            return super().read(size)

    def fragile(most: int) -> Callable[[shards.Storage, str], AbstractContextManager[BinaryIO]]:
        def open_(self: shards.Storage, name: str) -> AbstractContextManager[BinaryIO]:
            if len(broken) >= most:
                return opened(self, name)
            return Breaks(io.FileIO(folder / name))

        return open_

    monkeypatch.setattr(shards.Storage, "open", fragile(2))
    batches = batches_of(found, options(folder), 100, 0, CPU)
    assert sorted(numbers_of(batches[0])) == list(range(100)) and len(broken) == 2
    batches.close()
    monkeypatch.setattr(shards.Storage, "open", fragile(10**9))
    batches = batches_of(found, options(folder), 100, 0, CPU)
    with pytest.raises(
        UserError, match=r"The shard train-\d.tar cannot be read, after 5 attempts: Connection reset by"
    ):
        batches[0]
    batches.close()


# -- a store ------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3: Any) -> Callable[[Path], str]:
    """A bucket; copies a folder there and returns its address."""
    fs = pytest.importorskip("pyarrow.fs", reason="zeuxis[shards] is not installed")
    s3.create_dir("pictures")

    def copied(folder: Path) -> str:
        fs.copy_files(str(folder), f"pictures/{folder.name}", destination_filesystem=s3)
        return f"s3://pictures/{folder.name}/"

    return copied


def test_a_run_trains_from_a_store(bucket: Callable[[Path], str], tmp_path: Path) -> None:
    pack(DataOptions(source="digits"), tmp_path / "digits", size_of("1500KB"))
    address = bucket(tmp_path / "digits")
    run = zeuxis.train("digits-vae", address, steps=4, runs=tmp_path / "runs", progress=False)
    assert f'path = "{address}"' in (run.path / "recipe.toml").read_text("utf-8")
    here = SOURCES["shards"].open(options(tmp_path / "digits"))
    assert run.environment["data"]["train_images"] == here.stream.total  # type: ignore[union-attr]
    first = batches_of(run.dataset, run.recipe.data, 64, 0, CPU)
    chosen = run.recipe.data.model_copy(update={"path": str(tmp_path / "digits")})
    second = batches_of(load(chosen, progress=False), chosen, 64, 0, CPU)
    torch.testing.assert_close(first[1].images, second[1].images, rtol=0, atol=0)
    for batches in (first, second):
        batches.close()
    cut = tmp_path / "digits" / "train-000000.tar"
    cut.write_bytes(cut.read_bytes()[:100_000])
    bucket(tmp_path / "digits")
    with pytest.raises(UserError, match=r"train-000000.tar in 's3://.*' has 100,000 bytes, and index.json says"):
        resume(run.path, {"training.steps": 8}, visible=False)
    with pytest.raises(UserError, match=r"There is nothing at 's3://pictures/nothing'"):
        load(options("s3://pictures/nothing"), progress=False)
