"""The benchmarks: what stands beside ours is the same network, told the same way."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from zeuxis.evaluation.measure import Value
from zeuxis.models import build_model
from zeuxis.recipe import load_recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "speed"))
    import benchmarks.__main__ as module

    return module


@pytest.mark.parametrize("name", ["mnist-vae-z2", "mnist-gan", "mnist-cgan", "faces-gan-64", "faces-dcgan-64"])
def test_the_plain_loop_trains_the_same_network(benchmarks: ModuleType, name: str) -> None:
    """With our weights it gives our outputs."""
    import with_torch

    task = benchmarks.described(name, Path("images.npz"))
    recipe = load_recipe(name, task["overrides"])
    model = build_model(recipe, tuple(map(str, range(10))) if task["conditional"] else None)
    for each, described in task["networks"].items():
        ours, plain = model.net(each).eval(), with_torch.network(described).eval()
        weights = list(ours.trunk.parameters())
        if ours.heads:  # which the plain network has as one layer
            pairs = zip(*(head.parameters() for head in ours.heads.values()), strict=True)
            weights += [torch.cat(pair) for pair in pairs]
        for mine, its in zip(weights, plain.parameters(), strict=True):
            its.data.copy_(mine.data)
        x = torch.rand(3, *described["shape"])
        with torch.no_grad():
            expected = (
                torch.cat([head.value for head in ours(x).heads.values()], dim=1) if ours.heads else ours(x).value
            )
            assert torch.allclose(plain(x), expected, atol=1e-5)


@pytest.mark.slow
def test_workers_train_in_rounds(benchmarks: ModuleType, tmp_path: Path) -> None:
    images = tmp_path / "images.npz"
    np.savez(images, train=np.zeros((12, 28, 28, 1), np.uint8), labels=np.zeros(12), test=np.zeros((1, 28, 28, 1)))
    task = tmp_path / "task.json"
    task.write_text(json.dumps(benchmarks.described("mnist-vae-z2", images) | {"batch": 4}), "utf-8")
    words = [sys.executable, ROOT / "benchmarks" / "speed" / "with_torch.py", task]
    worker = benchmarks.Worker(words, tmp_path / "said.log")
    assert worker.train(1) > 0 and worker.train(5) > 0
    assert worker.peak() is None or worker.peak() >= psutil.Process(worker.process.pid).memory_info().rss // 2**20
    worker.close()
    assert worker.process.returncode == 0


LEARN = """
import json, sys, jax, with_jax
task = with_jax.read_task()
state, step = with_jax.trainer(task)
counts = {name: sum(leaf.size for leaf in jax.tree.leaves(net[0])) for name, net in state["networks"].items()}
losses, data = [], with_jax.batches(task)
for _ in range(int(sys.argv[2])):
    state, loss = step(state, *next(data))
    losses.append(float(loss))
data.close()
print(json.dumps([counts, losses]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist-vae-z2", "mnist-gan", "mnist-cgan", "faces-gan-64", "faces-dcgan-64"])
def test_jax_trains_the_same_network(benchmarks: ModuleType, tmp_path: Path, name: str) -> None:
    """As many parameters in each network, and a loss that falls on four images."""
    python = ROOT / ".peers" / "jax" / "bin" / "python"
    if not python.exists():
        pytest.skip("JAX is not installed: python -m benchmarks --peer jax")
    task = benchmarks.described(name, tmp_path / "images.npz") | {"batch": 4}
    recipe = load_recipe(name, task["overrides"])
    model = build_model(recipe, tuple(map(str, range(10))) if task["conditional"] else None)
    size, channels = int(recipe.data.size.setting), recipe.data.channels
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, channels), np.uint8)
    np.savez(tmp_path / "images.npz", train=images, labels=np.arange(4))
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task), "utf-8")
    speed = ROOT / "benchmarks" / "speed"
    work = [python, "-c", LEARN, path, "12"]
    output = subprocess.run(work, env=os.environ | {"PYTHONPATH": str(speed)}, capture_output=True, check=True).stdout
    counts, losses = json.loads(output)
    assert counts == {each: sum(p.numel() for p in model.net(each).parameters()) for each in task["networks"]}
    assert np.isfinite(losses).all() and np.mean(losses[-3:]) < losses[0], "the discriminator's, or the VAE's"


def test_the_fastest_peer_counts(benchmarks: ModuleType) -> None:
    rows = [
        {"recipe": recipe, "device": "cpu", "precision": "float32", "peer": peer, "ratio": ratio}
        for recipe, peer, ratio in (("a", "keras", 1.2), ("a", "jax", 1.1), ("b", "keras", 1.3))
    ]
    assert [benchmarks.is_fastest(row, rows) for row in rows] == [False, True, True]


