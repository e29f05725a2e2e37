"""Each measure against its definition, a closed form, or a brute force."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from PIL import Image
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter, laplace
from typer.testing import CliRunner

import zeuxis
from zeuxis.cli import app
from zeuxis.data import to_bytes
from zeuxis.errors import UserError
from zeuxis.evaluation import (
    Share,
    code_agreement,
    cost,
    energy_test,
    frechet_distance,
    label_agreement,
    mean_squared_error,
    sharpness,
)
from zeuxis.evaluation import judge as judge_module
from zeuxis.evaluation.cost import costs, sampling_multiply_adds, training_multiply_adds
from zeuxis.evaluation.evaluate import applicable, evaluate, evaluate_cached, read_evaluation
from zeuxis.evaluation.inception import Inception
from zeuxis.evaluation.judge import RandomFeatures, find_or_train_judge
from zeuxis.evaluation.judges import judges
from zeuxis.evaluation.kernel import kid
from zeuxis.evaluation.measure import Material, Value, chosen, has_classifier_of_its_classes
from zeuxis.evaluation.sharpness import sharp
from zeuxis.evaluation.support import support
from zeuxis.recipe import DataOptions
from zeuxis.run import Run


def test_the_frechet_distance_is_that_of_normal_distributions() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 6)) @ generator.normal(size=(6, 6)) + 1
    y = generator.normal(size=(400, 6)) @ generator.normal(size=(6, 6))
    one, two = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.trace(sqrtm(one @ two)).real
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(one + two) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + 3.0) == pytest.approx(6 * 9.0, rel=1e-6)
    assert frechet_distance(x, 2 * (x - x.mean(0)) + x.mean(0)) == pytest.approx(np.trace(one), rel=1e-6)
    assert frechet_distance(x[:, :1], y[:, :1]) > 0, "one feature will do"


def test_the_energy_distance_is_its_definition() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(30, 3)), generator.normal(size=(20, 3)) + 0.5

    def mean_distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([np.linalg.norm(i - j) for i in a for j in b]))

    expected = 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)
    assert energy_test(x, y, permutations=1).distance == pytest.approx(expected)


def test_the_two_sample_test_tells_equal_from_different() -> None:
    generator = np.random.default_rng(1)
    values = [energy_test(*generator.normal(size=(2, 60, 4)), seed=i, permutations=99).p_value for i in range(60)]
    assert 0.35 < np.mean(values) < 0.65, "uniform where the sets are equal"
    assert np.mean(np.array(values) < 0.1) < 0.25
    x = generator.normal(size=(200, 4))
    assert energy_test(x, generator.normal(size=(200, 4)) + 0.5).p_value < 0.01
    assert energy_test(x, 1.5 * generator.normal(size=(200, 4))).p_value < 0.01


def test_sharpness_is_lost_by_blur() -> None:
    images = np.random.default_rng(0).random((5, 24, 24, 3))
    by_hand = np.mean([np.var(laplace(image.mean(axis=2))[1:-1, 1:-1]) for image in images])
    assert sharpness(images) == pytest.approx(by_hand)
    assert sharpness(gaussian_filter(images, (0, 1, 1, 0))) < 0.1 * sharpness(images)
    assert sharpness(np.ones((2, 8, 8, 1))) == 0


class Mirror:
    """A model and its judge at once: an image's brightness is its class."""

    def __init__(self, classes: int, wrong: float) -> None:
        self.wrong, self.model = wrong, self
        self.class_names, self.conditional = tuple(map(str, range(classes))), True
        self.path = "mirror"

    def sample(self, n: int, seed: int) -> np.ndarray:
        shown = np.arange(n) % len(self.class_names)
        mistaken = np.random.default_rng(seed).random(n) < self.wrong
        return np.where(mistaken, (shown + 1) % len(self.class_names), shown).astype(float)

    def classify(self, images: np.ndarray) -> np.ndarray:
        return np.eye(len(self.class_names))[np.asarray(images, int)]


