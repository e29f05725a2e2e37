"""Training without a recipe: what is chosen fits the images and the time, is said, and trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from zeuxis.choosing import SIZES, choose_recipe
from zeuxis.cli import app
from zeuxis.data import choose, load
from zeuxis.errors import UserError
from zeuxis.evaluation.judge import train_judge
from zeuxis.models import build_model
from zeuxis.run import Run


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of coloured pictures of 90x70 pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    numbers = np.random.default_rng(0)
    for kind, colour in (("rose", (220, 40, 60)), ("sunflower", (240, 200, 30))):
        (folder / kind).mkdir()
        for i in range(30):
            pixels = numbers.integers(0, 40, (70, 90, 3), np.uint8)
            pixels[20:50, 30:60] = colour
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return folder


def test_a_recipe_follows_from_images_and_time(photographs: Path) -> None:
    recipe, words = choose_recipe(choose(photographs))
    assert (
        recipe.model.name == "conditional-flow"
        and recipe.model.options["guidance"] == 1.5
        and recipe.data.size == (32, 32)
        and recipe.data.flip
    )
    assert recipe.training.minutes == 30 and "60 images of 90x70 pixels, in colour, in 2 classes" in words
    assert (
        "32x32 pixels (the time allows no more; 64 from 60 minutes on), for 30 minutes (--minutes changes that)"
        in words
    )
    sizes = [choose_recipe(choose(photographs), minutes=minutes)[0].data.size.width for minutes in (1, 30, 90, 5000)]
    assert sizes == [16, 32, 64, 64], "never much larger than the images"
    grey, words = choose_recipe(choose("digits"))
    assert (grey.data.channels, grey.data.flip, grey.data.size.setting) == (
        1,
        False,
        16,
    ) and "grey, in 10 classes" in words


def test_rare_classes_are_neither_asked_for_nor_judged_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path / "cache"))
    for name, count in (("common", 30), ("rare", 2)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (32, 32), (8 * i, 0, 0)).save(tmp_path / "set" / name / f"{i}.png")
    recipe, words = choose_recipe(choose(tmp_path / "set"), minutes=1)
    assert recipe.model.name == "flow" and "in 2 classes, with too few images of 'rare' to ask for one" in words
    dataset = load(recipe.data, progress=False)
    judge = train_judge(recipe.data, dataset.classes, dataset.fingerprint)
    assert not isinstance(judge, Run) and "more images of the class 'rare'" in capsys.readouterr().err


def test_one_thumbnail_does_not_decide_the_size(tmp_path: Path) -> None:
    for i in range(30):
        Image.new("RGB", (130, 128) if i else (20, 20), (8 * i, 0, 0)).save(tmp_path / f"{i}.png")
    recipe, words = choose_recipe(choose(tmp_path), minutes=90)
    assert recipe.data.size == (64, 64) and "20x20 to 130x128 pixels" in words


def test_images_without_classes_worth_asking_for_have_a_plain_flow(photographs: Path, tmp_path: Path) -> None:
    for i in range(12):
        Image.new("L", (40, 40), 10 * i).save(tmp_path / f"{i}.png")
    recipe, words = choose_recipe(choose(tmp_path))
    assert recipe.model.name == "flow" and "without classes" in words


@pytest.mark.parametrize("size", [*SIZES, 24, 96])
def test_networks_follow_from_the_size(size: int) -> None:
    recipe, _ = choose_recipe(choose("sprites"), size=size)
    assert build_model(recipe, ("a", "b", "c")).net("velocity").output_shape == (3, size, size)


@pytest.mark.parametrize("size", [8, 30, 1024])
def test_sizes_that_cannot_be_are_named(size: int) -> None:
    with pytest.raises(UserError, match=f"multiples of 8 from 16 to 512, not {size}"):
        choose_recipe(choose("digits"), size=size)


def test_train_needs_no_recipe(photographs: Path, tmp_path: Path) -> None:
    words = ["train", "--data", str(photographs), "--steps", "3", "--runs", str(tmp_path), "--size", "16"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    run = Run(next(tmp_path.glob("photographs*-flow-16-1")))
    assert run.step == 3 and run.sample(2, label="rose").shape == (2, 16, 16, 3)
    for wrong, expected in (
        (["train"], "Name a recipe"),
        (["train", "--data", "digits", "--minutes", "-1"], "takes more than 0 minutes, not -1"),
        (["train", "--data", "digits", "--minutes", "nan"], "takes more than 0 minutes, not nan"),
        (["train", "digits-vae", "--size", "20"], "multiples of 8 from 16 to 512, not 20"),
    ):
        error = CliRunner().invoke(app, wrong).exception
        assert isinstance(error, UserError) and expected in str(error)
