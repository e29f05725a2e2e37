"""What all tests share: folders of their own, and small trained runs made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import zeuxis
from zeuxis.run import Run

# The tests run side by side on few cores; more threads each would only wait for one another.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Caches decoded images, and remembers runs, in folders that go away with the session."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ZEUXIS_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("ZEUXIS_STATE", str(tmp_path_factory.mktemp("state")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A VAE, a GAN and a conditional GAN after a few steps on the digits, by model name; not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    settings = {"training.batch_size": 64, "training.snapshot_every": "10 steps", "training.record_every": 5}
    return {
        model: zeuxis.train(f"digits-{model}", steps=40, settings=settings, runs=runs, name=model, progress=False)
        for model in ("vae", "gan", "cgan")
    }


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of runs, found by name."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("ZEUXIS_RUNS", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder
