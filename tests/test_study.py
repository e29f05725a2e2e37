"""Many runs as one question: budgets are equal, what is done is kept, what was stopped goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import zeuxis
from zeuxis.errors import UserError
from zeuxis.recipe import load_recipe
from zeuxis.run import Run
from zeuxis.study import Axis, Part, benchmark, compare, parse_axis, sweep, train_all
from zeuxis.study.benchmark import recipe_for, steps_for
from zeuxis.study.search import Trials
from zeuxis.training import finished

pytestmark = pytest.mark.usefixtures("short_reports")

SHORT = {"training.steps": 6, "training.test_every": "never", "training.snapshot_every": "never"}


def stamps(folder: Path) -> dict[str, int]:
    """When the journal of each run was last written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/journal.jsonl")}


def test_a_benchmark_gives_all_the_same_budget_and_repeats_nothing(tmp_path: Path) -> None:
    again = {"images": 200, "seeds": 2, "samples": 100, "progress": False}
    path = benchmark(["vae", "cgan"], "digits", tmp_path, **again).path
    runs = sorted(folder.parent.name for folder in tmp_path.glob("*/recipe.toml"))
    assert runs == [f"digits-{model}-seed-{seed}" for model in ("cgan", "vae") for seed in (0, 1)]
    for name in runs:
        run = Run(tmp_path / name)
        assert 200 <= run.journal[-1]["images"] < 200 + run.recipe.training.batch_size
        assert run.recipe.training.seed == int(name[-1])
    results = json.loads((tmp_path / "benchmark.json").read_text("utf-8"))
    assert [row["run"] for row in results] == [f"digits-{m}-seed-{s}" for m in ("vae", "cgan") for s in (0, 1)]
    assert all(row["measures"]["fid"]["features"] == "digits-cnn" for row in results)
    text = path.read_text("utf-8")
    assert "Means over 2 trainings" in text and "vae, cgan on digits, 200 images each" in text
    before = stamps(tmp_path)
    benchmark(["vae", "cgan"], "digits", tmp_path, **again)
    assert stamps(tmp_path) == before
    with pytest.raises(UserError, match=r"other settings \(training.steps\)"):
        benchmark(["vae", "cgan"], "digits", tmp_path, **(again | {"images": 400}))


def test_what_was_killed_goes_on(tmp_path: Path) -> None:
    part = Part("one", load_recipe("digits-vae", SHORT))
    zeuxis.train(
        "digits-vae", steps=3, settings={**SHORT, "training.steps": 3}, runs=tmp_path, name="one", progress=False
    )
    (tmp_path / "one" / "recipe.toml").write_text(
        (tmp_path / "one" / "recipe.toml").read_text("utf-8").replace("steps = 3", "steps = 6"), "utf-8"
    )
    assert not finished(tmp_path / "one")
    runs = train_all([part, part._replace(name="two")], tmp_path, progress=False)
    assert [run.step for run in runs.values()] == [6, 6]
    assert finished(tmp_path / "one")
    weights = [run.model.net("decoder").state_dict() for run in runs.values()]
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0]), "as if it had never been"


def test_budgets_count_images(tmp_path: Path) -> None:
    assert steps_for(load_recipe("digits-vae", {"training.batch_size": 32}), 100) == 4
    critic = load_recipe("mnist-wgan-gp", {"training.batch_size": 32, "data.source": "digits", "data.convert": True})
    assert steps_for(critic, 32 * 5 * 7) == 7, "five critic updates, each with a batch of its own"
    fooled = {"training.batch_size": 32, "model.generator_updates": 3}
    assert steps_for(load_recipe("digits-gan", fooled), 3200) == 100, "further updates of the generator read none"
    gathered = {"training.batch_size": 32, "training.accumulate": 4}
    assert steps_for(load_recipe("digits-gan", gathered), 3200) == 25


