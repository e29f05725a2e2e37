"""Where a stranger begins: recipes in groups, a recipe of one's own, what would be chosen, what a budget takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from zeuxis.cli import app
from zeuxis.data import choose
from zeuxis.errors import UserError
from zeuxis.guide import groups, origin_in_words
from zeuxis.models import build_model
from zeuxis.recipe import load_recipe, recipe_names
from zeuxis.report import run_report
from zeuxis.run import Run
from zeuxis.starter import write_starter
from zeuxis.training.callbacks import display
from zeuxis.training.callbacks.display import Display


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / 'my "pictures"'
    folder.mkdir()
    numbers = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(numbers.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def call(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


# -- groups -------------------------------------------------------------------------------------------


def test_every_recipe_is_in_one_group() -> None:
    listed = [recipe.name for group in groups() for recipe in group.recipes]
    assert sorted(listed) == recipe_names()
    titles = [group.title for group in groups()]
    assert [title.partition(":")[0] for title in titles[:4]] == ["Start here"] * 3 + ["Systems of the report on digits"]
    for group in groups()[:3]:
        assert all(recipe.name.startswith(("modern-", "projected-")) for recipe in group.recipes)
    flowers = next(group for group in groups() if group.title == "Systems of the report on flowers")
    assert [recipe.origin for recipe in flowers.recipes] == ["F1", "F2", "F3", "F4", "F5", "F7", "F7", "F7"]


def test_a_group_is_named_by_what_reproduces_it() -> None:
    from zeuxis.study.reproduce import reports

    named = {match[1] for group in groups() if (match := re.search(r"zeuxis reproduce ([\w-]+)", group.text))}
    assert named == set(reports())


def test_the_list_begins_where_a_stranger_should() -> None:
    out = call("recipes")
    assert out.startswith("Start here: small grey images") and not re.search(r"\b[ABDFS]\d\b", out)
    some = call("recipes", "flowers")
    assert "Start here" not in some and some.count("flowers-gan-128") == 1


def test_codes_are_explained(trained: dict[str, Run], short_reports: None, tmp_path: Path) -> None:
    assert origin_in_words("F3") == "system 3 of the report on flowers"
    assert origin_in_words("beyond A2") == "newer than system 2 of the first report on faces"
    assert origin_in_words("Somebody et al., 2020") == "Somebody et al., 2020" and origin_in_words("") == ""
    page = run_report(trained["gan"], tmp_path / "report.html").read_text()
    assert "(system 2 of the report on digits, at a quarter of its size)" in page


# -- a recipe of one's own ----------------------------------------------------------------------------


def test_a_starter_is_valid_and_so_is_every_comment_in_it(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures.parent)
    path = Path(call("init", "mine", "--data", pictures.name).split("\n")[0])
    assert path == Path("mine.toml")
    recipe = load_recipe(path)
    assert recipe.data.path and Path(recipe.data.path).samefile(pictures) and recipe.data.channels == 3
    assert recipe.data.flip and recipe.training.minutes == 30
    text = path.read_text()
    commented = [line for line in text.splitlines() if line.startswith("#! ")]
    assert len(commented) >= 10
    everything = pictures.parent / "everything.toml"
    everything.write_text(text.replace("#! ", ""))
    whole = load_recipe(everything, {"name": "mine"})
    assert whole == recipe, "the comments name the values that hold"
    for line in commented:
        assert tomllib.loads(line.removeprefix("#! "))
    with pytest.raises(UserError, match=r"There is no recipe 'mine'\. Did you mean 'mine\.toml'\?"):
        load_recipe("mine")
    with pytest.raises(UserError, match=r"mine\.toml exists already"):
        write_starter("mine")


def test_a_starter_without_images_trains_on_the_digits(tmp_path: Path) -> None:
    recipe = load_recipe(write_starter("first.toml", folder=tmp_path))
    assert (recipe.name, recipe.data.source, recipe.data.channels, recipe.data.flip) == ("first", "digits", 1, False)
    text = (tmp_path / "first.toml").read_text().replace("#! ", "")
    (tmp_path / "all.toml").write_text(text)
    assert load_recipe(tmp_path / "all.toml", {"name": "first"}) == recipe
    with pytest.raises(UserError, match="cannot name a recipe"):
        write_starter("../up")
    with pytest.raises(UserError, match="nowhere"):
        write_starter("lost", {"data.source": "folder", "data.path": "nowhere"}, tmp_path)
    assert not (tmp_path / "lost.toml").exists()


# -- what would be chosen -----------------------------------------------------------------------------


def test_summary_shows_the_recipe_that_would_be_chosen(pictures: Path) -> None:
    result = CliRunner().invoke(app, ["summary", "--data", str(pictures), "--minutes", "90"])
    assert "12 images of 50x40 pixels" in " ".join(result.stderr.split()) and "flow-32: velocity" in result.stdout
    assert "flow-64: velocity" in call("summary", "--data", str(pictures), "--size", "64")
    assert "modern-gan-128: generator" in call("summary", "modern-gan-64", "--size", "128")
    with pytest.raises(UserError, match="Name a recipe"):
        call("summary")


# -- what a budget takes ------------------------------------------------------------------------------


def test_training_says_what_the_budget_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(display, "time", SimpleNamespace(perf_counter=lambda: now))

    def told(budget: tuple[str, float], began: float, each: int = 1) -> str:
        nonlocal now
        shown = Display()
        trainer = SimpleNamespace(
            images=0, progress=began, step=0, epoch=0.0, complete=False, folder=Path("run"), spent=(budget[0], 0.0),
            options=SimpleNamespace(budget=budget), model=build_model(load_recipe("digits-vae"), None), warm=False,
        )  # fmt: skip
        shown.begin(trainer)  # type: ignore[arg-type]
        now += 30  # the first iteration is slow, and does not count
        for _ in range(100):
            trainer.progress += 0.0001
            trainer.step += each
            shown.iterated(trainer)  # type: ignore[arg-type]
            now += 1
        shown.end(trainer)  # type: ignore[arg-type]
        return " ".join(capsys.readouterr().err.split())

    first = told(("epochs", 60.0), 0.0)
    assert first.count("The whole budget of 60 epochs takes about 2.8 hours at this speed.") == 1
    assert "The rest takes about 83 minutes at this speed." in told(("steps", 1000), 0.5)
    assert "minutes are about" not in told(("minutes", 30.0), 0.0, each=10)
    few = told(("minutes", 30.0), 0.99)
    assert "30 minutes are about 100 steps" in few and "Give it 90 minutes or more." in few, "no size is smaller"


def test_choose_is_what_init_takes(pictures: Path) -> None:
    assert load_recipe(write_starter("x", choose(pictures), pictures.parent)).data.source == "folder"
