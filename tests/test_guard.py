"""The guard of instruction counts: it compares, and says what it cannot compare; the slow test counts."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def guard() -> ModuleType:
    import benchmarks.guard as module

    return module


def test_more_than_is_tolerated_is_a_regression(guard: ModuleType) -> None:
    committed = {"mnist-gan": 1000, "mnist-cgan": 1000, "modern-gan-28": 1000}
    sentences, fine = guard.compared({"mnist-gan": 1029, "mnist-cgan": 969, "modern-gan-28": 1001}, committed)
    assert fine
    assert (
        sentences[0] == "mnist-gan: 2.90% more instructions a step than before, 1,029 to 1,000; within the tolerance."
    )
    assert "3.10% fewer" in sentences[1] and "better" in sentences[1]
    sentences, fine = guard.compared({"mnist-gan": 1031, "mnist-cgan": 500}, committed)
    assert not fine and "A REGRESSION" in sentences[0], "another recipe that is better does not make up for it"
    assert "no count to compare with" in guard.compared({"mnist-dcgan": 7}, committed)[0][0]


def test_what_cannot_be_compared_is_said(guard: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert guard.obstacle({"versions": guard.versions()}) == ""
    older = guard.obstacle({"versions": guard.versions() | {"torch": "1.13.1"}})
    assert "torch 1.13.1" in older and f"torch {guard.torch.__version__}" in older and "--update" in older
    monkeypatch.setattr(guard.shutil, "which", lambda name: None)
    assert "apt-get install valgrind" in guard.obstacle()


@pytest.mark.slow
def test_a_training_step_takes_no_more_instructions_than_it_did(guard: ModuleType) -> None:
    committed = json.loads(guard.FILE.read_text("utf-8"))
    reason = guard.obstacle(committed)
    if reason:
        pytest.skip(reason)
    sentences, fine = guard.compared(guard.counted(), committed["instructions"])
    assert fine, "\n".join(sentences)
