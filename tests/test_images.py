"""Other people's images: odd names, links, archives, deep values, labels in files, arrays, damage; and what is said."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import unicodedata
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import ExifTags, Image, features

import zeuxis
from zeuxis import cli
from zeuxis.data import Dataset, choose, choose_classes, load
from zeuxis.data import cache as cache_module
from zeuxis.data import files as files_module
from zeuxis.data.arrays import as_array
from zeuxis.data.files import Archive, decode
from zeuxis.data.notes import Note, in_sentences
from zeuxis.data.registry import SOURCES, Collection
from zeuxis.errors import UserError
from zeuxis.figures.datasheet import datasheet
from zeuxis.recipe import DataOptions


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZEUXIS_DATA", str(tmp_path / "data"))


def content(seed: int, *, size: tuple[int, int] = (8, 8), grey: bool = False, kind: str = "PNG") -> bytes:
    """An image of noise as a file."""
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    return saved(Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)), kind)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def flat(root: Path, count: int = 20) -> Path:
    for i in range(count):
        write(root / f"{i}.png", content(i))
    return root


def read(path: Path, **given: object) -> Dataset:
    options = {"source": "folder", "path": str(path), "size": 8, "channels": 3, "convert": True}
    return load(DataOptions(**(options | given)), progress=False)


def counts(dataset: Dataset) -> dict[str, int]:
    used = np.concatenate([dataset.train, dataset.test])
    return {name: int((dataset.labels[used] == i).sum()) for i, name in enumerate(dataset.classes)}


def said(dataset: Dataset) -> str:
    return " ".join(map(str, dataset.notes))


def sets(entries: list[str], root: Path, separator: str = "/") -> list[Path]:
    """The same files as a folder and as a zip."""
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for i, name in enumerate(entries):
            data = content(i)
            write(root / "set" / name, data)
            entry = zipfile.ZipInfo("x")
            entry.filename = name.replace("/", separator)
            archive.writestr(entry, data)
    return [root / "set", root / "set.zip"]


# -- names, links, layouts ----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(12):
        folder = os.fsencode(tmp_path / "set") + (b"/caf\xe9" if i % 2 else b"/tea")
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - the name is bytes
        with open(folder + b"/\xff%d.png" % i, "wb") as file:  # noqa: PTH123 - the name is bytes
            file.write(content(i) if i else b"bad")
    dataset = read(tmp_path / "set")
    assert counts(dataset) == {"caf\\xe9": 6, "tea": 5}
    assert "tea/\\xff0.png" in said(dataset)
    run = zeuxis.train("digits-vae", tmp_path / "set", steps=1, settings={"data.convert": True}, runs=tmp_path / "runs")
    assert "\\xff0.png" in (run.path / "left-out.txt").read_text()
    with pytest.raises(UserError, match="not UTF-8"):
        choose(os.fsdecode(folder))


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    for name in "ab":
        flat(tmp_path / "store" / name)
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "store" / "b" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "a" / "nowhere.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "set" / "a" / "itself.png").symlink_to(tmp_path / "set" / "a" / "itself.png")
    (tmp_path / "set" / "a" / "system").symlink_to("/proc/self")
    dataset = read(tmp_path / "set")
    assert counts(dataset) == {"a": 20, "b": 20}
    assert "2 files are left out (a link that leads nowhere), such as a/" in said(dataset)
    assert "1 file is left out (a link back to a folder above it), such as b/up." in said(dataset)
    assert dataset.left_out["a/nowhere.png"] == "a link that leads nowhere"
    with pytest.raises(UserError, match="belongs to the system"):
        read(Path("/proc"))


@pytest.mark.parametrize("around", ["", "a/", "a/b/", "flowers/jpg/2020/"])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_any_number_of_folders_around_the_classes(tmp_path: Path, around: str, separator: str) -> None:
    names = [f"{around}{kind}/{i}.png" for kind in ("rose", "tulip") for i in range(8)]
    for path in sets(names, tmp_path, separator):
        write(tmp_path / "set" / around / "readme.txt", "words")
        assert counts(read(path)) == {"rose": 8, "tulip": 8}


@pytest.mark.parametrize("around", ["a/b/{part}", "{part}/a", "a/{part}/b/c"])
def test_a_split_among_folders_around_the_classes(tmp_path: Path, around: str) -> None:
    names = [
        f"{around.format(part=part)}/{kind}/{i}.png"
        for part, count in (("Train", 6), ("test", 3)) for kind in "xy" for i in range(count)
    ]  # fmt: skip
    for path in sets(names, tmp_path):
        dataset = read(path)
        assert (dataset.classes, len(dataset.train), len(dataset.test)) == (("x", "y"), 12, 6)


def test_a_folder_of_other_files_is_no_class(tmp_path: Path) -> None:
    (path, _) = sets([f"jpg/{kind}/{i}.png" for kind in "xy" for i in range(4)], tmp_path)
    write(path / "annotations" / "a.xml", "<a/>")
    dataset = read(path)
    assert counts(dataset) == {"x": 4, "y": 4}
    assert "1 file is left out (not an image in a format that can be read), such as annotations/a.xml." in said(dataset)


def test_accents_are_compared_composed(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "café")
    for kind in (apart, "tea, green", "tea", "green"):
        flat(tmp_path / "set" / kind, 4)
    options = DataOptions(source="folder", path=str(tmp_path / "set"), size=8, channels=3, classes=[apart])
    assert options.classes == ["café"]
    assert counts(load(options, progress=False)) == {"café": 4}
    for text, names in {
        "tea, green": ["tea, green"], apart: [apart], f"tea, green,{apart} , tea": ["tea, green", "café", "tea"],
        "tea,green": ["tea", "green"], "x, y": ["x", "y"],
    }.items():  # fmt: skip
        assert choose_classes(text, options) == names


def test_a_label_may_be_typed_either_way(tmp_path: Path) -> None:
    for kind in ("café", "tea"):
        flat(tmp_path / "set" / kind, 8)
    settings = {"data.convert": True, "training.batch_size": 4}
    run = zeuxis.train("digits-cgan", tmp_path / "set", steps=1, settings=settings, runs=tmp_path, progress=False)
    assert len(run.sample(2, label=unicodedata.normalize("NFD", "café"))) == 2


# -- what a stranger's file may do --------------------------------------------------------------------


def test_only_known_formats_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "gs"
    write(program, f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    flat(tmp_path / "set")
    write(
        tmp_path / "set" / "x.png", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n{} loop\n%%EOF\n"
    )
    assert "x.png (it is not an image in a format that can be read)" in said(read(tmp_path / "set"))
    assert not (tmp_path / "started").exists()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_what_unpacks_to_too_much_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_BYTES", 100_000)
    zeros = bytes(200_000)
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(3_000_000)))
    large = {
        "bytes.png": zeros,
        "pixels.png": png(60_000, 60_000, 1, 0, b""),
        "text.png": png(8, 8, 8, 0, bytes(72), text),
    }
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(12):
            archive.writestr(f"{i}.png", content(i))
            write(tmp_path / "set" / f"{i}.png", content(i))
        for name, data in large.items():
            archive.writestr(name, data)
            write(tmp_path / "set" / name, data)
        archive.writestr("packed.png", content(99), zipfile.ZIP_LZMA)
    for path in (tmp_path / "set", tmp_path / "set.zip"):
        dataset = read(path)
        assert len(dataset.images) == 12
        assert set(dataset.left_out) >= set(large)
        assert "bytes" in dataset.left_out["bytes.png"] and "allowed" in dataset.left_out["bytes.png"]
    assert "other than deflate" in dataset.left_out["packed.png"]


def test_a_zip_that_declares_less_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(12):
            archive.writestr(f"{i}.png", content(i))
        archive.writestr("x.png", bytes(5_000_000))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 5_000_000), struct.pack("<I", 5_000)))
    dataset = read(path)
    assert len(dataset.images) == 12 and "x.png" in dataset.left_out


def test_damaged_lists_of_entries_are_a_sentence(tmp_path: Path) -> None:
    (_, path) = sets([f"{i}.png" for i in range(12)], tmp_path)
    whole = path.read_bytes()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = bytearray(whole)
        for at in rng.integers(0, len(damaged), 40):
            damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged if seed % 3 else damaged[: rng.integers(len(damaged))])
        try:
            read(path)
        except UserError as error:
            assert str(error).endswith(".")


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), i % 200, np.uint8)) for i in range(400)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        moving = saved(
            frames[7], kind, save_all=True, append_images=frames[8:], **({"lossless": True} if kind == "WEBP" else {})
        )
        write(tmp_path / "set" / f"x.{kind.lower()}", moving)
        assert np.asarray(decode(moving, 8)).max() == 7
    flat(tmp_path / "set")
    assert "4 of 24 images are animated or multi-page: the first frame or page is used, such as x.gif." in said(
        read(tmp_path / "set")
    )


# -- values of more than 8 bits -----------------------------------------------------------------------

RAMP = np.tile(np.linspace(0, 1, 8), (8, 1))


@pytest.mark.parametrize(
    "pixels",
    [
        RAMP.astype(np.float32), (RAMP * 2 - 1).astype(np.float32), (RAMP * 255).astype(np.float32),
        (RAMP * 4095).astype(np.uint16), (RAMP * 65535).astype(np.uint16), (RAMP * 1023).astype(np.int32),
        (RAMP * (2**32 - 1)).astype(np.uint32), (RAMP * 3.7 - 0.2).astype(np.float32), RAMP.astype(np.uint16),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_deep_values_are_scaled(pixels: np.ndarray, compression: str | None) -> None:
    if pixels.dtype == np.uint32:
        # Pillow writes integers with a sign; tag 339 says so.
        data = saved(Image.fromarray(pixels.view(np.int32)), "TIFF", compression=compression)
        data = data.replace(struct.pack("<HHIH", 339, 3, 1, 2), struct.pack("<HHIH", 339, 3, 1, 1))
    else:
        data = saved(Image.fromarray(pixels), "TIFF", compression=compression)
    shown = np.asarray(decode(data, 8)).astype(float)
    assert (shown.min(), shown.max()) == (0, 255)
    if len(np.unique(pixels)) > 2:
        assert np.abs(shown / 255 - RAMP).max() < 0.01


def test_all_deep_images_are_scaled_alike(tmp_path: Path) -> None:
    for i in range(8):
        write(tmp_path / "set" / f"{i}.tif", saved(Image.fromarray((RAMP * 500 * (i + 1)).astype(np.uint16)), "TIFF"))
        write(tmp_path / "set" / f"{i}.png", content(i))
    dataset = read(tmp_path / "set")
    darkest = dataset.images[dataset.names.index("0.tif")]
    assert darkest.max() == round(500 / 4095 * 255)
    assert "8 of 16 images are deeper than 8 bits: values from 0 to 4095 are scaled to 0 to 255" in said(dataset)


def test_values_that_cannot_be_shown_are_told(tmp_path: Path) -> None:
    flat(tmp_path / "set")
    write(
        tmp_path / "set" / "nan.tif",
        saved(Image.fromarray(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32)), "TIFF"),
    )
    row = b"\0" + struct.pack(">24H", *range(3000, 3024))
    write(tmp_path / "set" / "deep.png", png(8, 8, 16, 2, row * 8))
    write(tmp_path / "set" / "bright.png", png(8, 8, 16, 2, (b"\0" + struct.pack(">24H", *range(60000, 60024))) * 8))
    dataset = read(tmp_path / "set")
    assert "infinite or not numbers" in dataset.left_out["nan.tif"]
    assert "only the upper 8 can be read" in dataset.left_out["deep.png"]
    assert "1 of 23 images is 16 bits deep per channel: the upper 8 are used, such as bright.png." in said(dataset)


# -- what is said -------------------------------------------------------------------------------------


def test_a_few_colour_images_among_many_grey_ones(tmp_path: Path) -> None:
    """More images than the survey looks at, none of it in colour: what decoding finds counts."""
    for i in range(200):
        write(tmp_path / "set" / f"{i:03}.png", content(i, grey=True))
    sampled = np.random.default_rng(0).permutation(200)[:48]
    odd = next(i for i in range(200) if i not in sampled)
    write(tmp_path / "set" / f"{odd:03}.png", content(odd, size=(9, 8)))
    assert Archive(tmp_path / "set").survey().channels == 1
    for channels in (1, 3):
        if channels == 1:
            with pytest.raises(UserError, match="has colour images of 8x8 to 9x8 pixels"):
                read(tmp_path / "set", channels=1, convert=False)
        dataset = read(tmp_path / "set", channels=channels, convert=channels == 1)
        assert dataset.source == {"channels": 3, "sizes": "8x8 to 9x8"}
        changed = {
            1: f"1 of 200 images is in colour, and turned grey, such as {odd:03}.png.",
            3: "199 of 200 images are grey",
        }
        assert changed[channels] in said(dataset)
        assert f"1 of 200 images is not square: the middle square is used, such as {odd:03}.png (9x8)." in said(dataset)


def test_an_alternation_is_a_mixture(tmp_path: Path) -> None:
    for i in range(120):
        write(tmp_path / "set" / f"{i:03}.png", content(i, grey=i % 2 == 0))
    assert "60 of 120 images are grey, and turned to colour" in said(read(tmp_path / "set", convert=False))
    with pytest.raises(UserError, match="has colour images"):
        read(tmp_path / "set", channels=1, convert=False)


def test_everything_that_changes_an_image_is_told(tmp_path: Path) -> None:
    flat(tmp_path / "set", 30)
    clear = np.random.default_rng(0).integers(0, 255, (8, 8, 4), np.uint8)
    write(tmp_path / "set" / "clear.png", saved(Image.fromarray(clear), "PNG"))
    clear[..., 3] = 255
    write(tmp_path / "set" / "opaque.png", saved(Image.fromarray(clear), "PNG"))
    write(tmp_path / "set" / "print.jpg", saved(Image.new("CMYK", (8, 8), (1, 2, 3, 4)), "JPEG"))
    turned = Image.Exif()
    turned[0x0112] = 6
    write(tmp_path / "set" / "upright.jpg", saved(Image.new("RGB", (80, 64)), "JPEG", exif=turned))
    write(tmp_path / "set" / "clip.mp4", "film")
    write(tmp_path / "set" / "note.txt", "words")
    write(tmp_path / "set" / ".hidden.png", content(1))
    write(tmp_path / "set" / "x.png", "no image")
    dataset = read(tmp_path / "set")
    assert sorted(map(str, dataset.notes)) == sorted([
        "2 files are left out (not an image in a format that can be read), such as clip.mp4.",
        "1 file is left out (hidden), such as .hidden.png.",
        "1 of 35 images is left out as unreadable, such as x.png (it is not an image in a format that can be read).",
        "1 of 35 images is partly transparent: the background is made white, such as clear.png.",
        "1 of 35 images is in CMYK colours: these are converted to RGB, such as print.jpg.",
        "1 of 35 images is not square: the middle square is used, such as upright.jpg (64x80).",
        "1 of 35 images is scaled down to 8x8, such as upright.jpg (64x80).",
        "1 of 35 images is rotated by the camera: turned upright, such as upright.jpg.",
    ])  # fmt: skip
    assert set(dataset.left_out) == {"clip.mp4", "note.txt", ".hidden.png", "x.png"}
    assert said(read(tmp_path / "set")) == said(dataset), "the cache keeps them"
    assert dataset.describe()["notes"] == [str(note) for note in dataset.notes]


def test_names_that_lead_out_of_an_archive_are_left_out_and_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for i in range(30):
            archive.writestr(f"{i}.png", content(i))
        archive.writestr("../../out.png", content(3))
    (note,) = [str(note) for note in read(tmp_path / "set.zip").notes if "left out" in str(note)]
    assert note == "1 file is left out (its name leads out of the archive), such as ../../out.png."


def test_all_that_are_scaled_down_are_counted_and_an_example_is_named_once(tmp_path: Path) -> None:
    for i, size in enumerate([(8, 8), (9, 9), (12, 9), (30, 8)]):
        write(tmp_path / "set" / f"of-size-{i}.png", saved(Image.new("RGB", size), "PNG"))
    flat(tmp_path / "set", 30)
    notes = read(tmp_path / "set").notes
    scaled = next(note for note in notes if "scaled down" in note.what)
    assert scaled.count == 2, "9x9, and 12x9 of which 9x9 are used; 30x8 is only cropped"
    write(tmp_path / "set" / "small.png", saved(Image.new("RGB", (4, 4)), "PNG"))
    assert "1 of 35 images is enlarged to 8x8, such as small.png (4x4)." in said(read(tmp_path / "set"))
    several = [Note("cropped", 2, "not square", "a.png (3x4)", 9), Note("converted", 3, "turned grey", "a.png", 9)]
    assert in_sentences(several) == [
        "2 of 9 images are not square, such as a.png (3x4).", "3 of 9 images are turned grey.",
    ]  # fmt: skip


def test_names_of_classes_are_no_formulas(tmp_path: Path) -> None:
    for kind in ("$\\frac$", "_^{"):
        flat(tmp_path / "set" / kind, 4)
    assert datasheet(read(tmp_path / "set"), tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("name", ["[/].png", "\x1b[31mred\x1b[0m.png", "new\nline.png", "<img src=x>.png"])
def test_names_reach_the_terminal_as_text(
    tmp_path: Path, runs: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for i in range(12):
            archive.writestr(f"a/{i}.png", content(i))
        archive.writestr(f"a/{name}", "bad")
    for command in (["data", "info", "set.zip"], ["train", "digits-vae", "--data", "set.zip", "--steps", "1"]):
        monkeypatch.setattr(
            sys, "argv", ["zeuxis", *command, *(["--set", "data.convert=true"] * (command[0] == "train"))]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        assert not ended.value.code
        assert "left out as unreadable" in shown.out + shown.err
        assert "\x1b[31m" not in shown.out + shown.err
    assert len((runs / "digits-vae-1" / "left-out.txt").read_text().splitlines()) == 1


# -- labels in a file ---------------------------------------------------------------------------------

LABELLED = [(f"images/{i}.png", i % 3) for i in range(18)]


def table(header: str = "", separator: str = ",", pairs: list[tuple[str, object]] = LABELLED) -> str:
    return header + "".join(f"{name}{separator}{label}\n" for name, label in pairs)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels.csv", table()), ("anything.csv", table("file,label\n")), ("labels.csv", table("id;breed\n", ";")),
        ("labels.csv", "\ufeff" + table("filename,class\r\n").replace("\n", "\r\n")),
        ("labels.csv", table(pairs=[(name.removeprefix("images/"), label) for name, label in LABELLED])),
        ("labels.csv", table(pairs=[(name.removesuffix(".png"), label) for name, label in LABELLED])),
        ("labels.csv", table(pairs=[(f"./{name}".replace("/", "\\"), label) for name, label in LABELLED])),
        ("metadata.csv", "label,text,file_name\n" + "".join(f'{n},"a, b",{f}\n' for f, n in LABELLED)),
        ("images/metadata.csv", table("file_name,label\n", pairs=[(f[7:], label) for f, label in LABELLED])),
        ("metadata.jsonl", "".join(json.dumps({"file_name": f, "label": n, "x": [1]}) + "\n" for f, n in LABELLED)),
        ("metadata.jsonl", "".join(f'{{"file_name": "{f}", "label": "{n}", "t": "\u2028"}}\n' for f, n in LABELLED)),
        ("dataset.json", json.dumps({"labels": [list(pair) for pair in LABELLED]})),
        ("dataset.json", json.dumps({"labels": dict(LABELLED)})),
        ("labels.csv", table("file;label\n", ";").encode("utf-16")), ("kinds.tsv", table("file\tlabel\n", "\t")),
        ("labels.txt", table(separator=" ")), ("labels.txt", table("file\tlabel\n", "\t")),
        ("labels.json", json.dumps(dict(LABELLED))),
        ("labels.json", json.dumps([{"file_name": f, "label": n} for f, n in LABELLED])),
    ],
)  # fmt: skip
def test_labels_in_a_file(tmp_path: Path, file: str, text: str | bytes) -> None:
    for path in sets([name for name, _ in LABELLED], tmp_path):
        if path.is_dir():
            write(path / file, text)
        else:
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(file, text)
        dataset = read(path)
        assert counts(dataset) == {"0": 6, "1": 6, "2": 6}
        for name, label in LABELLED:
            assert dataset.labels[dataset.names.index(name)] == label
        assert not dataset.notes


def test_classes_in_a_file_are_sorted_as_numbers(tmp_path: Path) -> None:
    flat(tmp_path / "set", 24)
    write(tmp_path / "set" / "labels.csv", table(pairs=[(f"{i}.png", i % 12) for i in range(24)]))
    assert read(tmp_path / "set").classes == tuple(map(str, range(12)))


def test_rows_and_images_that_do_not_meet_are_told(tmp_path: Path) -> None:
    flat(tmp_path / "set")
    pairs = [(f"{i}.png", i % 2) for i in range(15)] + [("gone.png", 1), ("lost.png", 0)]
    write(tmp_path / "set" / "labels.csv", table(pairs=pairs))
    dataset = read(tmp_path / "set")
    assert sum(counts(dataset).values()) == 15
    assert "2 of 17 rows are left out (labels.csv: no such image), such as gone.png." in said(dataset)
    assert "5 of 20 images are left out (without a label in labels.csv), such as 15.png." in said(dataset)
    # Without a header, the first row is no header either if its picture is missing.
    write(tmp_path / "set" / "labels.csv", table(pairs=[("gone.png", 1), *pairs[:15]]))
    assert "1 of 16 rows is left out (labels.csv: no such image), such as gone.png." in said(read(tmp_path / "set"))
    write(tmp_path / "set" / "labels.csv", table("file,label\n", pairs=[("gone.png", 1), ("lost.png", 0)]))
    with pytest.raises(
        UserError, match=r"None of the 2 rows of .*labels.csv names one of these images; the first names 'gone.png'"
    ):
        read(tmp_path / "set")


def test_files_that_hold_no_labels(tmp_path: Path) -> None:
    flat(tmp_path / "set")
    write(
        tmp_path / "set" / "metadata.csv",
        table("file_name,text\n", pairs=[(f"{i}.png", f"caption {i}") for i in range(20)]),
    )
    write(tmp_path / "set" / "prices.csv", "day,price,sold\n1,2,3\n")
    write(tmp_path / "set" / "dataset.json", json.dumps({"labels": None}))
    write(tmp_path / "set" / "labels.txt", "0 cat\n1 dog\n")
    write(tmp_path / "set" / "labels.json", json.dumps({"images": [1, 2], "categories": []}))
    dataset = read(tmp_path / "set")
    assert dataset.labels is None
    assert "5 files are left out (without labels for these images)" in said(dataset)


@pytest.mark.parametrize("suffix", ["jfif", "pgm", "avif"])
def test_further_kinds_of_image_files(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    (tmp_path / "set").mkdir()
    for i in range(12):
        kind = {"jfif": "JPEG", "pgm": "PPM", "avif": "AVIF"}[suffix]
        Image.new("L", (24, 24), 20 * i).save(tmp_path / "set" / f"{i:02}.{suffix}", kind)
    dataset = read(tmp_path / "set")
    assert len(dataset.names) == 12
    assert {note.kind for note in dataset.notes} == {"converted"}  # grey and too large


def test_what_a_set_without_images_holds_is_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name, why in (
        ("a.heic", "it has only a.heic"),
        ("b.heic", "it has 2 other files, such as a.heic"),
        ("images.zip", "it has 3 other files, such as images.zip; unpack that first"),
    ):
        write(tmp_path / "set" / name, "")
        with pytest.raises(UserError, match=f"{re.escape(why)}\\.$"):
            read(tmp_path / "set")


def test_the_sizes_of_a_set_are_those_of_upright_images(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for i in range(4):
        Image.new("L", (40, 24)).save(tmp_path / "set" / f"{i}.jpg", exif=exif)
    assert SOURCES["folder"].open(DataOptions(source="folder", path=str(tmp_path / "set"))).sizes == "24x40"


def test_labels_that_contradict_each_other(tmp_path: Path) -> None:
    (path, _) = sets([f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(6)], tmp_path)
    right = [(f"{kind}/{i}.png", kind) for kind in ("cat", "dog") for i in range(6)]
    write(path / "labels.csv", table(pairs=right))
    assert counts(read(path)) == {"cat": 6, "dog": 6}
    wrong = [("cat/0.png", "dog"), *right[1:]]
    write(path / "labels.csv", table(pairs=wrong))
    with pytest.raises(UserError, match=r"cat/0.png is labelled 'dog' in labels.csv, but .* are 'cat'"):
        read(path)
    write(path / "labels.csv", table(pairs=[(name, int(label == "dog")) for name, label in wrong]))
    with pytest.raises(UserError, match="but images in its folder are"):
        read(path)
    write(path / "labels.csv", table(pairs=right))
    write(path / "metadata.csv", table("file_name,label\n", pairs=wrong))
    with pytest.raises(UserError, match=r"cat/0.png is labelled '(cat|dog)' in .* but '(cat|dog)' in"):
        read(path)
    write(path / "metadata.csv", "file_name,label\ncat/0.png,cat\ncat/0.png,dog\n")
    with pytest.raises(UserError, match=r"cat/0.png is labelled"):
        read(path)


def test_numbered_folders_are_no_classes_beside_labels(tmp_path: Path) -> None:
    """StyleGAN's sets lie in folders of a thousand images each."""
    (path, _) = sets([f"{i // 6:05}/img{i:08}.png" for i in range(12)], tmp_path)
    write(path / "dataset.json", json.dumps({"labels": [[f"{i // 6:05}/img{i:08}.png", i % 2] for i in range(12)]}))
    assert counts(read(path)) == {"0": 6, "1": 6}


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("dataset.json", "{", "is not valid JSON"),
        ("dataset.json", "[" * 5000, "is nested too deep"),
        ("metadata.jsonl", "[1]\n", "is not a JSON object"),
        ("labels.csv", b"\xff", "cannot be read as text"),
    ],
)
def test_damaged_files_of_labels(tmp_path: Path, file: str, text: str | bytes, why: str) -> None:
    write(flat(tmp_path / "set") / file, text)
    with pytest.raises(UserError, match=rf"{file} {why}"):
        read(tmp_path / "set")


