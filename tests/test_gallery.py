"""The gallery's maker: its commands train such a run again, and its pages say what was measured."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import zeuxis
from zeuxis.errors import UserError
from zeuxis.models import build_model
from zeuxis.recipe import load_recipe, recipe_names
from zeuxis.run import Run
from zeuxis.training import completed

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    import benchmarks.documents.gallery as module

    monkeypatch.setattr(module, "GALLERY", tmp_path / "gallery")
    return module


def test_the_command_trains_such_a_run_again(gallery: ModuleType, tmp_path: Path) -> None:
    settings = {
        "model.label_smoothing": 0.1, "training.batch_size": 16, "training.optimizer.betas": [0.5, 0.9],
        "data.classes": ["3", "8"], "training.test_every": "never", "training.precision": "float32",
    }  # fmt: skip
    run = zeuxis.train("digits-gan", steps=2, settings=settings, seed=4, runs=tmp_path, progress=False)
    zeuxis_, train, name, *words = shlex.split(gallery.command(run))
    assert (zeuxis_, train, name) == ("zeuxis", "train", "digits-gan")
    overrides = {}
    for key, value in zip(words[::2], words[1::2], strict=True):
        if key == "--set":
            path, _, given = value.partition("=")
            overrides[path] = given
        else:
            overrides[f"training.{key.removeprefix('--')}"] = value
    again = load_recipe(name, [f"{path}={value}" for path, value in overrides.items()])
    assert completed(build_model(again, run.classes).recipe) == run.recipe
    assert gallery.command(run).count("--") == 2 + len(settings), "and nothing that the recipe says already"


def test_pages_say_what_was_measured(gallery: ModuleType, trained: dict[str, Run]) -> None:
    gallery.write_page(trained["vae"])
    gallery.write_index({"digits-vae": "Seen and judged."})
    page = (gallery.GALLERY / "digits-vae.md").read_text("utf-8")
    numbers = json.loads((gallery.GALLERY / "digits-vae" / "numbers.json").read_text("utf-8"))
    mse = next(line["test/mse"] for line in trained["vae"].journal if line["step"] == trained["vae"].step)
    assert f"| test MSE, pixels in 0..1 | {mse:.5f} ± " in page
    assert "Seen and judged." in page
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert len(pictures) == len(numbers["figures"]) == gallery.MOST
    for picture in pictures:
        with Image.open(gallery.GALLERY / picture) as image:
            assert image.width <= gallery.WIDTHS[0]
    assert "digits-vae/strip.png" in (gallery.GALLERY / "index.md").read_text("utf-8")


def test_the_gallery_of_the_documentation_is_whole() -> None:
    """Every recipe has its page, and every page its pictures and what the eye says of them."""
    pages = sorted((ROOT / "docs" / "gallery").glob("*/numbers.json"))
    notes = tomllib.loads((ROOT / "docs" / "gallery" / "notes.toml").read_text("utf-8"))
    shown = [path.parent.name for path in pages]
    assert shown == sorted(notes)
    assert shown == sorted(recipe_names())
    for path in pages:
        numbers = json.loads(path.read_text("utf-8"))
        assert load_recipe(numbers["recipe"]).model.name == numbers["model"]
        for name, _, _ in numbers["figures"]:
            assert (path.parent / f"{name}.png").stat().st_size < 200_000, "small pictures only"


def test_the_queue_trains_least_trained_first_and_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks.documents import training_queue

    recipe = load_recipe("digits-vae")
    begun, fresh, ended = (training_queue.Training(recipe, {}, tmp_path / name) for name in ("begun", "fresh", "ended"))
    for training, epoch, seconds in ((begun, 6.0, 10.0), (ended, 0.5, 3 * 3600.0)):
        training.folder.mkdir()
        (training.folder / "recipe.toml").write_text(recipe.updated({"training.epochs": 60.0}).to_toml(), "utf-8")
        line = {"step": 300, "epoch": epoch, "seconds": seconds}
        (training.folder / "journal.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
    assert begun.share == pytest.approx(0.1)
    assert not begun.ended
    assert ended.ended, "three hours are the most that a recipe gets"
    assert sorted([begun, fresh], key=lambda training: training.share) == [fresh, begun]
    assert begun.command()[3:5] == ["resume", str(begun.folder)]
    assert fresh.command()[3:7] == ["train", "digits-vae", "--name", "fresh"]


def test_the_queue_takes_names_in_their_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks.documents import training_queue

    waiting = [training_queue.Training(load_recipe(name), {}, tmp_path) for name in ("digits-gan", "digits-vae")]
    queue = training_queue.Queue(tmp_path, 1, ["digits-vae", "digits-gan"])
    assert [training.recipe.name for training in queue._chosen(waiting)] == ["digits-vae", "digits-gan"]
    with pytest.raises(UserError, match=r"digits-vea.*digits-vae"):
        training_queue.Queue(tmp_path, 1, ["digits-vea"])._chosen(waiting)
