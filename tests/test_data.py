"""Where images come from: sources, the cache, the split, batches, downloads; and the real sets, where they are."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.server
import os
import socket
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import Field
from sklearn.datasets import load_digits

from zeuxis.data import SOURCES, Batches, Collection, Dataset, choose, digits, load, source, to_unit
from zeuxis.data import cache as cache_module
from zeuxis.data.arrays import arrays, store
from zeuxis.data.batches import make_batch
from zeuxis.data.dataset import _split
from zeuxis.data.download import fetch
from zeuxis.data.idx import read_idx
from zeuxis.data.registry import data_dir
from zeuxis.errors import UserError
from zeuxis.recipe import DataOptions, Section, Size

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZEUXIS_DATA", str(tmp_path / "data"))


def options(**given: object) -> DataOptions:
    return DataOptions(**({"size": 8, "channels": 3, "convert": True} | given))


def picture(path: Path, colour: int, size: tuple[int, int] = (10, 10), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = np.full((size[1], size[0], 3), (colour % 256, colour // 256, 77), np.uint8)
    Image.fromarray(shade).convert(mode).save(path)


def kinds(root: Path, count: int = 6) -> Path:
    for k, kind in enumerate(("rose", "tulip", "daisy")):
        for i in range(count):
            picture(root / kind / f"{i}.png", 40 * k + 3 * i, (10 + i, 12), "L" if i == 0 else "RGB")
    return root


# -- sources ------------------------------------------------------------------------------------------


def test_digits_are_those_that_scikit_learn_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = load_digits(return_X_y=True)
    for _ in range(2):
        table = digits._table()
        assert np.array_equal(table[:, :-1], images) and np.array_equal(table[:, -1], labels)
        monkeypatch.setattr(digits, "find_spec", lambda name: None)  # in a package of another layout


def test_digits_need_nothing() -> None:
    dataset = load(options(source="digits", channels=1, size=12), progress=False)
    assert dataset.images.shape == (1797, 12, 12, 1)
    assert len(dataset.train) + len(dataset.test) == 1797
    for part in (dataset.train, dataset.test):
        shares = np.bincount(dataset.labels[part], minlength=10) / len(part)
        assert np.abs(shares - np.bincount(dataset.labels) / 1797).max() < 0.004, "stratified"
    original = SOURCES["digits"].open(options())
    small = load(options(source="digits", channels=1, size=8), progress=False)
    assert np.array_equal(small.images[5, :, :, 0], np.asarray(original.read(5, 8)))


@pytest.fixture(scope="module")
def sprites(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEUXIS_CACHE", str(tmp_path_factory.mktemp("sprites")))
        return load(options(source="sprites", channels=3, size=32), progress=False)


def test_sprites_are_what_their_factors_say(sprites: Dataset) -> None:
    dataset = sprites
    assert len(dataset.images) == 3 * 4 * 6 * 7 * 7 * 5 == len(np.unique(dataset.factors, axis=0))
    assert dataset.factor_names == ("shape", "scale", "angle", "across", "down", "colour")
    assert len({image.tobytes() for image in dataset.images}) == len(dataset.images), "no two alike"
    ink = dataset.images[..., :3].max(axis=-1) > 128
    place = np.argwhere(ink)
    middle = np.stack([np.bincount(place[:, 0], place[:, axis]) / ink.sum(axis=(1, 2)) for axis in (1, 2)], axis=1)
    factors = {name: dataset.factors[:, i] for i, name in enumerate(dataset.factor_names)}
    assert np.corrcoef(middle[:, 0], factors["down"])[0, 1] > 0.98
    assert np.corrcoef(middle[:, 1], factors["across"])[0, 1] > 0.98
    assert (np.corrcoef(ink.sum(axis=(1, 2)), factors["scale"])[0, 1]) > 0.7
    assert np.array_equal(dataset.labels, factors["shape"]) and dataset.classes == ("square", "ellipse", "heart")


@pytest.mark.parametrize("below", ["flowers", "./flowers"])
def test_a_folder_and_its_zip_are_the_same(below: str, tmp_path: Path) -> None:
    folder = kinds(tmp_path / "flowers")
    (folder / ".hidden.png").write_text("x")
    with zipfile.ZipFile(tmp_path / "wrapped.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.writestr(f"{below}/{file.relative_to(folder)}", file.read_bytes())
        archive.writestr("__MACOSX/flowers/rose/._0.png", "x")
    from_folder, from_zip = (
        load(options(source="folder", path=str(path)), progress=False) for path in (folder, tmp_path / "wrapped.zip")
    )
    assert from_folder.classes == from_zip.classes == ("daisy", "rose", "tulip")
    assert np.array_equal(from_folder.labels, from_zip.labels)
    assert np.array_equal(from_folder.images, from_zip.images)
    assert from_folder.fingerprint == from_zip.fingerprint


def test_flat_folders_have_no_labels(tmp_path: Path) -> None:
    for i in range(5):
        picture(tmp_path / "flat" / f"{i}.jpg", 20 * i)
    dataset = load(options(source="folder", path=str(tmp_path / "flat")), progress=False)
    assert dataset.labels is None
    assert (len(dataset.train), len(dataset.test)) == (4, 1)


def test_a_published_split_is_kept(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("test", 2)):
        for kind in ("a", "b"):
            for i in range(count):
                picture(tmp_path / "set" / part / kind / f"{i}.png", 9 * i + (100 if kind == "b" else 0) + 50 * count)
    dataset = load(options(source="folder", path=str(tmp_path / "set")), progress=False)
    assert (len(dataset.train), len(dataset.test)) == (10, 4)
    assert all(dataset.names[i].startswith("test/") for i in dataset.test)


def test_chosen_classes_are_numbered_as_asked(tmp_path: Path) -> None:
    folder = kinds(tmp_path / "flowers")
    dataset = load(options(source="folder", path=str(folder), classes=["tulip", "daisy"]), progress=False)
    assert dataset.classes == ("tulip", "daisy")
    used = np.concatenate([dataset.train, dataset.test])
    assert len(used) == 12
    for i in used:
        assert dataset.names[i].split("/")[0] == dataset.classes[dataset.labels[i]]


def test_the_middle_square_is_kept(tmp_path: Path) -> None:
    for i in range(3):
        wide = np.zeros((10, 30, 3), np.uint8)
        wide[:, 10:20] = 250 - i
        (tmp_path / "w").mkdir(exist_ok=True)
        Image.fromarray(wide).save(tmp_path / "w" / f"{i}.png")
    dataset = load(options(source="folder", path=str(tmp_path / "w"), size=10), progress=False)
    assert dataset.images.min() >= 248


def test_choose(tmp_path: Path) -> None:
    assert choose("mnist") == {"data.source": "mnist", "data.path": ""}
    (tmp_path / "data" / "mine").mkdir(parents=True)
    assert choose("mine") == {"data.source": "folder", "data.path": str(tmp_path / "data" / "mine")}
    assert choose("shards") == {"data.source": "shards", "data.path": ""}
    (tmp_path / "data" / "shards").mkdir()
    assert choose("shards")["data.path"] == str(tmp_path / "data" / "shards"), "the source needs a path, and here it is"
    with pytest.raises(UserError, match="neither a data source nor a folder"):
        choose("yours")
    assert set(SOURCES) >= {"celeba", "digits", "fashion-mnist", "folder", "mnist"}


def idx(path: Path, array: np.ndarray, *, zipped: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_survives_its_file(tmp_path: Path, zipped: bool) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    idx(tmp_path / "x.gz", array, zipped=zipped)
    assert np.array_equal(read_idx(tmp_path / "x.gz", 3), array)


def test_mnist_is_found_in_the_data_directory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 20)):
        idx(tmp_path / "data" / "mnist-small" / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28)))
        idx(tmp_path / "data" / "mnist-small" / f"{part}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    dataset = load(options(source="mnist", size=28, channels=1), progress=False)
    assert (len(dataset.train), len(dataset.test)) == (30, 20)


def faces(root: Path, size: tuple[int, int]) -> Path:
    """Faces whose border, outside the middle 148 of 178 pixels, is white, and whose inside is dark."""
    for i in range(10):
        image = np.full((size[1], size[0], 3), 255, np.uint8)
        side = round(min(size) * 148 / 178) if size[0] != size[1] else size[0]
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        image[top : top + side, left : left + side] = 10 + i
        (root / "img_align_celeba").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "img_align_celeba" / f"{i:06}.png")
    rows = "".join(f"{i:06}.png  {1 if i % 3 == 0 else -1} -1\n" for i in range(10))
    (root / "list_attr_celeba.txt").write_text(f"10\nSmiling Male\n{rows}")
    (root / "list_eval_partition.txt").write_text("".join(f"{i:06}.png {2 * (i > 6)}\n" for i in range(10)))
    return root


@pytest.mark.parametrize("size", [(178, 218), (64, 64)])
def test_celeba_in_its_published_layout(tmp_path: Path, size: tuple[int, int]) -> None:
    faces(tmp_path / "data" / "celeba", size)
    dataset = load(options(source="celeba", size=16, attribute="Smiling"), progress=False)
    assert dataset.images.max() < 30, "the border is gone, and a square image is kept whole"
    assert dataset.classes == ("not Smiling", "Smiling")
    assert dataset.attribute_names == ("Smiling", "Male")
    assert dataset.labels.tolist() == [1, 0, 0] * 3 + [1]
    assert (dataset.train.tolist(), dataset.test.tolist()) == (list(range(7)), [7, 8, 9])


# -- the split ----------------------------------------------------------------------------------------


@given(
    digests=st.lists(st.integers(0, 12), min_size=2, max_size=60),
    classes=st.integers(1, 3),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 5),
)
@settings(max_examples=150, deadline=None)
def test_copies_stay_on_one_side_of_the_split(digests: list[int], classes: int, fraction: float, seed: int) -> None:
    prints = np.array(digests, np.uint64)
    labels = (prints % classes).astype(np.int64)
    chosen = options(test_fraction=fraction, split_seed=seed)
    test = _split(prints, labels, chosen)
    assert not set(prints[test]) & set(prints[~test])
    for label in range(classes):
        if len(set(prints[labels == label])) > 1:
            assert test[labels == label].any()
            assert not test[labels == label].all()
    assert np.array_equal(test, _split(prints, labels, chosen))


def test_copies_in_a_folder_stay_together(tmp_path: Path) -> None:
    for i in range(40):
        picture(tmp_path / "f" / f"{i:02}.png", 5 * (i // 2))
    dataset = load(options(source="folder", path=str(tmp_path / "f"), test_fraction=0.3), progress=False)
    sides = [{dataset.images[i].tobytes() for i in part} for part in (dataset.train, dataset.test)]
    assert not sides[0] & sides[1]
    assert len(dataset.test) == 12


# -- the cache ----------------------------------------------------------------------------------------


def caches(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "images").glob("*"))


def test_images_are_decoded_once_for_each_content_and_setting(tmp_path: Path) -> None:
    folder = kinds(tmp_path / "flowers")
    chosen = options(source="folder", path=str(folder))
    load(chosen, progress=False)
    (cache,) = caches(tmp_path)
    stamp = (cache / "images.bin").stat().st_mtime_ns
    again = load(chosen.model_copy(update={"classes": ["rose"], "split_seed": 4}), progress=False)
    assert again.classes == ("rose",)
    assert [(c / "images.bin").stat().st_mtime_ns for c in caches(tmp_path)] == [stamp], "a choice needs no decoding"
    load(chosen.model_copy(update={"size": Size(9, 9)}), progress=False)
    load(chosen.model_copy(update={"channels": 1}), progress=False)
    assert len(caches(tmp_path)) == 3
    picture(folder / "rose" / "0.png", 201, (40, 40))
    changed = load(chosen, progress=False)
    assert len(caches(tmp_path)) == 4
    assert changed.images[changed.names.index("rose/0.png"), 0, 0, 0] == 201


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = options(source="folder", path=str(kinds(tmp_path / "flowers")))
    with monkeypatch.context() as patch:

        def interrupted(*arguments: object) -> Image.Image:
            raise KeyboardInterrupt

        patch.setattr(cache_module, "_fitted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(chosen, progress=False)
    assert not caches(tmp_path)
    assert len(load(chosen, progress=False).images) == 18


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = options(source="folder", path=str(kinds(tmp_path / "flowers")))

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_module, "_decode_all", full)
    with pytest.raises(UserError, match="the disk is full"):
        load(chosen, progress=False)
    assert not caches(tmp_path)


# -- batches ------------------------------------------------------------------------------------------


def test_batches_are_a_function_of_seed_and_number() -> None:
    chosen = options(source="digits", channels=1, size=8)
    dataset = load(chosen, progress=False)
    a, b, other = (Batches(dataset, chosen, 100, seed, CPU) for seed in (1, 1, 2))
    k = 3 * a.per_epoch + 2
    a[0]
    assert torch.equal(a[k].images, b[k].images)
    assert not torch.equal(a[k].images, other[k].images)
    seen = torch.cat([a[i].images for i in range(a.per_epoch)]).flatten(1)
    assert a.per_epoch == len(dataset.train) // 100
    rows = {row.numpy().tobytes() for row in seen}
    assert len(rows) > 0.99 * len(seen), "an epoch repeats no image"


@pytest.mark.parametrize("flip", [True, False])
def test_images_held_by_the_device_make_the_same_batches(flip: bool, sprites: Dataset) -> None:
    chosen = options(source="sprites", channels=3, size=32, flip=flip)
    gathered, held = (Batches(sprites, chosen, 64, 3, CPU, resident=resident) for resident in (False, True))
    for k in (0, 1, gathered.per_epoch + 1):
        assert torch.equal(gathered[k].images, held[k].images)
        assert held[k].images.is_contiguous(memory_format=torch.channels_last)
        assert (gathered[k].labels is None) == (held[k].labels is None)
        if gathered[k].labels is not None:
            assert torch.equal(gathered[k].labels, held[k].labels)


def test_half_of_the_images_are_mirrored(tmp_path: Path) -> None:
    for i in range(64):
        ramp = np.tile(np.arange(8, dtype=np.uint8)[None, :, None] * 8 + i, (8, 1, 3))
        (tmp_path / "r").mkdir(exist_ok=True)
        Image.fromarray(ramp).save(tmp_path / "r" / f"{i}.png")
    chosen = options(source="folder", path=str(tmp_path / "r"), flip=True)
    dataset = load(chosen, progress=False)
    images = Batches(dataset, chosen, 50, 0, CPU)[0].images
    mirrored = images[:, 0, 0, 0] > images[:, 0, 0, -1]
    assert 10 < mirrored.sum() < 40
    plain = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    originals = {row.tobytes() for row in dataset.images}
    assert {row.mul(255).round().byte().permute(1, 2, 0).numpy().tobytes() for row in plain} <= originals


@pytest.mark.parametrize("pixel_range", ["0..1", "-1..1"])
def test_pixel_ranges(pixel_range: str) -> None:
    chosen = options(source="digits", channels=1, size=8, range=pixel_range)
    dataset = load(chosen, progress=False)
    batch = make_batch(dataset, chosen, dataset.train[:20], CPU)
    assert (batch.images.min(), batch.images.max()) == (float(pixel_range.split("..", maxsplit=1)[0]), 1.0)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    back = to_unit(batch.images, pixel_range).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(back, dataset.images[dataset.train[:20]])
    assert batch.labels.tolist() == dataset.labels[dataset.train[:20]].tolist()


def test_down_sampling_in_the_batch(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    chosen = options(source="folder", path=str(folder), size=8, loading="batch", source_size=32)
    dataset = load(chosen, progress=False)
    assert dataset.images.shape[1:] == (32, 32, 3)
    images = make_batch(dataset, chosen, np.arange(4), CPU).images
    pixels = torch.from_numpy(np.array(dataset.images)).permute(0, 3, 1, 2).float() / 255
    assert images.shape == (4, 3, 8, 8)
    torch.testing.assert_close(images, F.interpolate(pixels, (8, 8), mode="bilinear", antialias=True))
    assert images.std() < 0.5 * pixels.std(), "noise is averaged, not picked"
    with pytest.raises(ValueError, match="smaller than size"):
        options(size=64, loading="batch", source_size=32)


# -- downloads ----------------------------------------------------------------------------------------

CONTENT = np.random.default_rng(0).bytes(300_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; cuts the first transfer in half if told to."""

    asked: list[str | None] = []  # noqa: RUF012 - shared by all requests on purpose
    sent = 0
    cut = False

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = CONTENT[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if type(self).cut:
            type(self).cut = False
            body = body[: len(body) // 2]
        type(self).sent += len(body)
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked, Handler.sent, Handler.cut = [], 0, False
    try:
        running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        socket.create_connection(running.server_address).close()
    except OSError as error:
        pytest.skip(f"nothing can be served on 127.0.0.1 here ({error})")
    with running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/file.gz"
        running.shutdown()


GOOD = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def test_a_download_is_checked_and_made_once(tmp_path: Path, server: str) -> None:
    target = tmp_path / "data" / "file.gz"
    fetch(server, GOOD, target)
    fetch(server, f"md5:{hashlib.md5(CONTENT).hexdigest()}", target)
    assert target.read_bytes() == CONTENT
    assert len(Handler.asked) == 1


def test_a_wrong_checksum_is_refused(tmp_path: Path, server: str) -> None:
    with pytest.raises(UserError, match="does not have the published checksum"):
        fetch(server, f"sha256:{'0' * 64}", tmp_path / "data" / "file.gz")
    assert not (tmp_path / "data" / "file.gz").exists()


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path, server: str) -> None:
    Handler.cut = True
    with pytest.raises(UserError, match="continues the download"):
        fetch(server, GOOD, tmp_path / "data" / "file.gz")
    part = (tmp_path / "data" / "file.gz.part").stat().st_size
    assert 0 < part <= len(CONTENT) // 2
    fetch(server, GOOD, tmp_path / "data" / "file.gz")
    assert (tmp_path / "data" / "file.gz").read_bytes() == CONTENT
    assert Handler.asked == [None, f"bytes={part}-"]
    assert not (tmp_path / "data" / "file.gz.part").exists()


def test_an_address_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch("http://127.0.0.1:9/file.gz", GOOD, tmp_path / "file.gz")


# -- the real sets ------------------------------------------------------------------------------------


@pytest.mark.data("mnist-10k")
def test_real_mnist() -> None:
    published = hashlib.md5((data_dir() / "mnist-10k" / "t10k-images-idx3-ubyte.gz").read_bytes()).hexdigest()
    assert published == "9fb629c4189551a2d022fa330f9573f3", "the checksum in the loader is the published file's"
    dataset = load(options(source="mnist", size=28, channels=1), progress=False)
    assert len(dataset.test) == 10_000
    assert dataset.labels[dataset.test[:10]].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


@pytest.mark.data("fashion-mnist-900")
def test_real_fashion() -> None:
    dataset = load(options(source="fashion-mnist", size=28, channels=1), progress=False)
    assert np.bincount(dataset.labels[dataset.train]).tolist() == [80] * 10
    assert len(dataset.test) == 100


@pytest.mark.data("flowers.zip")
def test_real_flowers() -> None:
    collection = SOURCES["folder"].open(options(source="folder", path="flowers.zip"))
    counts = dict(zip(collection.classes, np.bincount(collection.labels).tolist(), strict=True))
    assert counts == {"daisy": 764, "dandelion": 1052, "rose": 784, "sunflower": 733, "tulip": 984}
    assert (collection.channels, collection.sizes) == (3, "128x128")
    assert collection.read(0, 32).mode == "RGB"


@pytest.mark.data("celeba")
@pytest.mark.parametrize(("path", "count", "size"), [("", 22_621, 64), ("celeba/originals-200.zip", 200, 148)])
def test_real_celeba(path: str, count: int, size: int) -> None:
    collection = SOURCES["celeba"].open(options(source="celeba", path=path))
    assert (len(collection.names), len(collection.attribute_names)) == (count, 40)
    assert collection.attributes.shape == (count, 40)
    assert {collection.read(i, 64).size for i in range(20)} == {(size, size)}
    if not path:
        assert np.bincount(collection.split).tolist() == [20_000, 2_621]


class GreyOptions(Section):
    grey: int = Field(7, ge=0, le=255, description="of every image")


def test_a_source_has_options_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES._entries))

    @source("greys", "one grey", mirrors=True, options=GreyOptions)
    def greys(options: DataOptions, own: GreyOptions) -> Collection:
        return Collection(
            fingerprint=f"greys {own.grey}", names=["a", "b", "c"], channels=1, sizes="4x4",
            read=lambda i, size: Image.new("L", (4, 4), own.grey),
        )  # fmt: skip

    def pixels(**given: object) -> np.ndarray:
        return load(DataOptions(source="greys", size=4, options=given), progress=False).images

    assert (pixels() == 7).all() and (pixels(grey=200) == 200).all()
    with pytest.raises(UserError, match=r"no key 'data.options.gray'. Did you mean 'grey'"):
        pixels(gray=3)
    with pytest.raises(UserError, match=r"data.options.grey should be less than or equal to 255"):
        pixels(grey=300)
    with pytest.raises(UserError, match="The data source 'digits' has no options"):
        load(DataOptions(source="digits", options={"split": "train"}), progress=False)


def test_a_class_name_in_two_forms_of_unicode_is_one_class() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    collection = arrays(store((images, ["\u00e9", "e\u0301", "b", "b"] * 10)))
    assert sorted(collection.classes) == ["b", "\u00e9"] and sorted(np.bincount(collection.labels)) == [20, 20]