# -- arrays -------------------------------------------------------------------------------------------

BYTES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
BYTES[0, 0, 0], BYTES[0, 0, 1] = 0, 255


@pytest.mark.parametrize(
    "images",
    [
        BYTES, BYTES / 255, (BYTES / 127.5 - 1).astype(np.float32), BYTES.astype(np.int64), BYTES.transpose(0, 3, 1, 2),
        (BYTES.astype(np.uint16) * 257), BYTES.astype(np.float32),
    ],
)  # fmt: skip
def test_arrays_of_any_layout_and_range(tmp_path: Path, images: np.ndarray) -> None:
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(20) % 2)
    np.savez_compressed(tmp_path / "xy.npz", x=images, y=(np.arange(20) % 2)[:, None])
    np.savez(tmp_path / "plain.npz", images, np.array(["even", "odd"] * 10))
    for file, classes in (
        ("images.npy", ()),
        ("images.npz", ("0", "1")),
        ("xy.npz", ("0", "1")),
        ("plain.npz", ("even", "odd")),
    ):
        dataset = read(tmp_path / file)
        assert np.array_equal(dataset.images, BYTES), file
        assert dataset.classes == classes
        if classes:
            assert dataset.labels.tolist() == [0, 1] * 10


def test_lists_of_pictures_are_read_as_files_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [Image.fromarray(each) for each in BYTES]
    for mode in ("P", "CMYK", "HSV", "YCbCr", "RGBA", "1", "LA"):
        converted = [picture.convert(mode) for picture in pictures]
        for i, picture in enumerate(converted):
            file = tmp_path / mode / f"{i}.png" if mode not in ("CMYK", "HSV", "YCbCr") else None
            write(file, saved(picture, "PNG")) if file else None
        listed = load(DataOptions(size=8, channels=3, convert=True, **_given(converted)), progress=False)
        expected = np.stack([np.asarray(picture.convert("RGB")) for picture in converted])
        assert np.array_equal(listed.images, expected), mode
        assert (f"Pictures in {mode} colours" in capsys.readouterr().err) == (mode in ("CMYK", "HSV", "YCbCr"))
    clear = pictures[0].convert("RGBA")
    clear.putalpha(0)
    assert as_array([clear, pictures[1]], "images").shape == (2, 8, 8, 4)