def test_the_scale_of_an_agreement_is_the_judges_accuracy(trained: dict[str, Run], tmp_path: Path) -> None:
    run = trained["cgan"]
    judge = find_or_train_judge(run)
    assert isinstance(judge, Run)
    found = evaluate(run, samples=150, judge=judge, only=["label_agreement_real"], progress=False)
    figure = found["measures"]["label_agreement_real"]
    held_out = run.choose_images("test", 150)
    right = judge.classify(run.images(held_out)).argmax(axis=1) == run.labels(held_out)
    assert figure["n"] == 150 and figure["value"] == pytest.approx(right.mean()) and figure["value"] > 0.9
    small = zeuxis.train("digits-cgan", steps=1, settings={"data.test_fraction": 0.05}, runs=tmp_path, progress=False)
    few = evaluate(small, samples=100, judge=judge, only=["label_agreement_real"], progress=False)
    assert re.search("at least 100 held-out images, and there are [0-9]{2}$", few["left_out"]["label_agreement_real"])


def test_label_agreement_is_the_share_that_is_right() -> None:
    assert label_agreement(Mirror(5, 0.0), Mirror(5, 0.0), n=100).value == 1.0
    assert Share.of(np.ones(3, bool)).stderr > 0.2, "three of three are no certainty"
    found = label_agreement(Mirror(5, 0.2), Mirror(5, 0.0), n=4000)
    assert found.value == pytest.approx(0.8, abs=3 * found.stderr)
    assert found.stderr == pytest.approx(np.sqrt(0.16 / 4000), rel=0.05)
    with pytest.raises(UserError, match="it knows the classes 0, 1, but not 2, 3"):
        label_agreement(Mirror(4, 0.0), Mirror(2, 0.0))


def test_code_agreement_matches_values_to_classes_one_to_one(trained: dict[str, Run]) -> None:
    from zeuxis.models import Code

    class Coded(Mirror):
        codes = (Code("categorical 1", 0, 4), Code("continuous 1", 4, 1))

        def latents_of_samples(self, n: int, seed: int) -> np.ndarray:
            drawn = np.random.default_rng(seed).integers(4, size=n)
            return np.concatenate([np.eye(4)[drawn], np.zeros((n, 1))], axis=1)

        def decode(self, latents: np.ndarray) -> np.ndarray:
            value = latents[:, :4].argmax(axis=1)
            return np.array([2, 0, 3, 3])[value]  # two values show the same class

    found = code_agreement(Coded(4, 0.0), Mirror(4, 0.0), n=4000)
    assert set(found) == {"categorical 1"}
    assert found["categorical 1"].value == pytest.approx(0.75, abs=0.03)
    with pytest.raises(UserError, match="no categorical code"):
        code_agreement(trained["gan"], Mirror(4, 0.0))


def test_a_classifiers_features_decide_its_classes(tmp_path: Path) -> None:
    recipe = tmp_path / "judge.toml"
    recipe.write_text(
        '[data]\nsource = "digits"\nsize = 8\n[model]\nname = "classifier"\n[networks.classifier]\n'
        'layers = ["flatten", "dense 12", "relu", "dropout 0.2", "dense classes"]\n[training]\nsteps = 20\n'
    )
    run = zeuxis.train(recipe, runs=tmp_path, progress=False)
    images, _ = run.test_images(20)
    features = run.features(images)
    assert features.shape == (20, 12)
    logits = run.model.net("classifier").trunk[-1](torch.from_numpy(features))
    assert np.allclose(logits.softmax(1).detach().numpy(), run.classify(images), atol=1e-6)
    both = run.features_and_classes(images)
    assert np.array_equal(both[0], features) and np.allclose(both[1], run.classify(images), atol=1e-6)


def test_a_classifier_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = zeuxis.train("digits-cnn", steps=2, runs=tmp_path, progress=False)
    first = evaluate_cached(run, samples=100, progress=False)
    assert "makes no images" in first["left_out"]["sample_ms"]
    monkeypatch.setattr("zeuxis.evaluation.evaluate._measured", None)
    assert evaluate_cached(run, samples=100, progress=False) == first