@pytest.mark.parametrize(
    ("name", "data", "size", "recipe"),
    [
        ("vae", "digits", None, "digits-vae"),
        ("gan", "sprites", None, "flowers-gan-32-z256"),
        ("mnist-cgan", "mnist", None, "mnist-cgan"),
        ("infogan", "mnist", None, "infogan-62-10-2"),
        ("gan", "fashion-mnist", None, "fashion-gan-z8"),
        ("cvae", "fashion-mnist", None, "mnist-cvae"),
        ("gan", "celeba", None, "faces-dcgan-64"),
        ("gan", "sprites", 64, "faces-dcgan-64"),
        ("acgan", "celeba", None, "faces-acgan-64-z100"),
    ],
)
def test_the_recipe_of_a_model(name: str, data: str, size: int | None, recipe: str) -> None:
    found = recipe_for(name, data, size, {})
    assert found.name == recipe
    assert found.data.source == data


def test_a_benchmark_takes_recipe_files(tmp_path: Path) -> None:
    mine = tmp_path / "wider.toml"
    mine.write_text('extends = "digits-vae"\n[model]\nname = "vae"\nlatent = 3\n', "utf-8")
    compared = benchmark(["vae", str(mine)], "digits", tmp_path / "runs", images=64, samples=100, progress=False)
    runs = [Run(tmp_path / "runs" / f"{name}-seed-0") for name in ("digits-vae", "wider")]
    assert [run.recipe.model.options["latent"] for run in runs] == [2, 3]
    assert "wider" in compared.path.read_text("utf-8")