def _given(data: object) -> dict[str, str]:
    return {key.removeprefix("data."): value for key, value in choose(data).items()}


def test_arrays_under_a_wrong_name_or_without_use_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=BYTES, labels=np.arange(20) % 2, y=np.arange(20) % 3)
    assert "1 array is left out (not used as labels: these are 'labels'), such as y." in said(
        read(tmp_path / "set.npz")
    )
    write(tmp_path / "set.npy", (tmp_path / "set.npz").read_bytes())
    with pytest.raises(UserError, match=r"set.npy is an \.npz file by its content; rename it"):
        read(tmp_path / "set.npy")
    np.save(tmp_path / "odd.npy", BYTES[..., 0])
    content = (tmp_path / "odd.npy").read_bytes().replace(b"(20, 8, 8)", b"(-4, 8, 8)")
    write(tmp_path / "odd.npy", content)
    with pytest.raises(UserError, match=r"cannot be read as arrays: its header is damaged"):
        read(tmp_path / "odd.npy")


def test_files_that_are_no_images_are_named_with_the_reason(tmp_path: Path) -> None:
    flat(tmp_path / "set")
    write(tmp_path / "set" / "photo", content(1))
    os.mkfifo(tmp_path / "set" / "labels.csv")
    words = said(read(tmp_path / "set"))
    assert "photo is left out: its name has no ending, such as .png, that makes it an image" in words or (
        "1 file is left out (its name has no ending, such as .png, that makes it an image), such as photo." in words
    )
    assert "labels.csv" in words and "neither a file nor a folder" in words


