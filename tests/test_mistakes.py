"""Users' mistakes: each gives one clear sentence and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import zeuxis
from zeuxis import cli
from zeuxis.curves import Curves
from zeuxis.data.arrays import arrays, store
from zeuxis.errors import UserError
from zeuxis.export import export
from zeuxis.latent import project
from zeuxis.run import Run

Say = Callable[..., str]


@pytest.fixture
def fails(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command that must fail with exit code 2 and one sentence, which it returns."""
    monkeypatch.setenv("ZEUXIS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str | Path) -> str:
        before = sorted(str(p) for p in runs.rglob("*")) if runs.is_dir() else []
        monkeypatch.setattr(sys, "argv", ["zeuxis", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr().err.strip()
        assert ended.value.code == 2, said
        assert "Traceback" not in said
        after = sorted(str(p) for p in runs.rglob("*")) if runs.is_dir() else []
        assert after == before, "a mistake leaves nothing behind"
        last = said.splitlines()[-1]
        assert last.startswith("Error: ")
        assert said.startswith("Usage") or last.endswith((".", "?")), "a whole sentence"
        return last

    return run


def jpeg(path: Path, mode: str = "RGB", size: tuple[int, int] = (12, 12), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path, **options)
    return path


def idx(path: Path, array: np.ndarray, kind: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def mnist(folder: Path, labels: int = 20, images: int = 20) -> Path:
    for part in ("train", "t10k"):
        idx(folder / f"{part}-images-idx3-ubyte.gz", np.zeros((images, 28, 28)))
        idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(labels) % 10)
    return folder


def png_claiming(width: int, height: int) -> bytes:
    """A few bytes of PNG that promise an enormous image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


# -- recipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", "mnist-vae"], "no recipe 'mnist-vae'. Did you mean 'mnist-vae-z16'?"),
        (["train", "mnist-vea-z2"], "no recipe 'mnist-vea-z2'. Did you mean 'mnist-vae-z2'?"),
        (
            ["train", "digits-gan", "--set", "model.loss=hing"],
            "model.loss: There is no loss 'hing'. Did you mean 'hinge'?",
        ),
        (["train", "digits-gan", "--set", "model.augmentation=['colour']"], "no augmentation 'colour'"),
        (["train", "digits-vae", "--set", "training.optimizer.lr=3"], "no key 'training.optimizer.lr'"),
        (["train", "digits-vae", "--set", "training.optimizer.name=adm"], "no optimizer 'adm'. Did you mean 'adam'"),
        (["train", "digits-vae", "--set", "training.schedule.name=cos"], "no schedule 'cos'"),
        (
            ["train", "digits-gan", "--set", "model.loss=wasserstein", "--set", "model.label_smoothing=0.1"],
            "needs a loss with labels",
        ),
        (["train", "latent-gan"], "model.vae names none: there is no run 'mnist-vae-z16-1'"),
        (["summary", "absent.toml"], "absent.toml cannot be read: there is no such file"),
        (["train", "digits-vae", "--set", "training.batchsize=3"], "Did you mean 'batch_size'?"),
        (["train", "digits-vae", "--set", "training.batch_size=lots"], "training.batch_size should be a whole number"),
        (["train", "digits-vae", "--set", "training.batch_size=0"], "greater than or equal to 1, not 0"),
        (["train", "digits-vae", "--set", "training.batch_size"], "write KEY=VALUE"),
        (["train", "digits-vae", "--set", "model.kl_wieght=1"], "Did you mean 'kl_weight'?"),
        (["train", "digits-vae", "--set", "model.name=vea"], "no model 'vea'. Did you mean 'vae'?"),
        (["train", "digits-vae", "--set", "training.snapshot_every=often"], "write '10 epochs'"),
        (["train", "digits-vae", "--set", "data.size=20"], "the output after 'sigmoid' is 16x16x1"),
        (["train", "digits-vae", "--set", "data.range=-1..1"], "needs data.range = '0..1'"),
        (["train", "digits-vae", "--set", "training.best=fid", "--set", "data.flip=true"], "data.flip"),
        (["train", "digits-vae", "--epochs", "1", "--steps", "3"], "--epochs and --steps cannot be combined"),
        (["train", "digits-vae", "--epochs", "0"], "training.epochs should be greater than 0"),
        (["train", "digits-vae", "--epochs", "many"], "'--epochs': it should be a number, not 'many'."),
        (["train", "digits-vae", "--device", "gpu7"], "write cpu, cuda, mps or auto"),
        (["train", "digits-vae", "--name", "../up"], "cannot name a run"),
        (["train", "digits-vae", "--set", "training.optimizers.generator.learning_rate=1e-3"], "phases are vae"),
        (["trian", "digits-vae"], "No such command 'trian'. Did you mean 'train'?"),
        (["ls"], "No such command 'ls'. To list runs: zeuxis runs."),
        (["data", "list"], "To list data sources: zeuxis data."),
        (["train", "digits-vae", "--minute", "1"], "No such option: --minute. Did you mean --minutes?"),
        (["sample", "a", "--lable", "1"], "No such option: --lable. Did you mean --label?"),
        (["project", "a", "b.png", "--starts", "50"], "'--starts': it should be from 64 to 100,000, not 50."),
        (
            ["sweep", "digits-vae", "--over", "a=1,2", "--search", "best"],
            "'best' is not one of 'grid', 'random', 'tpe'.",
        ),
        (["train", "digits-vae", "--set", "kl_weight=2"], "no key 'kl_weight'. Did you mean 'model.kl_weight'?"),
        (["train", "digits-gan", "--set", "lerning_rate=1"], "Did you mean 'training.optimizer.learning_rate'?"),
        (["train", "digits-vae", "--set", "training.size=9"], "no key 'training.size'. Did you mean 'data.size'?"),
        (["sweep", "digits-vae", "--over", "kl_weight=1,2"], "no key 'kl_weight'. Did you mean 'model.kl_weight'?"),
    ],
)
def test_recipes_and_settings(fails: Say, arguments: list[str], part: str) -> None:
    assert part in fails(*arguments)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[data\n", "is not valid TOML"),
        ('extends = "mnist-gna"\n', "Did you mean 'mnist-gan'?"),
        ('extends = "mine.toml"\n', "extends itself"),
        ('extends = ["a"]\n', "must be the name of one recipe"),
        ('[model]\nname = "vae"\n', "lacks the key 'data'"),
        ('extends = "digits-gan"\n[training]\nepochs = 1\nsteps = 2\n', "exactly one of epochs, steps and minutes"),
        ('extends = "digits-gan"\n[networks.generator]\nlayers = ["desne 4"]\n', "generator, layer 1 ('desne 4')"),
        (
            'extends = "digits-gan"\n[networks.critic]\nlayers = ["dense 4"]\n',
            "its networks are generator, discriminator",
        ),
        ('extends = "digits-gan"\n[networks.generator]\nlayers = []\n', "a network needs layers, such as"),
        ('extends = "digits-gan"\n[networks.generator]\nlayers = []\nmodule = "no.such.Thing"\n', "cannot be made"),
    ],
)
def test_recipe_files(fails: Say, tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert part in fails("train", path)


# -- data ---------------------------------------------------------------------------------------------


def test_no_such_data(fails: Say) -> None:
    assert "Did you mean 'mnist'?" in fails("train", "digits-gan", "--data", "minst")
    assert "neither a data source nor a folder" in fails("data", "info", "/no/such/folder")
    assert "neither a data source nor a folder" in fails("train", "digits-vae", "--data", "", "--steps", "1")


def test_images_that_stand_right_there(fails: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jpeg(tmp_path / "my photos" / "1.png")
    (tmp_path / "more.zip").write_bytes(b"")
    sentence = "There is no recipe 'my photos', but a folder of this name: zeuxis train --data 'my photos'."
    assert sentence in fails("train", "my photos", "--minutes", "1")
    assert "but a file of this name: zeuxis train --data more.zip." in fails("train", "more")
    assert "but a file of this name: zeuxis train --data more.zip." in fails("train", "more.zip")
    assert "Did you mean 'my photos'?" in fails("train", "--data", "My Photos")
    near = f"Did you mean '{tmp_path / 'my photos'}'?"
    assert near in fails("train", "--data", tmp_path / "my-photos")


def test_colour_images_for_a_grey_recipe(fails: Say, tmp_path: Path) -> None:
    for kind in ("rose", "tulip"):
        jpeg(tmp_path / "flowers" / kind / "1.jpg")
    said = fails("train", "mnist-gan", "--data", tmp_path / "flowers")
    assert "makes 28x28 grey images" in said
    assert "colour images of 12x12 pixels" in said
    assert "--set data.convert=true" in said
    assert "data.channels = 3" in said


def test_empty_folder(fails: Say, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "contains no images (JPEG, PNG" in fails("train", "digits-gan", "--data", tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    assert "it has only notes.txt." in fails("data", "info", tmp_path / "empty")


def test_class_folders(fails: Say, tmp_path: Path) -> None:
    folder = tmp_path / "kinds"
    jpeg(folder / "rose" / "1.png", "L")
    (folder / "tulip").mkdir()
    assert "class folder 'tulip'" in fails("train", "digits-gan", "--data", folder)
    jpeg(folder / "tulip" / "1.png", "L")
    said = fails("train", "digits-gan", "--data", folder, "--classes", "rsoe")
    assert "no class 'rsoe'. Did you mean 'rose'?" in said
    jpeg(folder / "stray.png", "L")
    assert "mixes class folders with images beside them, such as stray.png" in fails("data", "info", folder)


def test_flat_images_have_no_classes(fails: Say, tmp_path: Path) -> None:
    for i in range(4):
        jpeg(tmp_path / "flat" / f"{'x' * (i + 1)}.png", "L")
    assert "have no classes; set data.classes to []" in fails(
        "train", "digits-gan", "--data", tmp_path / "flat", "--classes", "a"
    )
    assert "needs images of at least two classes" in fails("train", "digits-cgan", "--data", tmp_path / "flat")
    assert "have no attributes" in fails("train", "digits-gan", "--data", tmp_path / "flat", "--attribute", "Smiling")


def test_too_few_images(fails: Say, tmp_path: Path) -> None:
    jpeg(tmp_path / "one" / "1.png", "L")
    assert "1 image cannot be split: 1 for training and 0 for testing" in fails(
        "train", "digits-gan", "--data", tmp_path / "one"
    )


def test_batches_of_one_image(fails: Say, tmp_path: Path, runs: Path) -> None:
    one = "Batches of one image cannot train networks with batch normalisation"
    assert one in fails("train", "mnist-gan", "--data", "digits", "--set", "training.batch_size=1")
    for name in "ab":
        jpeg(tmp_path / "two" / f"{name * 3}.png", "L")
    said = fails("train", "mnist-gan", "--data", tmp_path / "two")
    assert one in said and "there is one training image" in said
    assert not runs.exists()


def test_corrupt_images_only(fails: Say, tmp_path: Path) -> None:
    good = jpeg(tmp_path / "good.jpg", "L", (64, 64)).read_bytes()
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "text.jpg").write_text("no image")
    assert "None of the 2 images can be read; the first, cut.jpg" in fails("data", "info", folder)


def test_a_class_of_corrupt_images(fails: Say, tmp_path: Path) -> None:
    jpeg(tmp_path / "kinds" / "rose" / "1.png", "L")
    jpeg(tmp_path / "kinds" / "rose" / "22.png", "L")
    (tmp_path / "kinds" / "tulip").mkdir()
    (tmp_path / "kinds" / "tulip" / "1.png").write_bytes(b"\x89PNG but not really")
    said = fails("train", "digits-gan", "--data", tmp_path / "kinds")
    assert "class 'tulip' has no images (1 files could not be read)" in said


def test_decompression_bomb(fails: Say, tmp_path: Path) -> None:
    (tmp_path / "bomb").mkdir()
    (tmp_path / "bomb" / "b.png").write_bytes(png_claiming(9_000, 9_000))
    assert "9000x9000 pixels are more than the 64,000,000 allowed" in fails("data", "info", tmp_path / "bomb")
    (tmp_path / "bomb" / "b.png").write_bytes(png_claiming(60_000, 60_000))
    assert "None of the 1 images can be read" in fails("data", "info", tmp_path / "bomb")


def test_archives(fails: Say, tmp_path: Path) -> None:
    (tmp_path / "fake.zip").write_text("not a zip")
    assert "neither a folder nor a readable zip" in fails("data", "info", tmp_path / "fake.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "no images")
    assert "contains no images" in fails("data", "info", tmp_path / "empty.zip")


def test_idx_files(fails: Say, tmp_path: Path) -> None:
    folder = mnist(tmp_path / "data" / "mnist")
    name = folder / "train-images-idx3-ubyte.gz"
    whole = name.read_bytes()
    name.write_bytes(whole[:-12])
    assert "damaged or cut short" in fails("train", "mnist-gan")
    name.write_bytes(gzip.compress(gzip.decompress(whole)[:-100]))
    assert "declares 20x28x28 values but has 15,580 bytes" in fails("train", "mnist-gan")
    name.write_bytes(gzip.compress(gzip.decompress(whole) + bytes(2**20)))
    assert "declares 20x28x28 values but has more" in fails("train", "mnist-gan")
    name.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**20, 1)))
    assert "at most 4,294,967,296 are allowed" in fails("train", "mnist-gan")
    idx(name, np.zeros((20, 28, 28)), kind=9)
    assert "not an idx file of unsigned bytes with 3 dimensions" in fails("train", "mnist-gan")
    mnist(folder, labels=19)
    assert "20 images but train-labels-idx1-ubyte.gz has 19 labels" in fails("train", "mnist-gan")
    mnist(folder)
    idx(folder / "t10k-labels-idx1-ubyte.gz", np.full(20, 12))
    assert "has the label 12" in fails("train", "mnist-gan")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "lacks t10k-labels-idx1-ubyte.gz" in fails("train", "mnist-gan", "--set", f"data.path={folder}")


def celeba(folder: Path, rows: int, files: int = 8) -> Path:
    for i in range(files):
        jpeg(folder / "img_align_celeba" / f"{i:06}.jpg", size=(178, 218))
    listed = "".join(f"{i:06}.jpg {1 - 2 * (i % 2)} -1\n" for i in range(rows))
    (folder / "list_attr_celeba.txt").write_text(f"{rows}\nSmiling Male\n{listed}")
    return folder


COLOUR = ("--set", "data.channels=3")


def test_celeba(fails: Say, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "celeba"
    assert "CelebA is incomplete" in fails("train", "digits-cgan", "--data", "celeba")
    celeba(folder, rows=5)
    assert "has no row for 3 of the 8 images" in fails("train", "digits-cgan", "--data", "celeba", *COLOUR)
    celeba(folder, rows=8)
    said = fails("train", "digits-cgan", "--data", "celeba", "--attribute", "Smilng", *COLOUR)
    assert "no attribute 'Smilng'. Did you mean 'Smiling'?" in said
    (folder / "list_attr_celeba.txt").write_text("8\nSmiling Male\n000000.jpg 1 7\n")
    assert "line 3: 2 values of 1 or -1 should follow 000000.jpg" in fails("data", "info", "celeba")
    celeba(folder, rows=8)
    (folder / "list_eval_partition.txt").write_text("000000.jpg zero\n")
    assert "line 1: should be 'FILE 0'" in fails("data", "info", "celeba")


def test_an_unwritable_cache(fails: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path / "file"))
    assert "Set ZEUXIS_CACHE to another folder" in fails("train", "digits-gan")


# -- runs ---------------------------------------------------------------------------------------------


def test_runs_that_are_none(fails: Say, trained: dict[str, Run], tmp_path: Path) -> None:
    near = trained["vae"].path.parent
    assert "no run 'vea'" in fails("sample", "vea", "--runs", near)
    assert "Did you mean 'cgan'?" in fails("sample", "cgam", "--runs", near)
    (tmp_path / "other").mkdir()
    assert "is not a run: it has no recipe.toml" in fails("figures", tmp_path / "other")


def test_runs_that_cannot(fails: Say, trained: dict[str, Run]) -> None:
    vae, gan, cgan = (trained[name].path for name in ("vae", "gan", "cgan"))
    assert "is not conditional" in fails("sample", vae, "--label", "7")
    assert "no class '12'" in fails("sample", cgan, "--label", "12")
    assert "'gan', which cannot encode images; `zeuxis project` searches latents" in fails("reconstruct", gan)
    assert "is not a latent; give a seed such as 3, or 2 numbers" in fails(
        "interpolate", vae, "--from", "1,2,3", "--to", "4"
    )
    assert "no class 'x'" in fails("interpolate", cgan, "--from", "x", "--to", "4")
    assert "at least two runs" in fails("compare", vae)
    assert "which has no network 'encoder'" in fails("train", "latent-gan", "--set", f"model.vae={gan}")
    assert "no figure of gan 'confusion'" in fails("figures", gan, "--only", "confusion")
    assert "no option of these figures 'dots'. Did you mean 'points'?" in fails("figures", vae, "--set", "dots=3")
    assert "points is a whole number from 1 to 10,000" in fails(
        "figures", vae, "--only", "latents", "--set", "points=few"
    )
    assert "used up its budget" in fails("resume", gan)
    assert "greater than 0" in fails("resume", gan, "--steps", "0")
    assert "--epochs and --minutes cannot be combined" in fails("resume", gan, "--epochs", "9", "--minutes", "1")
    assert "Name two places with --from and --to" in fails("interpolate", vae, "--from", "1")
    assert "Name two places with --from and --to" in fails("interpolate", vae, "--through", "1,,2")
    assert "--fps is the speed of a film" in fails("interpolate", vae, "--through", "1,2", "--fps", "9")
    assert "so --seed has no use" in fails("interpolate", vae, "--through", "1,2", "--seed", "9")
    over = ("--over", "model.latent=2,3", "--trials", "2")
    assert "a number of trials has no use" in fails("sweep", "digits-vae", *over)


def test_what_fails_makes_no_folder(fails: Say, trained: dict[str, Run], tmp_path: Path) -> None:
    copy = copytree(trained["cgan"].path, tmp_path / "a copy")
    for made in ("samples", "exports", "figures"):
        rmtree(copy / made, ignore_errors=True)
    before = sorted(copy.rglob("*"))
    picture, out = jpeg(tmp_path / "a.png", "L"), tmp_path / "out"
    for place in ([], ["--out", str(out)]):
        assert "no class '12'" in fails("sample", copy, "--label", "12", *place)
        assert "no class '12'" in fails("project", copy, picture, "--label", "12", *place)
        assert "no class 'x'" in fails("interpolate", copy, "--from", "x", "--to", "4", *place)
        assert "no export format 'onx'" in fails("export", copy, "--to", "onx", *place)
    assert sorted(copy.rglob("*")) == before and not out.exists()


HUGE, LONG, RED = str(10**30), "a" * 5000, "\x1b[31mred"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["sample", "vae", "--seed", HUGE], "A seed should be from 0 to"),
        (["sample", "vae", "--seed", "-1"], "A seed should be from 0 to"),
        (["sample", "vae", "-n", HUGE], "-n"),
        (["sample", "vae", "-n", "9" * 5000], "-n"),
        (["sample", "vae", "--scale", "nan"], "scale"),
        (["sample", "vae", "--scale", "inf"], "--scale"),
        (["sample", "vae", "--out", "/dev/null"], "a file is in its place"),
        (["sample", "vae", "--out", "vae/recipe.toml"], "a file is in its place"),
        (["sample", "vae", "--out", "x" * 300], "its name is too long"),
        (["sample", LONG], "There is no run 'aaa"),
        (["sample", RED], r"There is no run '\x1b[31mred'"),
        (["sample", "vae", "-n", RED], "-n"),
        ([RED], r"No such command '\x1b[31mred'"),
        (["recipes", "[/]"], "There is no recipe '[/]'"),
        (["summary", "digits-vae", "--set", f"{RED}=1"], r"has no key '\x1b[31mred'"),
        (["interpolate", "vae", "--from", "nan,0", "--to", "1"], "A latent should be from"),
        (["interpolate", "vae", "--from", "1e999,0", "--to", "1"], "A latent should be from"),
        (["interpolate", "vae", "--from", HUGE, "--to", "1"], "A seed should be from"),
        (["interpolate", "vae", "--from", "9" * 5000, "--to", "1"], "is not a latent"),
        (["interpolate", "vae", "--from", "1", "--to", "2", "--steps", HUGE], "--steps"),
        (["figures", "vae", "--only", "jumps", "--set", f"ways={HUGE}"], "from 1 to 10,000"),
        (["reconstruct", "vae", "-n", HUGE], "-n"),
        (["evaluate", "vae", "--samples", HUGE], "--samples"),
        (["evaluate", "vae", "--samples", "100", "--seed", HUGE], "A seed should be from"),
        (["report", "vae", "--out", "/dev/full"], "it is not a regular file"),
        (["report", "vae", "--out", "/dev/stdout"], "it is not a regular file"),
        (["report", "vae", "--out", "."], "it is a folder"),
        (["compare", "vae", "gan", "--seeds", HUGE], "--seeds"),
        (["resume", "vae", "--steps", HUGE], "training.steps should be less than or equal to"),
        (["resume", "vae", "--epochs", "inf"], "training.epochs should be a finite number"),
        (["train", "digits-vae", "--minutes", "nan"], "training.minutes should be a finite number"),
        (["train", "digits-vae", "--set", "model.kl_weight=inf"], "should be a finite number"),
        (["train", "digits-vae", "--seed", HUGE], "training.seed should be less than or equal to"),
        (["train", "digits-vae", "--device", "meta"], "write cpu, cuda, mps or auto"),
        (["train", LONG], "There is no recipe 'aaa"),
        (["sweep", "digits-vae", "--over", "model.kl_weight=nan..inf", "--search", "random"], "An end of the range"),
        (["sweep", "digits-vae", "--over", f"model.latent=1..{HUGE}", "--search", "random"], "An end of the range"),
        (["sweep", "digits-vae", "--over", "model.latent=1,2", "--trials", HUGE], "--trials"),
        (
            ["sweep", "digits-vae", "--over", "model.kl_weight=1,2,-1"],
            "model.kl_weight should be greater than or equal",
        ),
        (["sweep", "digits-vae", "--over", "model.kl_weight=-1..1", "--search", "random"], "model.kl_weight should be"),
        (
            ["data", "info", "digits", "--size", "8", "--out", "sheet.unknown"],
            "must end in one of .png, .svg, .pdf, .jpg",
        ),
        (["data", "info", "digits", "--size", "8", "--out", "sheet"], "must end in one of .png"),
    ],
)
def test_options_out_of_range(
    fails: Say, trained: dict[str, Run], monkeypatch: pytest.MonkeyPatch, arguments: list[str], part: str
) -> None:
    monkeypatch.setenv("ZEUXIS_RUNS", str(trained["vae"].path.parent))
    monkeypatch.chdir(trained["vae"].path.parent)
    said = fails(*arguments)
    assert part in said
    assert len(said) < 2000 and "\x1b" not in said


def test_a_map_of_too_few_points(fails: Say, trained: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    from zeuxis.figures.latents import embed

    with pytest.raises(UserError, match="needs at least 4 images, not 1"):
        embed(np.zeros((1, 8)))
    assert embed(np.eye(4)).shape == (4, 2)


def test_places_that_cannot_be_written(fails: Say, tmp_path: Path, trained: dict[str, Run]) -> None:
    (tmp_path / "file").write_text("")
    assert "it is a file" in fails("train", "digits-gan", "--steps", "1", "--runs", tmp_path / "file")
    assert "a file is in its place" in fails("sample", trained["gan"].path, "--out", tmp_path / "file")
    assert "cannot be written" in fails("report", trained["gan"].path, "--out", tmp_path / "file" / "r.html")
    copy = shutil.copytree(trained["gan"].path, tmp_path / "copy")
    shutil.rmtree(copy / "figures", ignore_errors=True)
    (copy / "figures").write_text("")
    assert "figures cannot be made: a file is in its place" in fails("figures", copy)
    taken = trained["gan"].path
    assert f"The run {taken} already exists" in fails(
        "train", "digits-gan", "--name", taken.name, "--runs", taken.parent
    )


def test_damaged_checkpoints(fails: Say, trained: dict[str, Run], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained["gan"].path, copy)
    for path in (copy / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    assert "is damaged or not a checkpoint of a run" in fails("sample", copy)
    assert "checkpoints in" in fails("resume", copy, "--steps", "60")
    for path in (copy / "checkpoints").iterdir():
        path.unlink()
    assert "has no checkpoint yet" in fails("sample", copy)


def test_a_checkpoint_of_other_networks(fails: Say, trained: dict[str, Run], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained["vae"].path, copy)
    text = (copy / "recipe.toml").read_text()
    (copy / "recipe.toml").write_text(text.replace("dense 64", "dense 65"))
    assert "does not fit the networks of its recipe" in fails("sample", copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [("processor", None), ("threads", "x"), ("versions", []), ("data", "x"), ("data.classes", 3), ("data.classes", [1]),
     ("data.fingerprint", None), ("data.train_images", -1)],
)  # fmt: skip
def test_an_environment_of_other_types(
    key: str, value: object, fails: Say, trained: dict[str, Run], tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained["vae"].path, copy)
    recorded = json.loads((copy / "environment.json").read_text())
    *path, last = key.split(".")
    (recorded[path[0]] if path else recorded)[last] = value
    (copy / "environment.json").write_text(json.dumps(recorded))
    assert f"environment.json is damaged: {key}" in fails("sample", copy)


def test_a_damaged_environment(fails: Say, trained: dict[str, Run], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained["vae"].path, copy)
    (copy / "environment.json").write_text("{")
    assert "environment.json is damaged" in fails("sample", copy)


# -- what is no mistake -------------------------------------------------------------------------------


def test_odd_images_are_read(tmp_path: Path) -> None:
    from zeuxis.data.cache import prepare
    from zeuxis.data.files import decode
    from zeuxis.recipe import DataOptions

    def content(image: Image.Image, kind: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    ramp = np.tile(np.linspace(0, 65535, 16).astype(np.uint16), (16, 1))
    deep = np.asarray(decode(content(Image.fromarray(ramp), "PNG"), 16))
    assert np.abs(deep.astype(float) - ramp / 257).max() <= 0.5, "16 bits are scaled, not cut off"

    red = Image.new("RGB", (16, 16), (200, 30, 30))
    cmyk = np.asarray(decode(content(red.convert("CMYK"), "JPEG", quality=95), 16)).astype(int)
    assert np.abs(cmyk - (200, 30, 30)).max() < 25

    frames = [Image.new("P", (8, 8), i) for i in (0, 1)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 255, 255, 255])
    assert np.asarray(decode(content(frames[0], "GIF", save_all=True, append_images=frames[1:]), 8)).max() < 10

    half = np.zeros((8, 16, 3), np.uint8)
    half[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned: to be shown rotated by 90 degrees to the right
    turned = np.asarray(decode(content(Image.fromarray(half), "JPEG", exif=exif, quality=95), 8))
    assert turned.shape == (16, 8, 3)
    assert turned[:8].mean() > 240, "what was left is on top"

    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    stored = prepare(decode(content(clear, "PNG"), 8), DataOptions(size=8, channels=3))
    assert set(stored.pixels) == {255}, "transparent is white"


def test_one_bad_file_among_good_ones_is_left_out(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(30):
        jpeg(tmp_path / "mixed" / f"{'y' * (i + 1)}.jpg", "L", (20 + i, 30))
    (tmp_path / "mixed" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    command = ["zeuxis", "train", "digits-gan", "--data", str(tmp_path / "mixed"), "--steps", "2", "--name", "m"]
    monkeypatch.setattr(sys, "argv", [*command, "--set", "training.batch_size=8"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    said = "1 of 31 images is left out as unreadable, such as broken.jpg"
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert (runs / "m" / "left-out.txt").read_text().startswith("broken.jpg\t")
    assert said in Run(runs / "m").environment["data"]["notes"][0]


def test_the_data_directory_may_be_read_only(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written beside the data."""
    mnist(tmp_path / "data" / "mnist-small")
    before = sorted((tmp_path / "data").rglob("*"))
    monkeypatch.setenv("ZEUXIS_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "argv", ["zeuxis", "data", "info", "mnist", "--out", str(tmp_path / "s.png")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "20 for training, 20 for testing" in capsys.readouterr().out
    assert sorted((tmp_path / "data").rglob("*")) == before


def test_a_run_is_no_recipe(fails: Say, trained: dict[str, Run]) -> None:
    assert "is a run, not a recipe; zeuxis resume" in fails("train", trained["vae"].path)


def test_no_output_replaces_what_is_not_its_own(fails: Say, trained: dict[str, Run], tmp_path: Path) -> None:
    run = trained["vae"].path
    for command in (["sample", run, "-n", "2"], ["reconstruct", run, "-n", "2"]):
        mine = tmp_path / f"mine-{command[0]}"
        pictures = [jpeg(mine / f"000{i}.png") for i in range(3)]
        before = [picture.read_bytes() for picture in pictures]
        assert "holds files of your own, such as 0000.png" in fails(*command, "--out", mine)
        assert "is named like a picture; drop the ending" in fails(*command, "--out", tmp_path / "x.png")
        assert [picture.read_bytes() for picture in pictures] == before
    assert "should end in .zip" in fails("sample", run, "-n", "1", "--zip", pictures[0], "--out", tmp_path / "new")
    own = (run / "recipe.toml").read_bytes(), (run / "environment.json").read_bytes()
    for command in (
        ["report", run, "--out", run / "environment.json"],
        ["encode", run, pictures[0], "--out", run / "environment.json"],
    ):
        assert "one of the files that a run is made of" in fails(*command)
    assert ((run / "recipe.toml").read_bytes(), (run / "environment.json").read_bytes()) == own
    folder = tmp_path / "set"
    for i in range(12):
        first = jpeg(folder / f"{i}.png")
    assert "whose images the sheet would join" in fails("data", "info", folder, "--size", "16", "--out", first)


def test_a_run_whose_checkpoints_are_gone(
    fails: Say, trained: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(copytree(trained["vae"].path, tmp_path / "copy"))
    rmtree(copy / "checkpoints")
    journal = (copy / "journal.jsonl").read_bytes()
    assert "was finished, but" in fails("resume", copy)
    assert (copy / "journal.jsonl").read_bytes() == journal
    steps = Run(copy).journal[-1]["step"]
    zeuxis.resume(copy, steps=steps + 1, progress=False)
    assert f"so the {steps:,} steps of" in capsys.readouterr().err


def test_damaged_files_spoil_no_list(trained: dict[str, Run], tmp_path: Path) -> None:
    for name, file, text in (
        ("a", "evaluation.json", '{"measures": [1], "step": 5}'), ("b", "journal.jsonl", '{"step": 99}\n'),
        ("c", "evaluation.json", '{"measures": {"fid": {"value": "x"}}}'),
    ):  # fmt: skip
        (Path(copytree(trained["vae"].path, tmp_path / "runs" / name)) / file).write_text(text)
    result = CliRunner().invoke(cli.app, ["runs", "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 0 and all(f"{name} " in result.output for name in "abc")
    assert Curves(tmp_path / "runs" / "b" / "journal.jsonl").last == {}
    with pytest.raises(UserError, match="There is no order 'x'"):
        zeuxis.runs(tmp_path / "runs", sort="x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_place_of_a_file_is_refused(fails: Say, trained: dict[str, Run], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "it is not a regular file" in fails("encode", trained["vae"].path, tmp_path / "pipe.png")
    for number, name in enumerate(("journal.jsonl", "evaluation.json", "environment.json", "checkpoints")):
        copy = Path(copytree(trained["vae"].path, tmp_path / "runs" / f"r{number}"))
        for pipe in list((copy / name).iterdir()) if name == "checkpoints" else [copy / name]:
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe)
    result = CliRunner().invoke(cli.app, ["runs", "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 0 and "r3" in result.output
    assert "is not a regular file" in fails("sample", tmp_path / "runs" / "r3", "-n", "1")
    assert "is not a regular file" in fails("report", tmp_path / "runs" / "r0")


def test_label_files_of_another_form(fails: Say, tmp_path: Path) -> None:
    for name, text, part in (
        ("metadata.jsonl", '["0.png"]', "Line 1 of .*metadata.jsonl is not a JSON object"),
        ("metadata.jsonl", '{"file_name": "0.png", "label": 1}\n{"file', "Line 2 of"),
        ("dataset.json", '{"labels": [3]}', "should hold pairs of a file and a label"),
        ("dataset.json", '{"labels": 3}', "should hold pairs"),
        ("dataset.json", "{", "is not valid JSON"),
        ("labels.json", '{"0.png": "a", "1.png": "b", "0.png": "c"}', "0.png is given twice, as 'a' and as 'c'"),
        (
            "labels.csv",
            'file,label,note\n0.png,a,\n1.png,b,"\n2.png,a,\n',
            "labels.csv is not valid CSV: .*is a quote not closed",
        ),
        (
            "labels.csv",
            'file,label\n0.png,a\n1.png,"b\n2.png,a"\n3.png,a\n',
            "gives 1.png a label of several lines, 'b.*not closed",
        ),
    ):
        folder = tmp_path / f"{name}-{len(text)}"
        for i in range(12):
            jpeg(folder / f"{i}.png")
        (folder / name).write_text(text)
        assert re.search(part, fails("data", "info", folder, "--size", "16"))


def test_links_and_files_in_the_place_of_runs(fails: Say, trained: dict[str, Run], runs: Path, tmp_path: Path) -> None:
    run = Path(copytree(trained["vae"].path, runs / "own"))
    (runs / "link").symlink_to(run)
    assert f"link is a link to {run.resolve()}" in fails("runs", "rm", "link", "--yes")
    assert f"{run / 'recipe.toml'} is a file; a run is a folder" in fails("sample", run / "recipe.toml")
    (run / "notes.json").write_text('{"note": "mi')
    assert "notes.json is damaged; correct it" in fails("runs", "star", "own")
    (run / "evaluation.json").write_text("[" * 100_000)
    assert [entry.name for entry in zeuxis.runs()] == ["link", "own"]
    (run / "lock").unlink(missing_ok=True)
    (run / "lock").mkdir()
    assert f"{run / 'lock'} cannot be written: it is a folder" in fails("resume", run, "--steps", "90")


def test_folders_that_are_nearly_a_split(fails: Say, tmp_path: Path) -> None:
    for part, kinds in (("train", "ab"), ("test", "abc")):
        for kind in kinds:
            for i in range(12):
                jpeg(tmp_path / "set" / part / kind / f"{i}.png")
    assert "The class 'c' has images in the test part alone" in fails("data", "info", tmp_path / "set", "--size", "16")
    jpeg(tmp_path / "set" / "more" / "a" / "1.png")
    said = fails("data", "info", tmp_path / "set", "--size", "16")
    assert "test and train are the parts of a split, and more stands beside them" in said


def test_arrays_that_are_none(fails: Say, tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("hello")
    assert "it is no file of NumPy's" in fails("data", "info", tmp_path / "text.npy", "--size", "16")
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    np.savez(tmp_path / "half.npz", x_train=images, x_test=images, y_train=np.arange(20) % 2)
    assert "has labels in y_train, but no y_test" in fails("data", "info", tmp_path / "half.npz", "--size", "16")
    np.save(tmp_path / "one.npy", images[0, :, :, None].repeat(3, 2).repeat(4, 0))
    assert "that of a single image" in fails("data", "info", tmp_path / "one.npy")


def test_arrays_that_are_not_used_are_told(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    np.savez(tmp_path / "more.npz", images=images, Y=np.arange(20) % 2, angle=np.arange(20), mask=images)
    told = arrays(tmp_path / "more.npz")
    assert told.classes == ["0", "1"] and told.left_out == {"mask": "not used"}
    assert str(told.notes[0]) == "1 array is left out (not used), such as mask."


@pytest.mark.parametrize(("images", "part"), [
    ([np.zeros((8, 8)), np.zeros((8, 9))], r"their shapes differ, as \(8, 8\) and \(8, 9\)"),
    (np.ma.masked_equal(np.eye(8)[None], 0), "Some images are masked"),
    ((np.zeros((9, 8, 8)), [1, [2]]), "The labels do not make one array"),
    ([None], "values of type object"),
])  # fmt: skip
def test_what_is_no_array_of_images(images: Any, part: str) -> None:
    with pytest.raises(UserError, match=part):
        store(images)


def test_tensors_are_images_too() -> None:
    pixels = torch.rand(9, 8, 8)
    for tensor in (pixels.requires_grad_(), pixels.to_sparse(), pixels.bfloat16()):
        assert arrays(store(tensor)).count == 9


@pytest.mark.parametrize(("values", "part"), [
    (np.full(40, 3.0), "is the same for all training images"), (np.linspace(1e307, 1.7e308, 40), "too large"),
])  # fmt: skip
def test_numbers_that_say_nothing(fails: Say, tmp_path: Path, values: np.ndarray, part: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, num=values)
    asked = ["--data", tmp_path / "set.npz", "--set", 'data.numbers=["num"]', "--steps", "1"]
    assert part in fails("train", "digits-cgan", *asked)


def test_calls_from_python_are_refused_in_words(trained: dict[str, Run], tmp_path: Path) -> None:
    run, size = trained["vae"], trained["vae"].latent_size
    images = run.test_images(4)[0]
    for call, part in (
        (lambda: run.decode(np.zeros(size)), "Latents should be at least one row"),
        (lambda: run.decode(np.zeros((2, size + 1))), f"rows? of {size} numbers"),
        (lambda: run.decode(np.full((1, size), np.nan)), "should be finite"),
        (lambda: run.decode(np.zeros((0, size))), "at least one row"),
        (lambda: run.encode(np.zeros((0, 16, 16, 1))), "There are no images"),
        (lambda: run.encode(np.full((1, 16, 16, 1), np.inf)), "NaN or infinite"),
        (lambda: run.read_files([]), "name at least one"),
        (lambda: run.sample(2.5), "whole number, not 2.5"),
        (lambda: run.sample(2, seed=1.5), "seed should be a whole number"),
        (lambda: run.encode(images * 2 - 1), "values in 0..1, or be bytes; these are from -1 to 1"),
        (lambda: run.reconstruct((images * 255).astype(int)), "values in 0..1"),
        (lambda: run.encode("x"), "values of type <U1"),
        (lambda: run.encode(None), "values of type object"),
        (lambda: run.decode([[0.0], [0.0, 1.0]]), "latents do not make one array: their shapes differ"),
        (lambda: run.images([-1]), "whole numbers from 0 to 1,796, not"),
        (lambda: run.labels(np.array([10**6])), "whole numbers from 0 to 1,796"),
        (lambda: run.test_images(-1), "at least 1, not -1"),
        (lambda: run.test_images("all"), "n should be a whole number, not 'all'"),
        (lambda: run.choose_images("tset"), "There is no part of the images 'tset'. Did you mean 'test'"),
        (lambda: run.encode_files("a.png"), "paths should be a list, not 'a.png'"),
        (lambda: run.interpolate(1, 2, steps=2.5), "steps should be a whole number"),
        (lambda: run.show(4, columns=0), "columns should be from 1"),
        (lambda: trained["cgan"].condition_of_labels(np.array([99])), "Labels should be whole numbers from 0 to 9"),
        (lambda: trained["cgan"].condition_of("7"), "names should be a list"),
        (lambda: zeuxis.train("digits-vae", steps=1, epochs=3), "give one of epochs, steps and minutes"),
        (lambda: zeuxis.train(3), "train: recipe should be text or a Path, not 3"),
        (lambda: zeuxis.train("digits-vae", track="mlflow"), "track should be a list, not 'mlflow'"),
        (lambda: zeuxis.train("digits-vae", callbacks=[3]), "callbacks should hold a Callback"),
        (lambda: zeuxis.train("digits-vae", steps=1, settings={"training.steps": 9}), "given twice: 1 and 9"),
        (lambda: zeuxis.train("digits-vae", size=16, settings={"data.size": 16}), "The size is given twice"),
        (lambda: zeuxis.evaluate(run, only="fid"), "only should be a list"),
        (lambda: zeuxis.sweep("digits-vae", {"model.latent": "2,3"}), "The values of model.latent should be a list"),
        (lambda: zeuxis.sweep("digits-vae", {"model.latent": 5}), "over should be a list"),
        (lambda: zeuxis.train("digits-vae", (images.repeat(3, 0), list(range(12)))), "each class has one image alone"),
        (lambda: zeuxis.compare("ab"), "runs should be a list"),
        (lambda: run.encode(images, np.ones((4, 10))), "is not conditional, so encode takes no condition"),
        (lambda: run.decode(run.latents(2), [1]), "is not conditional, so decode takes no condition"),
        (lambda: trained["cgan"].decode(trained["cgan"].latents(2), np.ones((2, 3))), "2 rows of 10 numbers"),
        (lambda: trained["cgan"].in_turn(3, -1), "The images of a class should be from 1"),
        (lambda: run.figure("directions", count=2.5), "a whole number from 1 to 10,000"),
        (lambda: export(run, "onnx", tmp_path / "out", layout="hwcn"), "layout should be 'nhwc' or 'nchw'"),
        (lambda: zeuxis.compare([run, trained["gan"]], samples=0), "The number of samples should be from 100"),
        (lambda: run.figure(["latents"]), "Run.figure: name should be text"),
        (lambda: run.samples(10)[0:1], "A batch is chosen by its number, from 0 to 0, not by slice"),
        (lambda: Run(5), "opened by the path of its folder, not by 5"),
        (lambda: project(run, images[0], judge=run), "has no features to measure in"),
        (lambda: project(run, images[0], steps=4.5), "project: steps should be a whole number"),
        (lambda: zeuxis.compare([run, trained["gan"]], "."), "its name should end in .html"),
        (lambda: zeuxis.load(None), "path should be text or a Path, not None"),
        (lambda: run.names_of("lossy"), "Run.names_of: roles should be 'loss', 'term'"),
        (lambda: zeuxis.load(""), "by its name, not by an empty text"),
        (lambda: zeuxis.load(run.path, trsut=True), "load has no argument 'trsut'. Did you mean 'trust'"),
        (lambda: zeuxis.train(steps=1), "train: missing a required argument: 'recipe'"),
        (lambda: zeuxis.runs_dir(3), "runs_dir: given should be text or a Path"),
        (lambda: run.sample(3, sed=3), "Run.sample has no argument 'sed'. Did you mean 'seed'"),
        (lambda: run.sample(0), "The number of images should be"),
        (
            lambda: run.encode(np.zeros((16, 16))),
            r"have the shape \(16, 16\); they should be several, as image\[None\]",
        ),
        (
            lambda: run.latents_of_samples(2, condition="x"),
            "is not conditional, so latents_of_samples takes no condition",
        ),
        (lambda: zeuxis.evaluate(run, judge="random:3"), "The judge 'random' has no options; leave out ':3'"),
        (lambda: zeuxis.benchmark(["vae", "gan"], "digits", images=-3), "The number of images should be"),
        (lambda: zeuxis.train("digits-vae", settings={"model.latent": None}), "'?model.latent'? is given as None"),
        (lambda: zeuxis.runs(matching=None), "matching should be text"),
    ):
        with pytest.raises(UserError, match=part):
            call()
    assert run.sample(np.int64(2), seed=np.int64(3)).shape == (2, 16, 16, 1)
    assert not len(run.images([]))
    assert run.interpolate(1, 2, steps=3).shape == run.interpolate("1", "2", steps=3).shape


def test_files_have_the_permissions_that_the_mask_leaves(tmp_path: Path) -> None:
    script = "from pathlib import Path; from zeuxis.files import write_file; write_file(Path('x.txt'), 'x')"
    for mask in (0o022, 0o077):
        subprocess.run([sys.executable, "-c", f"import os; os.umask({mask}); {script}"], check=True, cwd=tmp_path)
        assert (tmp_path / "x.txt").stat().st_mode & 0o777 == 0o666 & ~mask
        (tmp_path / "x.txt").unlink()


def test_options_that_have_no_use_are_refused(fails: Say, trained: dict[str, Run], tmp_path: Path) -> None:
    run = trained["vae"].path
    assert "drop -n" in fails("reconstruct", run, jpeg(tmp_path / "a.png"), "-n", "3")
    assert "give one of them" in fails("evaluate", run, "--json", "--to", "csv")
    assert "cannot be combined" in fails("runs", "--json", "--csv")
    twice = ["--set", "training.batch_size=9", "--set", "training.batch_size=8"]
    assert "training.batch_size is given twice: 9 and 8" in fails("train", "digits-vae", *twice)
    assert "given twice: 4 and 9" in fails("train", "digits-vae", "--steps", "4", "--set", "training.steps=9")
    assert "The size is given twice" in fails("train", "digits-vae", "--size", "32", "--set", "data.size=32")
    assert "'k' is given twice" in fails("summary", "digits-vae", "--set", 'networks.encoder.layers=["conv 3 k3 k5"]')
    assert "from 1 to 255, not 0" in fails("summary", "digits-vae", "--set", 'networks.encoder.layers=["conv 3 k0"]')
    assert "name should end in .csv" in fails("runs", "journal", run, "--csv", "--out", tmp_path / "a.png")
    steps = ["--direction", "1=-3", "--direction", "1=3"]
    assert "1 is given twice: -3.0 and 3.0" in fails("edit", run, tmp_path / "a.png", *steps)
    assert "should be a name and a number of steps" in fails("edit", run, tmp_path / "a.png", "--attribute", "7")
    assert "--layout nchw is of no use to hub" in fails("export", run, "--to", "hub", "--layout", "nchw")
    varied = ["sweep", "digits-vae", "--over", "training.steps=2,3", "--steps", "5"]
    assert "training.steps is varied, and training.steps is given as well" in fails(*varied)
    both = ["benchmark", "--models", "vae,gan", "--data", "digits", "--images", "100", "--set", "training.epochs=1"]
    assert "training.epochs is given besides the budget" in fails(*both)
    for classes in ("", "1,,2"):
        assert "lacks the name of a class" in fails("train", "digits-vae", "--classes", classes)
    absent = tmp_path / "absent"
    assert f"--images {absent} is not a folder" in fails("studio", "--no-browser", "--images", absent)
    path = ["train", "digits-vae", "--set", "data.path=/nowhere"]
    assert "The data source 'digits' takes no path, and data.path is '/nowhere'" in fails(*path)
    ahead = ["train", "digits-vae", "--set", 'training.optimizer={name="sgd",nesterov=true}']
    assert "nesterov looks ahead along the momentum, which is 0" in fails(*ahead)
    betas = fails("train", "digits-vae", "--set", "training.optimizer.betas=[0.5]")
    assert "training.optimizer.betas should have 2 values or more" in betas
    threads = fails("train", "digits-vae", "--set", "training.threads=0")
    assert threads.endswith("training.threads should be greater than or equal to 1 or 'auto', not 0.")
    (tmp_path / "file").write_text("x")
    assert f"{tmp_path / 'file'} is a file" in fails("project", run, tmp_path / "a.png", "--out", tmp_path / "file")


def test_control_characters_in_names_are_escaped(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.array(["a\x1b[31m", "b\nc"] * 10))
    result = CliRunner().invoke(cli.app, ["data", "info", str(tmp_path / "set.npz"), "--out", str(tmp_path / "x.png")])
    assert result.exit_code == 0 and "a\\x1b[31m 10, b\\nc 10" in result.output


@pytest.mark.parametrize(
    "setting", ["training.steps=true", 'training.seed="2"', "model.latent=true", "model.kl_weight=true"]
)
def test_what_is_no_number_is_not_made_one(fails: Say, setting: str) -> None:
    said = fails("train", "digits-vae", "--set", setting)
    assert f"{setting.partition('=')[0]}: this should be a" in said and " number, not " in said