def test_mistakes_of_a_benchmark(tmp_path: Path) -> None:
    def run(names: list[str], data: str = "digits", **options: object) -> None:
        benchmark(names, data, tmp_path, **({"images": 10} | options), progress=False)

    with pytest.raises(UserError, match="one budget"):
        run(["vae", "gan"], minutes=1.0)
    with pytest.raises(UserError, match="at least two different"):
        run(["vae", "vae"])
    with pytest.raises(UserError, match="Did you mean 'vae'"):
        run(["vea", "gan"])
    with pytest.raises(UserError, match="The model 'aae' has no standard recipe for grey images of 16x16"):
        run(["vae", "aae"])
    with pytest.raises(UserError, match="one shape for all"):
        run(["vae", "modern-gan-28"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_repeats_stand_beside_their_run(tmp_path: Path) -> None:
    runs = [zeuxis.train(name, settings=SHORT, runs=tmp_path, progress=False) for name in ("digits-vae", "digits-gan")]
    path = compare(runs, tmp_path / "c.html", seeds=2, samples=100).path
    assert {folder.name for folder in tmp_path.glob("*-seed-1")} == {"digits-vae-1-seed-1", "digits-gan-1-seed-1"}
    assert "Means over 2 trainings" in path.read_text("utf-8")


def test_axes_are_parsed() -> None:
    assert parse_axis("model.kl_weight=0.01,0.1,1") == Axis("model.kl_weight", (0.01, 0.1, 1))
    assert parse_axis("model.loss=hinge,wasserstein").values == ("hinge", "wasserstein")
    assert parse_axis("model.latent=2..64") == Axis("model.latent", (), 2, 64)
    generator = np.random.default_rng(0)
    whole = [Axis("x", (), 0, 3).sample(generator) for _ in range(4000)]
    assert np.bincount(whole).min() > 900, "the ends as often as the others"
    narrow = [Axis("x", (), 0.0012345, 0.9996).sample(generator) for _ in range(4000)]
    assert min(narrow) >= 0.0012345 and max(narrow) <= 0.9996
    assert parse_axis("model.kl_weight=0.1..10") == Axis("model.kl_weight", (), 0.1, 10)
    for wrong in ("model.latent=8..2", "model.latent=", "model.latent=2,2"):
        with pytest.raises(UserError, match="such as"):
            parse_axis(wrong)


def test_a_grid_is_every_combination_and_draws_stay_in_range() -> None:
    axes = [Axis("a", (1, 2)), Axis("b", ("x", "y", "z"))]
    grid = [trial.settings for trial in Trials(axes, "grid")]
    assert len(grid) == len({tuple(settings.items()) for settings in grid}) == 6
    ranged = [Axis("w", (), 0.01, 10.0), Axis("n", (), 2, 64), Axis("a", (1, 2))]
    drawn = [trial.settings for trial in Trials(ranged, "random", 200)]
    assert drawn == [trial.settings for trial in Trials(ranged, "random", 200)], "the same again"
    weights = np.array([settings["w"] for settings in drawn])
    assert weights.min() >= 0.01 and weights.max() <= 10
    assert 0.4 < (weights < 0.316).mean() < 0.6, "on a logarithmic scale"
    assert {type(settings["n"]) for settings in drawn} == {int} and {settings["a"] for settings in drawn} == {1, 2}
    with pytest.raises(UserError, match="is a range"):
        Trials(ranged, "grid")
    with pytest.raises(UserError, match="Did you mean 'random'"):
        Trials(ranged, "randon")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--storage keeps a search by tpe"):
        Trials(axes, "grid", storage="search.db")


def test_an_estimator_draws_where_it_was_good_and_the_same_again() -> None:
    pytest.importorskip("optuna")

    def searched() -> list[float]:
        drawn = []
        trials = Trials([Axis("w", (), 0.01, 100.0)], "tpe", 40, 3)
        for trial in trials:
            drawn.append(trial.settings["w"])
            trials.tell(trial, abs(np.log(trial.settings["w"] / 2)))
        return drawn

    drawn = searched()
    assert drawn == searched()
    miss = np.abs(np.log(np.array(drawn) / 2))
    assert np.median(miss[25:]) < 0.6 * np.median(miss[:13])


@pytest.mark.slow
def test_a_sweep_draws_the_trade_off_and_goes_on(tmp_path: Path) -> None:
    recipe = load_recipe("digits-vae", SHORT)
    axes = [Axis("model.kl_weight", (0.5, 4)), Axis("model.latent", (2, 5))]
    path = sweep(recipe, axes, tmp_path, samples=100, progress=False).path
    rows = json.loads((tmp_path / "sweep.json").read_text("utf-8"))
    assert [row["settings"] for row in rows] == [
        {"model.kl_weight": weight, "model.latent": latent} for weight in (0.5, 4) for latent in (2, 5)
    ]
    assert all({"test_mse", "fid"} <= set(row["measures"]) for row in rows)
    assert Run(tmp_path / "kl_weight=4,latent=5").recipe.model.options["latent"] == 5
    assert (tmp_path / "sweep.png").stat().st_size > 20_000 and "over model.kl_weight" in path.read_text("utf-8")
    before = stamps(tmp_path)
    sweep(recipe, axes, tmp_path, samples=100, progress=False)
    assert stamps(tmp_path) == before
    with pytest.raises(UserError, match="two measures"):
        sweep(recipe, axes, tmp_path, shown=["fid"], progress=False)
    with pytest.raises(UserError, match=r"has no key 'model\.kl_wait'"):
        sweep(recipe, [Axis("model.kl_wait", (1, 2))], tmp_path, progress=False)


@pytest.mark.slow
def test_a_setting_that_diverges_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe("digits-vae", {**SHORT, "training.steps": 10, "training.log_every": 1})
    axes = [Axis("training.optimizer.learning_rate", (1e-4, 100.0, 1e-3))]
    sweep(recipe, axes, tmp_path, samples=100, progress=False)
    rows = json.loads((tmp_path / "sweep.json").read_text("utf-8"))
    assert [row["settings"]["training.optimizer.learning_rate"] for row in rows] == [1e-4, 1e-3]
    assert "learning_rate=100.0 is left out" in capsys.readouterr().err
    sweep(recipe, axes, tmp_path, samples=100, progress=False)


@pytest.mark.extra("optuna")
def test_a_search_needs_a_direction(tmp_path: Path) -> None:
    recipe, axes = load_recipe("digits-gan", SHORT), [Axis("model.latent", (4, 8))]
    with pytest.raises(UserError, match="has no better direction"):
        sweep(recipe, axes, tmp_path, search="tpe", trials=2, shown=["fid", "sharpness"], samples=100, progress=False)
    with pytest.raises(UserError, match="Did you mean 'fid'"):
        sweep(recipe, axes, tmp_path, shown=["fids", "sharpness"], samples=100, progress=False)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not a run"):
        train_all([Part("one", load_recipe("digits-vae", SHORT))], tmp_path, progress=False)
    assert (tmp_path / "one" / "notes.txt").read_text() == "mine"