def test_a_name_that_several_images_share_is_told_as_such(tmp_path: Path) -> None:
    flat(tmp_path / "set")
    write(tmp_path / "set" / "3.jpg", content(3, kind="JPEG"))
    write(tmp_path / "set" / "labels.csv", table(pairs=[(str(i), i % 2) for i in range(20)]))
    assert "1 of 20 rows is left out (labels.csv: several images have this name), such as 3." in said(
        read(tmp_path / "set")
    )
    names = {"labels": [[f"{i}.png", i % 2] for i in range(20)] + [["\ud800.png", 1]]}
    (tmp_path / "set" / "labels.csv").unlink()
    write(tmp_path / "set" / "labels.json", json.dumps(names))
    assert "such as \\ud800.png" in said(read(tmp_path / "set"))


@pytest.mark.parametrize("label", ["[1, 2]", "NaN", '{"a": 1}'])
def test_a_label_that_is_none_is_refused(tmp_path: Path, label: str) -> None:
    flat(tmp_path / "set")
    rows = ", ".join(f'["{i}.png", {label if i == 3 else i % 2}]' for i in range(20))
    write(tmp_path / "set" / "dataset.json", f'{{"labels": [{rows}]}}')
    with pytest.raises(UserError, match=r"dataset.json should give each file one label, and to one it gives"):
        read(tmp_path / "set")