def test_images_are_judged_once_for_all_measures(
    trained: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path))
    material = Material(trained["gan"], samples=200, judge=RandomFeatures((1, 16, 16)))
    seen: list[int] = []
    judged = RandomFeatures.features
    monkeypatch.setattr(RandomFeatures, "features", lambda self, x: seen.append(len(x)) or judged(self, x))
    for _ in range(2):
        assert material.sample_features.shape == material.reference_features.shape
        assert material.features_of("train") is material.reference_features, "there are few held-out images"
        assert material.features_of("test", 10_000) is material.features_of("test", 10**6)
    assert seen == [200, 200, len(trained["gan"].dataset.test)]


# What the data directory must hold for a judge, by the source of its images; the digits come along.
WANTED = {"mnist": "mnist-10k", "folder": "flowers.zip", "celeba": "celeba"}


def with_its_data(judge: Run) -> ParameterSet:
    source = judge.recipe.data.source
    marks = [pytest.mark.data(WANTED[source])] if source in WANTED else []
    return pytest.param(judge, id=judge.name, marks=marks)


@pytest.mark.parametrize("judge", [with_its_data(judge) for judge in judges()])
def test_a_judge_that_comes_along_is_as_right_as_it_says(judge: Run) -> None:
    said = min(judge.series("test/error")[1])
    chosen = judge.choose_images("test")
    wrong = judge.classify(judge.images(chosen)).argmax(axis=1) != judge.labels(chosen)
    # Held at half width: not one image in a thousand changes sides.
    assert wrong.mean() == pytest.approx(said, abs=3e-3)
    assert said < (0.35 if judge.recipe.data.source == "folder" else 0.1)


def test_an_evaluation_is_written_beside_the_run_and_read_while_it_fits(trained: dict[str, Run]) -> None:
    run = trained["vae"]
    written = zeuxis.evaluate(run, samples=200, progress=False)
    assert written["features"] == "digits-cnn" and written["samples"] == 200
    assert read_evaluation(run) == written == json.loads((run.path / "evaluation.json").read_text("utf-8"))
    found = written["measures"]
    assert {"fid", "kid", "precision", "recall", "test_mse", "elbo", "path_length", "support"} <= set(found)
    assert found["fid"]["features"] == "digits-cnn" and found["test_mse"]["features"] is None
    assert found["test_mse"]["value"] == pytest.approx(
        mean_squared_error(run.test_images()[0], run.reconstruct(run.test_images()[0])), rel=0.2
    )
    assert found["elbo"]["value"] <= found["importance_bound"]["value"]
    assert all(each["stderr"] is None or each["stderr"] >= 0 for each in found.values())
    # Of other weights than those that are shown it says nothing.
    (run.path / "evaluation.json").write_text(json.dumps(written | {"step": -1}), "utf-8")
    assert read_evaluation(run) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", "is damaged"),
        (lambda text: text[:-20], "is damaged"),
        (lambda text: "[" * 5000, "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: text.replace('"value": ', '"value": NaN, "was": ', 1), r"is damaged.*at measures\.fid\.value"),
        (lambda text: text.replace('"value": ', '"value": 1e999, "was": ', 1), "is damaged"),
        (lambda text: text.replace('"stderr": ', '"stderr": -1, "was": ', 1), "is damaged"),
        (lambda text: text.replace('"fid": ', '"fid": null, "fid_infinity": '), "is damaged"),
        (
            lambda text: text.replace('"fid": ', '"[/]\\u001b[2J": '),
            r"\[/\]\\x1b.* cannot be shown: there is no such measure",
        ),
        (lambda text: text.replace('"digits-cnn"', '"other"', 1), "is in other features"),
        (lambda text: text.replace('"step": ', '"step": "', 1).replace(",", '",', 2), "is damaged"),
        (lambda text: text.replace('"step": 40', '"step": 20'), r"of step 20, .* of step 40"),
    ],
)
def test_a_strangers_evaluation_is_read_with_care(
    change: Callable[[str], str],
    words: str,
    trained: dict[str, Run],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run(shutil.copytree(trained["vae"].path, tmp_path / "run"))
    path = run.path / "evaluation.json"
    path.unlink(missing_ok=True)
    assert read_evaluation(run) is None and not capsys.readouterr().err, "nothing was measured, so nothing is said"
    figure = {"value": 12.5, "stderr": 0.5, "n": 100, "features": "digits-cnn"}
    sound = {"run": "run", "step": 40, "features": "digits-cnn", "samples": 100, "seed": 0, "measures": {"fid": figure}}
    path.write_text(json.dumps(sound), "utf-8")
    found = read_evaluation(run)
    assert found is not None and found["measures"]["fid"]["value"] == 12.5 and not capsys.readouterr().err
    path.write_text(change(json.dumps(sound)), "utf-8")
    assert not (read_evaluation(run) or {"measures": {}})["measures"]
    said = capsys.readouterr().err
    assert re.search(words, said.replace("\n", " ")) and "evaluation.json" in said and "\x1b" not in said
    # Measured again, it is whole; what stood in a damaged one is not kept.
    written = evaluate(run, samples=100, only=["test_mse"], progress=False)
    assert set(written["measures"]) == {"test_mse"} and read_evaluation(run) == written


def few(path: Path, train: int, test: int) -> Path:
    """A folder of so many training and test images of noise."""
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        (path / part).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(generator.integers(0, 255, (16, 16), np.uint8)).save(path / part / f"{i}.png")
    return path


@pytest.mark.parametrize(
    ("train", "test", "left_out"),
    [
        (1, 1, {"fid", "kid", "precision", "recall", "support", "suspects", "active_latents"}),
        (3, 3, {"fid", "precision", "recall", "support", "suspects"}),
        (4, 4, {"precision", "recall", "support", "suspects"}),
        (12, 1, {"support", "suspects", "active_latents"}),
    ],
)
def test_few_images_give_wide_errors_or_a_reason(
    train: int, test: int, left_out: set[str], tmp_path: Path, runs: Path
) -> None:
    images = few(tmp_path / "few", train, test)
    settings = {"data.convert": True, "training.test_every": "never", "training.batch_size": 4}
    run = zeuxis.train("digits-vae", images, steps=2, settings=settings, progress=False)
    result = CliRunner().invoke(app, ["evaluate", run.name, "--samples", "100"])
    assert result.exit_code == 0, result.output
    assert f"Only {train} training images: treat these numbers as rough." in result.output
    text = (run.path / "evaluation.json").read_text("utf-8")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert left_out <= set(found["left_out"]) and not set(found["left_out"]) & set(found["measures"])
    assert set(found["left_out"]) | set(found["measures"]) == set(applicable(run))
    for name, reason in found["left_out"].items():
        assert name in result.output and reason in result.output.replace("\n", " ")
    assert found["measures"]["copying_pixels"]["stderr"] > 0.28 / np.sqrt(test)
    if test == 1:
        assert found["measures"]["elbo"]["stderr"] is None, "of one image nobody knows"
        drawn = CliRunner().invoke(app, ["figures", run.name])
        assert drawn.exit_code == 0 and "'prior' is left out: The spread of latents needs at least 2" in drawn.output
    assert read_evaluation(run) == found
    words = ["--seed", "1", "--samples", "100", "--only", "sharpness"]  # with another seed, nothing earlier is kept
    said = CliRunner().invoke(app, ["evaluate", run.name, *words]).output
    assert "sharpness" in said and "Distances are in the features of" not in said, "there is no distance"
    assert "Distances are in the features of" in result.output


def test_flat_images_have_no_sharpness_and_blocks_of_few_images_are_fewer(tmp_path: Path) -> None:
    flat: Any = SimpleNamespace(samples=np.full((5, 9, 9, 1), 7, np.uint8), reference=np.zeros((4, 9, 9, 1), np.uint8))
    assert "flat" in str(sharp(flat)["sharpness"])
    generator = np.random.default_rng(0)
    for count, groups in ((2, 1), (9, 4), (50, 10)):
        material: Any = SimpleNamespace(
            sample_features=generator.normal(size=(100, 3)), reference_features=generator.normal(size=(count, 3)),
            space="numbers",
        )  # fmt: skip
        found = kid(material)["kid"]
        assert isinstance(found, Value) and found.groups == groups and (found.stderr is None) == (groups == 1)


def test_listing_what_applies_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stripes = folder_of_stripes(tmp_path / "stripes", classes=True)
    run = zeuxis.train("digits-gan", stripes, steps=2, settings=GREY_FOLDER, runs=tmp_path, progress=False)
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("zeuxis.evaluation.judge.start", lambda *_: pytest.fail("a network is trained"))
    names = applicable(run)
    assert "fid" in names and "inception_score" not in names, "nobody tells classes yet"


def test_where_no_classifier_can_be_trained_random_features_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise UserError("A batch of one image has no spread.")

    stripes = folder_of_stripes(tmp_path / "stripes", classes=True)
    run = zeuxis.train("digits-gan", stripes, steps=2, settings=GREY_FOLDER, runs=tmp_path, progress=False)
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("zeuxis.evaluation.judge.start", refused)
    assert isinstance(find_or_train_judge(run), RandomFeatures)
    assert "a fixed network is the judge. A batch of one image" in " ".join(capsys.readouterr().err.split())


def test_an_evaluation_refuses_what_means_nothing(trained: dict[str, Run]) -> None:
    with pytest.raises(UserError, match="samples should be from 100 to 100,000, not 10"):
        evaluate(trained["vae"], samples=10)
    with pytest.raises(UserError, match=r"no measure 'fdi'\. Did you mean 'fid'"):
        evaluate(trained["vae"], samples=100, only=["fdi"])
    other = next(judge for judge in judges() if judge.name == "mnist-cnn")
    with pytest.raises(UserError, match=r"cannot judge .*: it takes images of"):
        evaluate(trained["vae"], samples=100, judge=other)


def test_multiply_adds_are_those_of_the_layers(tmp_path: Path) -> None:
    """Of dense layers: a product for each weight, forwards, for the weights' slope, and for the inputs' slope."""
    settings = {
        "data.size": 8, "model.latent": 5, "model.merged_batches": False,
        "networks.generator.layers": ["dense 12", "relu", "dense 64", "reshape 1x8x8", "tanh"],
        "networks.discriminator.layers": ["flatten", "dense 7", "lrelu 0.2", "dense 1"],
    }  # fmt: skip
    run = zeuxis.train("digits-gan", steps=1, settings=settings, runs=tmp_path, progress=False)
    generator, judge = 5 * 12 + 12 * 64, 64 * 7 + 7
    assert sampling_multiply_adds(run) == generator
    judging = generator + 2 * (judge + judge + 7)  # the slope by the images themselves is not needed
    fooling = 2 * judge + generator + 12 * 64  # the fakes are there already
    assert training_multiply_adds(run) == judging + fooling
    settings["model.generator_updates"] = 2  # on fakes of their own, and no further images
    run = zeuxis.train("digits-gan", steps=1, settings=settings, runs=tmp_path, progress=False)
    assert training_multiply_adds(run) == judging + fooling + generator + fooling


def test_multiply_adds_are_averaged_over_the_training(tmp_path: Path) -> None:
    """A second discriminator that joins after 3/4 of it, and sees half of each batch, adds an eighth of its own."""
    settings = {
        "data.size": 8, "model.latent": 5, "model.merged_batches": False, "model.second_after": 0.75,
        "model.second_share": 0.5, "networks.second_discriminator.layers": ["flatten", "dense 8"],
        "networks.generator.layers": ["dense 64", "reshape 1x8x8", "tanh"],
        "networks.discriminator.layers": ["flatten", "dense 1"],
    }  # fmt: skip
    run = zeuxis.train("digits-gan", steps=1, settings=settings, runs=tmp_path, progress=False)
    first, second = 64, 64 * 8
    of_generator = 2 * 5 * 64
    with_first = of_generator + 2 * (first + first) + 2 * first
    assert training_multiply_adds(run) == with_first + (2 * (second + second) + 2 * second) / 8


def test_multiply_adds_do_not_depend_on_the_kernels(tmp_path: Path) -> None:
    """On a CPU, `up` and the convolution after it are computed at once, with fewer."""
    settings = {
        "data.size": 8, "model.latent": 5,
        "networks.generator.layers": ["dense 32", "reshape 2x4x4", "up 2", "conv 3 k5", "conv 1 k3", "tanh"],
    }  # fmt: skip
    run = zeuxis.train("digits-gan", steps=1, settings=settings, runs=tmp_path, progress=False)
    assert sampling_multiply_adds(run) == 5 * 32 + 64 * (2 * 3 * 25 + 3 * 9)


def test_the_cost_of_every_kind_of_model_can_be_counted(trained: dict[str, Run]) -> None:
    for run in trained.values():
        found = costs(Material(run))
        assert found["parameters"].value == cost(run).parameters
        assert found["training_multiply_adds"].value > 2 * found["multiply_adds"].value > 0


def folder_of_stripes(path: Path, classes: bool) -> Path:
    """Noise with stripes across or down, in a folder for each or in one."""
    generator = np.random.default_rng(0)
    for name in ("across", "down"):
        (path / name if classes else path).mkdir(parents=True, exist_ok=True)
        for i in range(60):
            image = generator.normal(128, 20, (16, 16, 3))
            image[::2] += 60
            image = image if name == "across" else image.swapaxes(0, 1)
            pixels = np.clip(image, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path / (f"{name}/{i}.png" if classes else f"{name}-{i}.png"))
    return path


def train_judges_for(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges are trained for so many steps, however long a busy machine takes for them."""
    made = judge_module.classifier_recipe
    budget = {"training.minutes": None, "training.steps": steps}
    monkeypatch.setattr(judge_module, "classifier_recipe", lambda *given: made(*given).updated(budget))


GREY_FOLDER = {"data.size": 16, "data.convert": True, "training.test_every": "never"}


def test_a_classifier_is_trained_on_the_spot_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_judges_for(60, monkeypatch)
    stripes = folder_of_stripes(tmp_path / "stripes", classes=True)
    run = zeuxis.train("digits-gan", stripes, steps=2, settings=GREY_FOLDER, runs=tmp_path, progress=False)
    found = evaluate(run, samples=100, only=["kid", "inception_score"], progress=False)
    assert found["features"].startswith("stripes-cnn-16-") and "inception_score" in found["measures"]
    judge = find_or_train_judge(run)
    assert isinstance(judge, Run) and judge.classes == ("across", "down")
    chosen = judge.choose_images("test")
    assert (judge.classify(judge.images(chosen)).argmax(axis=1) == judge.labels(chosen)).mean() > 0.9
    stamp = (judge.path / "journal.jsonl").stat().st_mtime_ns
    assert evaluate(run, samples=100, only=["kid"], progress=False)["measures"]["kid"] == found["measures"]["kid"]
    assert (judge.path / "journal.jsonl").stat().st_mtime_ns == stamp


def test_images_without_classes_are_measured_in_random_features(tmp_path: Path) -> None:
    stripes = folder_of_stripes(tmp_path / "stripes", classes=False)
    run = zeuxis.train("digits-gan", stripes, steps=2, settings=GREY_FOLDER, runs=tmp_path, progress=False)
    found = evaluate(run, samples=100, progress=False)
    assert found["features"] == "random features 16x16x1" == found["measures"]["fid"]["features"]
    assert "inception_score" not in found["measures"], "nobody tells classes"


def test_a_judge_that_guesses_does_not_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_judges_for(10, monkeypatch)
    generator = np.random.default_rng(0)
    for name in ("heads", "tails"):
        (tmp_path / "coins" / name).mkdir(parents=True)
        for i in range(60):
            pixels = generator.integers(0, 255, (16, 16), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "coins" / name / f"{i}.png")
    run = zeuxis.train("digits-gan", tmp_path / "coins", steps=2, settings=GREY_FOLDER, runs=tmp_path, progress=False)
    assert isinstance(find_or_train_judge(run), RandomFeatures)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 64, 64)])
def test_random_features_know_noise_and_blur(shape: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(0)
    images = gaussian_filter(generator.uniform(size=(800, *shape[1:], shape[0])), (0, 1, 1, 0)) * 3 % 1
    judge = RandomFeatures(shape)
    assert np.array_equal(judge.features(images[:5]), RandomFeatures(shape).features(images)[:5])
    assert np.allclose(
        judge.features(images[:5]), judge.features((images[:5] * 255).round().astype(np.uint8)), atol=0.03
    )
    real, new = judge.features(images[:400]), images[400:]

    def distance(changed: np.ndarray) -> float:
        return frechet_distance(judge.features(changed), real)

    worse = [distance(new + generator.normal(0, s, new.shape)) for s in (0, 0.1, 0.3)]
    assert worse[0] < worse[1] < worse[2]
    blurred = [distance(gaussian_filter(new, (0, s, s, 0))) for s in (0, 0.5, 1)]
    assert blurred[0] < blurred[1] < blurred[2]


def test_the_inception_network_judges_where_torch_fidelity_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in of torch-fidelity's interface, as its weights cannot be had everywhere: means and maxima of bytes."""

    class Network:
        def __init__(self, name: str, features: list[str]) -> None:
            assert features == ["2048"]

        def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            assert x.dtype == torch.uint8 and x.shape[1] == 3
            flat = x.float().flatten(1)
            return (torch.stack([flat.mean(1), flat.amax(1), flat.std(1)], dim=1),)

    class Unreachable(Network):
        def __init__(self, name: str, features: list[str]) -> None:
            raise URLError("no route")

    run = zeuxis.train("digits-gan", steps=2, runs=tmp_path, progress=False)
    where = "torch_fidelity.feature_extractor_inceptionv3"
    for name, module in (("torch_fidelity", ModuleType("torch_fidelity")), (where, ModuleType(where))):
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(UserError, match=r"pip install 'zeuxis\[inception\]'"):
        Inception((1, 16, 16))
    sys.modules[where].URL_INCEPTION_V3 = "https://example.org/inception.pth"
    sys.modules[where].FeatureExtractorInceptionV3 = Unreachable
    with pytest.raises(
        UserError, match=r"fetch https://example.org/inception.pth elsewhere and put it into .*checkpoints"
    ):
        Inception((1, 16, 16))
    sys.modules[where].FeatureExtractorInceptionV3 = Network
    found = evaluate(run, samples=100, judge=Inception((1, 16, 16)), only=["fid", "path_length"], progress=False)
    assert "rounds images to bytes" in found["left_out"]["path_length"]
    made, images = (to_bytes(each) for each in (run.sample(100, seed=0), run.images(run.choose_images("train", 100))))
    expected = [np.stack([x.mean(), x.max(), x.std(ddof=1)]) for x in made[:3].astype(np.float64)]
    assert np.allclose(Inception((1, 16, 16)).features(made)[:3], expected, rtol=1e-2)
    as_floats = Inception((1, 16, 16)).features(made / np.float32(255))
    assert np.array_equal(as_floats, Inception((1, 16, 16)).features(made))
    assert found["measures"]["fid"]["features"] == found["features"] == "inception-v3"
    assert found["measures"]["fid"]["value"] == pytest.approx(
        frechet_distance(
            Inception((1, 16, 16)).features(made).astype(np.float64),
            Inception((1, 16, 16)).features(images).astype(np.float64),
        )
    )


def test_a_training_can_go_by_the_distance(tmp_path: Path) -> None:
    settings = {"training.until": "fid", "training.patience": 2, "training.test_every": "20 steps"}
    run = zeuxis.train("digits-gan", steps=60, settings=settings, runs=tmp_path, progress=False)
    taken = [line for line in run.journal if "test/fid" in line]
    assert taken and all(line["test/fid_stderr"] > 0 for line in taken)
    best = min(taken, key=lambda line: line["test/fid"])
    assert run.step == best["step"], "the weights that are shown are those of the least distance"
    again = evaluate(run, samples=500, progress=False, only=["fid"])["measures"]["fid"]["value"]
    assert best["test/fid"] == pytest.approx(again, rel=0.3), "other latents, and all images"
    with pytest.raises(UserError, match="needs a model that generates images"):
        zeuxis.train("digits-cnn", steps=1, settings={"training.until": "fid"}, runs=tmp_path, progress=False)


def test_estimates_do_not_touch_the_training(tmp_path: Path) -> None:
    plain = {"training.test_every": "5 steps", "training.best": ""}
    runs = [
        zeuxis.train("digits-gan", steps=12, settings=plain | more, runs=tmp_path, progress=False)
        for more in ({}, {"training.best": "fid"})
    ]
    losses = [run.series("generator/loss")[1][-1] for run in runs]
    assert losses[0] == losses[1]


def test_what_stands_is_taken_only_if_it_was_measured_so(tmp_path: Path) -> None:
    run = zeuxis.train("digits-gan", steps=3, runs=tmp_path, progress=False)
    first = evaluate_cached(run, samples=100, only=["fid"], progress=False)
    again = evaluate_cached(run, samples=100, only=["fid", "kid"], progress=False)
    assert again["measures"]["fid"] == first["measures"]["fid"] and "kid" in again["measures"]
    other = evaluate(run, samples=100, judge=RandomFeatures((1, 16, 16)), only=["fid"], progress=False)
    assert other["measures"]["fid"] != first["measures"]["fid"]
    back = evaluate_cached(run, samples=100, only=["kid", "fid"], progress=False)
    assert back["measures"]["fid"] == first["measures"]["fid"] and back["features"] == "digits-cnn"


def test_samples_of_a_conditional_model_have_the_classes_of_the_images(tmp_path: Path) -> None:
    """Of 0, nine in ten images, and 1: classes in turn would be far from the images, however good the samples."""
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=(np.arange(300) % 10 == 0).astype(int))
    settings = {"data.source": "folder", "data.path": str(tmp_path / "set.npz"), "data.convert": True}
    run = zeuxis.train("digits-cgan", steps=1, settings=settings, runs=tmp_path, progress=False)
    material = Material(run, samples=1000, judge=RandomFeatures((1, 16, 16)))
    assert material.labels is not None and np.mean(material.labels) == pytest.approx(0.1, abs=0.03)
    again = run.decode(run.latents(1000, 0), run.condition_of_labels(material.labels))
    assert np.array_equal(material.samples, to_bytes(again))


def test_the_support_ignores_copies_among_the_images() -> None:
    generator = np.random.default_rng(0)
    images = generator.normal(size=(400, 8))
    collapsed = images[:1] + generator.normal(size=(400, 8)) * 1e-3
    assert support(collapsed, images) == pytest.approx(1, abs=0.1)
    copied = np.concatenate([images[:380], images[:20]])
    assert support(collapsed, copied) == pytest.approx(1, abs=0.1)
    assert support(images, copied) > 400


def test_of_many_images_some_of_all_are_taken() -> None:
    ordered = np.repeat(np.arange(10), 1000)
    some = chosen(ordered, 2000)
    assert np.bincount(some).min() > 150 and np.array_equal(some, chosen(ordered, 2000))
    assert chosen(ordered, 10**6) is ordered


def test_a_fixed_judge_rounds_nothing() -> None:
    judge, image = RandomFeatures((1, 16, 16)), np.full((1, 16, 16, 1), 0.5001)
    assert not np.array_equal(judge.features(image), judge.features(image + 5e-4))
    np.testing.assert_array_equal(judge.features(to_bytes(image)), judge.features(to_bytes(image) / 255))


def test_a_judge_of_other_classes_is_none_for_a_folder() -> None:
    flowers = DataOptions(source="folder", path="elsewhere/flowers.zip", size=32, channels=3)
    judge = judge_module.find_judge(flowers, ("rose", "tulip"), "other")
    assert isinstance(judge, Run) and judge.recipe.name == "flowers-cnn-32"
    other = judge_module.find_judge(flowers, ("cat", "dog"), "other")
    assert not isinstance(other, Run) or other.recipe.name != "flowers-cnn-32"
    celeba = DataOptions(source="celeba", size=64, channels=3, attribute="Smiling,Male")
    smile = judge_module.find_judge(celeba, ("a", "b", "c", "d"), "other")
    assert isinstance(smile, Run)
    run = SimpleNamespace(generates=True, classes=("a", "b", "c", "d"))
    assert not has_classifier_of_its_classes(SimpleNamespace(run=run, judge=smile, classifier=smile))
