"""Trainings that a search ends early: those that do worse, and no others; once pruned, they stay so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zeuxis.errors import PrunedError, UserError
from zeuxis.files import path_part
from zeuxis.recipe import load_recipe
from zeuxis.run import Run
from zeuxis.study import Axis, sweep
from zeuxis.study.plan import Part, train_each
from zeuxis.study.pool import backend_on
from zeuxis.study.search import Trial, Trials
from zeuxis.training import checkpoints, finished

pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("short_reports")

RATES = (1e-4, 1e-7, 3e-3)  # the second learns nothing
SHORT = {
    "training.steps": 40, "training.test_every": "8 steps", "training.snapshot_every": "never",
    "training.checkpoint_every": "never", "training.threads": 1, "training.batch_size": 16,
}  # fmt: skip
AXIS = Axis("training.optimizer.learning_rate", RATES)


def names() -> list[str]:
    return [path_part(f"learning_rate={rate}") for rate in RATES]


def outcomes(folder: Path, jobs: int = 1, prune: str = "asha") -> dict[str, Run | UserError]:
    """Trains the three rates as a sweep does, and returns the run of each, or why it ended early."""
    recipe = load_recipe("digits-vae", SHORT)
    trials = Trials([AXIS], prune=prune, storage=str(folder / "search.journal") if prune else "")
    listed: list[Trial] = []

    def parts() -> list[Part]:
        listed.extend(trials)
        return [
            Part(name, recipe.updated(trial.settings), trial.pruning)
            for name, trial in zip(names(), listed, strict=True)
        ]

    ended: dict[str, Run | UserError] = {}
    with backend_on("local", jobs, 3) as backend:
        for trial, (part, run) in zip(
            listed, train_each(parts(), folder, 3, backend=backend, progress=False), strict=False
        ):
            ended[part.name] = run
            trials.tell(trial, None if isinstance(run, UserError) else 1.0, pruned=isinstance(run, PrunedError))
    return ended


def test_what_does_worse_is_pruned_and_stays_so(tmp_path: Path) -> None:
    ended = outcomes(tmp_path)
    medium, hopeless, best = names()
    assert isinstance(ended[hopeless], PrunedError)
    assert "pruned at step 8, 20% of its budget, at a running distance of" in str(ended[hopeless])
    assert all(isinstance(ended[name], Run) and finished(tmp_path / name) for name in (medium, best))
    assert checkpoints(tmp_path / hopeless / "checkpoints"), "it is saved"
    before = (tmp_path / hopeless / "journal.jsonl").read_text("utf-8")
    assert outcomes(tmp_path).keys() == outcomes(tmp_path, jobs=2).keys() == ended.keys()
    assert (tmp_path / hopeless / "journal.jsonl").read_text("utf-8") == before, "and not trained further"
    assert isinstance(outcomes(tmp_path, prune="")[hopeless], Run), "unless nothing is to be pruned"


@pytest.mark.slow
def test_the_report_names_what_was_pruned(tmp_path: Path) -> None:
    recipe = load_recipe("digits-vae", SHORT)
    compared = sweep(recipe, [AXIS], tmp_path, prune="asha", samples=100, progress=False)
    rows = json.loads((tmp_path / "sweep.json").read_text("utf-8"))
    assert [row["run"] for row in rows if "pruned" in row] == [names()[1]] and len(rows) == 3
    assert f"{names()[1]} was not measured: it was pruned at step 8" in compared.path.read_text("utf-8")
    assert len(compared.table.labels) == 2


def test_a_model_without_samples_is_pruned_by_its_test_error(tmp_path: Path) -> None:
    recipe = load_recipe("digits-cnn", SHORT | {"training.steps": 20, "training.test_every": "4 steps"})
    trials = Trials([Axis("training.optimizer.learning_rate", (1e-2, 1e-7))], prune="asha", storage=str(tmp_path / "s"))
    parts = [Part(f"{t.number}", recipe.updated(t.settings), t.pruning) for t in trials]
    first, second = (run for _, run in train_each(parts, tmp_path, 2, progress=False))
    assert isinstance(first, Run) and isinstance(second, PrunedError)
    assert "at a test error of" in str(second)


@pytest.mark.parametrize("storage", ["search.journal", "sqlite:///{}/search.db"])
def test_a_search_continues_from_its_storage(storage: str, tmp_path: Path) -> None:
    place = storage.format(tmp_path) if "://" in storage else str(tmp_path / storage)

    def asked(count: int, *, of: str = "") -> list[float]:
        trials = Trials([Axis("w", (), 0.01, 100.0)], "tpe", 8, storage=place, of=of)
        drawn = []
        for trial in trials:
            drawn.append(trial.settings["w"])
            if len(drawn) == count:
                break  # as if it were stopped while this one is trained
            trials.tell(trial, trial.settings["w"])
        return drawn

    stopped, whole = asked(4), asked(99)
    assert len(whole) == 8 and whole[:4] == stopped
    assert asked(99) == whole, "all are known"
    other = asked(99, of="another recipe")
    assert len(other) == 8, "beside another search"
    in_memory = Trials([Axis("w", (), 0.01, 100.0)], "tpe", 8)
    drawn = []
    for trial in in_memory:
        drawn.append(trial.settings["w"])
        in_memory.tell(trial, trial.settings["w"])
    assert drawn == whole, "as if it had never been stopped"


def test_mistakes_of_a_search(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'hyperband'"):
        Trials([AXIS], prune="hyperbend")
    with pytest.raises(UserError, match=r"nosuch://host/db, cannot be used: .*such as sqlite:///search.db") as raised:
        Trials([AXIS], "tpe", storage="nosuch://me:secret@host/db")
    assert "secret" not in str(raised.value)
    with pytest.raises(UserError, match="cannot be used"):
        Trials([AXIS], "tpe", storage=str(tmp_path / "nowhere" / "search.journal"))
    recipe = load_recipe("digits-vae", SHORT | {"training.test_every": "never"})
    with pytest.raises(UserError, match=r"set training\.test_every"):
        sweep(recipe, [AXIS], tmp_path, prune="asha", progress=False)