@pytest.mark.parametrize("source", ["digits", "sprites"])
def test_a_source_without_files_takes_no_path(source: str) -> None:
    with pytest.raises(UserError, match=f"The data source '{source}' takes no path, and data.path is '/nowhere'"):
        load(DataOptions(source=source, path="/nowhere", size=16), progress=False)


def test_grey_arrays_and_a_published_split(tmp_path: Path) -> None:
    grey, labels = BYTES[..., 0], np.arange(20) % 4
    np.savez(tmp_path / "set.npz", x_train=grey[:15], y_train=labels[:15], x_test=grey[15:], y_test=labels[15:])
    dataset = read(tmp_path / "set.npz", channels=1, convert=False)
    assert np.array_equal(dataset.images[..., 0], grey)
    assert dataset.test.tolist() == [15, 16, 17, 18, 19]
    assert dataset.labels.tolist() == labels.tolist()
    np.save(tmp_path / "one.npy", grey[:, None])
    assert np.array_equal(read(tmp_path / "one.npy", channels=1).images[..., 0], grey)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"images": np.zeros((5, 8))}, "has the shape"), ({"images": np.zeros((5, 8, 8, 7))}, "has the shape"),
        ({"images": np.zeros((0, 8, 8))}, "has no images"), ({"pictures": BYTES}, "name the images 'images'"),
        ({"images": np.full((5, 8, 8), np.nan)}, "not numbers"), ({"images": np.array(["a"] * 5)}, "of type"),
        ({"images": BYTES, "labels": np.zeros(3)}, "each image needs one label"),
        ({"images": BYTES, "labels": np.full(20, 0.5)}, "whole numbers or words"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images(tmp_path: Path, tables: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "set.npz", **tables)
    with pytest.raises(UserError, match=words):
        read(tmp_path / "set.npz")


def test_nothing_in_an_array_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    np.save(tmp_path / "set.npy", np.array([Evil()] * 4, object), allow_pickle=True)
    np.savez(tmp_path / "set.npz", images=np.array([Evil()] * 4, object))
    write(tmp_path / "cut.npz", (tmp_path / "set.npz").read_bytes()[:100])
    write(tmp_path / "empty.npy", b"")
    for file in ("set.npy", "set.npz", "cut.npz", "empty.npy"):
        with pytest.raises(UserError, match="cannot be read as arrays"):
            read(tmp_path / file)
    assert not (tmp_path / "ran").exists()


def test_a_run_of_arrays_in_memory_opens_again(tmp_path: Path) -> None:
    images, labels = BYTES[..., 0] / 255, np.array(["even", "odd"] * 10)
    settings = {"training.batch_size": 4}
    run = zeuxis.train(
        "digits-vae", (images, labels), steps=2, settings=settings, runs=tmp_path / "runs", progress=False
    )
    again = zeuxis.train(
        "digits-vae", (images, labels), steps=2, settings=settings, runs=tmp_path / "runs", progress=False
    )
    assert run.recipe.data.path == again.recipe.data.path
    program = f"import zeuxis; run = zeuxis.load({str(run.path)!r}); print(run.classes, len(run.dataset.images))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "('even', 'odd') 20\n"
    same = np.zeros((50, 28, 28), np.uint8)
    dataset = load(DataOptions(**{k.removeprefix("data."): v for k, v in choose(same).items()}), progress=False)
    assert (len(dataset.train), len(dataset.test)) == (45, 5), "copies of one image are split like others"
    assert "50 of 50 images are copies of one" in said(dataset)


# -- the cache ----------------------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 16
    elif how == "half":
        data[: len(data) // 2] = b"\xff" * (len(data) // 2)
    elif how == "cut":
        data = data[: len(data) // 3]
    path.write_bytes(data)
    if how == "gone":
        path.unlink()
    elif how == "list":
        path.write_text("[]")
    elif how == "value":
        path.write_text(path.read_text().replace('"kept": [0', '"kept": [1'))


@pytest.mark.parametrize(
    ("file", "how"),
    [(f, how) for f in ("images.bin", "digests.bin", "index.json") for how in ("flip", "half", "cut", "gone")]
    + [("index.json", "list"), ("index.json", "value")],
)
def test_a_damaged_cache_is_made_again(tmp_path: Path, file: str, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = read(flat(tmp_path / "set"))
    images = np.array(first.images)
    (folder,) = (tmp_path / "cache" / "images").iterdir()
    damage(folder / file, how)
    again = read(tmp_path / "set")
    assert np.array_equal(again.images, images) and again.fingerprint == first.fingerprint
    shown = capsys.readouterr().err
    assert "is damaged" in shown and file in shown and "made again" in shown
    assert [path.name for path in (tmp_path / "cache" / "images").iterdir()] == [folder.name]


def test_an_image_that_the_disk_did_not_give_is_read_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flat(tmp_path / "set")
    original = Archive.bytes

    def fails(archive: Archive, name: str) -> bytes:
        if name == "3.png":
            raise OSError(5, "Input/output error")
        return original(archive, name)

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "bytes", fails)
        for _ in range(2):
            assert read(tmp_path / "set").left_out == {"3.png": "Input/output error"}
    capsys.readouterr()
    assert not read(tmp_path / "set").left_out
    assert "3.png can be read now, so the images are decoded again." in capsys.readouterr().err


def test_an_empty_set_is_a_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.zeros((0, 28, 28), np.uint8))
    with pytest.raises(UserError, match=r"none.npy has no images"):
        read(tmp_path / "none.npy")
    nothing = Collection("nothing", [], 1, "8x8", lambda i, size: Image.new("L", (size, size)))
    with pytest.raises(UserError, match="There are no images: the source is empty"):
        cache_module.decoded(nothing, DataOptions(), progress=False)


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "images"
    killed, alive = place / ".writing-dead", place / ".writing-busy"
    for folder in (killed, alive):
        write(folder / "images.bin", b"half")
        write(folder / "lock", b"")
    with FileLock(alive / "lock"):
        read(flat(tmp_path / "set"))
        assert alive.exists() and not killed.exists()


def test_two_processes_make_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat(tmp_path / "set")
    original = cache_module._decode_all

    def after_another(*arguments: object) -> None:
        monkeypatch.setattr(cache_module, "_decode_all", original)
        other.append(read(tmp_path / "set"))
        original(*arguments)

    other: list[Dataset] = []
    monkeypatch.setattr(cache_module, "_decode_all", after_another)
    assert read(tmp_path / "set").fingerprint == other[0].fingerprint
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 1


def test_a_cache_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flat(tmp_path / "set")
    file = write(tmp_path / "file", "x")
    for place in (file, Path("/proc/x")):
        monkeypatch.setenv("ZEUXIS_CACHE", str(place))
        with pytest.raises(UserError, match="Set ZEUXIS_CACHE to another folder"):
            read(tmp_path / "set")
    # The platform's own place is nobody's choice: another one serves.
    monkeypatch.delenv("ZEUXIS_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_: file)
    assert len(read(tmp_path / "set").images) == 20
    assert "kept in" in capsys.readouterr().err


# -- what must not change -----------------------------------------------------------------------------

FINGERPRINTS = {
    "digits": ({"source": "digits", "size": 8, "channels": 1}, "624d60480fc962cba1b9ead553202e26"),
    "mnist-10k": ({"source": "mnist", "size": 28, "channels": 1}, "a30656b72c46cd830691a1877015c3f4"),
    "fashion-mnist-900": ({"source": "fashion-mnist", "size": 28, "channels": 1}, "081f561bbf3c14fc22e9dd4f4770b533"),
    "flowers.zip": (
        {"source": "folder", "path": "flowers.zip", "size": 32, "channels": 3},
        "87156de7d36ded04160b98ae8be41267",
    ),
    "celeba/originals-200.zip": (
        {"source": "celeba", "path": "celeba/originals-200.zip", "size": 64, "channels": 3},
        "57a9daef892da8aef7a8c3baeebbf01f",
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.data(name)] * (name != "digits")) for name in FINGERPRINTS]
)
def test_pixels_labels_and_split_are_what_they_were(name: str) -> None:
    """Runs, and the judges in the package, are bound to these."""
    options, fingerprint = FINGERPRINTS[name]
    assert load(DataOptions(**options), progress=False).fingerprint == fingerprint


def test_a_folders_fingerprint(tmp_path: Path) -> None:
    names = [f"{kind}/{i}{end}" for kind in ("a", "a.b", "A") for i in range(6) for end in (".png", "/0.png")]
    for path in sets(names, tmp_path):
        assert SOURCES["folder"].open(DataOptions(source="folder", path=str(path))).classes == ["A", "a", "a.b"]
    assert read(tmp_path / "set").names == [
        str(f.relative_to(tmp_path / "set")) for f in sorted((tmp_path / "set").rglob("*.png"))
    ]
