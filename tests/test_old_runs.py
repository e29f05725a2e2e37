"""Runs of an older version open, go on, and are drawn: two of commit 1b30800, with how they went on there.

They are of 20 steps on 8x8 images, and went on for ten.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from zeuxis.figures import draw_all
from zeuxis.run import Run
from zeuxis.training import resume

OLD = Path(__file__).parent / "old"


@pytest.fixture(params=["vae", "cgan"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    shutil.copytree(OLD / request.param, tmp_path / request.param)
    return Run(tmp_path / request.param)


def test_it_opens(run: Run) -> None:
    assert run.step == 20
    assert run.sample(3).shape == (3, 8, 8, 1)
    assert np.isfinite(run.sample(3)).all()


@pytest.mark.slow
def test_its_figures_are_drawn(run: Run) -> None:
    drawn = draw_all(run, progress=False)
    assert {"losses", "gradients", "history"} <= set(drawn)
    assert ("accuracy" in drawn) == (run.name == "cgan")


def test_it_goes_on_as_it_did(run: Run) -> None:
    assert resume(run.path, {"training.steps": 30}, visible=False)
    lines = [line for line in Run(run.path).journal if line["step"] > 20]
    known = [json.loads(line) for line in (OLD / f"{run.name}-goes-on.jsonl").read_text("utf-8").splitlines()]
    for line, then in zip(lines, known, strict=True):
        shared = {key for key in then if key not in ("seconds", "cost/peak_memory_mib")}
        assert {key: line[key] for key in shared} == pytest.approx({key: then[key] for key in shared}, rel=1e-3)
