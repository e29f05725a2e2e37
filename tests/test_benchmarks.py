"""The benchmarks: what stands beside ours is the same network, told the same way."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from zeuxis.models import build_model
from zeuxis.nets import summary
from zeuxis.recipe import load_recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "speed"))
    import benchmarks.__main__ as module

    return module


@pytest.mark.parametrize("name", ["mnist-vae-z2", "mnist-gan", "mnist-cgan", "faces-gan-64", "faces-dcgan-64"])
def test_the_plain_loop_trains_the_same_network(benchmarks: ModuleType, name: str) -> None:
    import with_torch

    recipe = load_recipe(name)
    task = benchmarks.described(recipe, Path("images.npz"), "float32")
    classes = tuple(map(str, range(10))) if task["conditional"] else None
    expected = summary(name, build_model(recipe, classes).networks)["networks"]
    for each, described in task["networks"].items():
        counted = sum(p.numel() for p in with_torch.network(described).parameters())
        assert counted == expected[each]["trainable"]
        plain = with_torch.network(described).eval()
        made = plain(with_torch.torch.zeros(2, *described["shape"]))
        assert made.shape[1:] == build_model(recipe, classes).net(each).output_shape or recipe.model.name == "vae"


def test_workers_train_in_rounds(benchmarks: ModuleType, tmp_path: Path) -> None:
    recipe = load_recipe("mnist-vae-z2", ["training.batch_size=4"])
    images = tmp_path / "images.npz"
    np.savez(images, train=np.zeros((12, 28, 28, 1), np.uint8), labels=np.zeros(12), test=np.zeros((1, 28, 28, 1)))
    task = tmp_path / "task.json"
    task.write_text(json.dumps(benchmarks.described(recipe, images, "float32")), "utf-8")
    worker = benchmarks.Worker([sys.executable, ROOT / "benchmarks" / "speed" / "with_torch.py", task])
    assert worker.train(1) > 0 and worker.train(5) > 0
    worker.close()
    assert worker.process.returncode == 0