def test_what_a_peer_made_is_measured_as_a_run_is(benchmarks: ModuleType, tmp_path: Path) -> None:
    """A peer that returns training images, and rebuilds perfectly: the measures say so."""
    from benchmarks.peers.environments import write_images
    from benchmarks.peers.exchange import Budget, Task, write_made
    from benchmarks.peers.made import Made

    recipe, images, out = load_recipe("digits-vae"), tmp_path / "images.npz", tmp_path / "copy-seed-0.npz"
    write_images(images, recipe)
    with np.load(images) as arrays:
        train, test = arrays["train"], arrays["test"]
        task = Task("copy", train, arrays["labels"], test, minutes=1, seed=0, samples=300, out=out)
    budget = Budget(task.minutes)
    budget.start()
    assert not budget.spent(640)
    write_made(task, train[:300] / 255, test / 255, budget, 2.0, 7)
    found = Made(out, recipe, conditional=False).measured()
    assert found["test_mse"]["value"] == pytest.approx(0, abs=1e-12)
    assert found["suspects"]["value"] == 1 and found["outliers"]["value"] == 0
    assert found["images_per_second"]["value"] == 320 and found["parameters"]["value"] == 7
    assert "label_agreement" not in found and "path_length" not in found
    write_made(task, train[:300] / 255, None, budget, 2.0, 7)
    assert "test_mse" not in Made(out, recipe, conditional=True).measured()


@pytest.fixture
def performance(benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Measurements by a clock that goes on a second whenever it is read, the same on every machine.

    An iteration reads it before and after its batch, and at its end.
    """
    from benchmarks import performance as module

    seconds = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    return module


def test_laps_tell_what_batches_take(performance: ModuleType) -> None:
    recipe = load_recipe("digits-vae", [*performance.ALONE, "training.steps=100000"])
    laps = performance.trained(recipe, performance.Laps(30))
    assert (laps.steps, laps.fetching, laps.seconds) == (11, 11, 3 * 11 + 1), "the last reading comes on top"


@pytest.mark.slow
def test_a_million_images_leave_memory_flat(
    performance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(performance, "MILLION", 20_000)  # 61 MB on disk
    dataset = performance.million(tmp_path)
    assert dataset.images.shape == (20_000, 32, 32, 3) and dataset.images.std() > 70
    recipe = load_recipe("flowers-vae-32-z256", [*performance.ALONE, "training.steps=100000"])
    performance.trained(recipe, performance.Laps(5), dataset)
    before = performance._own_memory()
    laps = performance.trained(recipe, performance.Laps(30), dataset)
    assert laps.steps > 10 and performance._own_memory() - before < 40_000


def test_tables_are_markdown(benchmarks: ModuleType) -> None:
    from benchmarks.documents.page import table

    text = table([{"recipe": "mnist-gan", "ratio": 2.0}, {"recipe": "mnist-cgan", "ratio": 1.5}])
    assert text.splitlines() == ["| recipe | ratio |", "|---|---|", "| `mnist-gan` | 2.0 |", "| `mnist-cgan` | 1.5 |"]


def test_pages_for_the_documentation_keep_text_and_pictures() -> None:
    from benchmarks.documents.reproductions import smaller

    def encoded(picture: np.ndarray) -> str:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "png")
        return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'

    wide = np.linspace(0, 255, 60 * 80 * 3).reshape(60, 80, 3)
    rough = np.random.default_rng(0).integers(-40, 40, wide.shape)
    pictures = [(wide + rough).clip(0, 255).astype(np.uint8), np.full((20, 30, 3), 200, np.uint8)]
    page = "<p>Before</p>".join(["", *map(encoded, pictures)])
    made = smaller(page)
    assert made.count("<p>Before</p>") == 2 and len(made) < 0.7 * len(page)
    for kept, content in zip(pictures, re.findall(r"data:image/\w+;base64,([\w+/=]+)", made), strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), float)
        assert shown.shape == kept.shape and np.abs(shown - kept).mean() < 20


def test_the_time_to_a_distance_is_read_off_a_curve() -> None:
    """Between two points a curve is straight in the logarithms of both."""
    from benchmarks.documents.time_to_quality import compared, reached

    def of(*points: tuple[float, float]) -> list[tuple[float, Value]]:
        return [(minutes, Value(distance, 1.0, 3)) for minutes, distance in points]

    curve = of((1, 80), (4, 20))
    assert reached(curve, 40) == pytest.approx(2)
    assert reached(curve, 20) == pytest.approx(4)
    assert reached(curve, 19) is None
    assert reached(curve, 100) == 1
    rows = compared({"peer": of((1, 100), (8, 40), (16, 10))}, "ours", curve)
    assert [row["times sooner"] for row in rows] == ["at least 1", "4", ""]
    assert [row["`ours` comes as near after"] for row in rows] == ["at most 60 s", "120 s", "not measured"]
