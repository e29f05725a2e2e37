"""What may change when a run is resumed, how that is recorded and drawn, and runs that start from others' weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import zeuxis
from zeuxis.errors import UserError
from zeuxis.figures.losses import losses
from zeuxis.recipe import load_recipe
from zeuxis.report import run_report
from zeuxis.run import Run
from zeuxis.training import Checkpoint, checkpoints, resume
from zeuxis.training.changing import CHANGEABLE, changed

DOCS = Path(__file__).parents[1] / "docs"
RATE = "training.optimizer.learning_rate"


@pytest.fixture
def gan(trained: dict[str, Run], tmp_path: Path) -> Path:
    shutil.copytree(trained["gan"].path, tmp_path / "gan")
    return tmp_path / "gan"


# -- what may change ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "value"), [
    ("data.size", 32), ("data.classes", ["3"]), ("networks.generator.layers", ["dense 3"]), ("model.name", "vae"),
    ("model.latent", 3), ("training.seed", 3), ("training.optimizer.name", "sgd"), ("name", "other"),
    ("training.optimizer.decay", "weights"), ("training.best", "fid"),
])  # fmt: skip
def test_what_would_make_it_another_run_is_refused(key: str, value: object, gan: Path) -> None:
    before = {path: path.read_bytes() for path in gan.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"^'?{key}'? cannot change in a run: .*--from-run RUN"):
        resume(gan, {key: value}, visible=False)
    assert {path: path.read_bytes() for path in gan.rglob("*") if path.is_file() and path.name != "lock"} == {
        path: content for path, content in before.items() if path.name != "lock"
    }


def test_unknown_keys_and_wrong_values_are_told_as_in_a_recipe() -> None:
    recipe = load_recipe("digits-gan")
    with pytest.raises(UserError, match="learning_rate should be a number"):
        changed(recipe, {"training.optimizers.generator.learning_rate": "fast"})
    with pytest.raises(UserError, match=r"no key 'trainin'\. Did you mean 'training'"):
        changed(recipe, {"trainin.batch_size": 3})
    with pytest.raises(UserError, match="greater than 0"):
        changed(recipe, {RATE: -1})
    with pytest.raises(UserError, match=r"training\.ema cannot change from or to 0"):
        changed(recipe, {"training.ema": 0.0})
    assert changed(recipe, {"training.ema": 0.99}).training.ema == 0.99


def test_a_phase_keeps_the_rest_of_the_shared_optimizer() -> None:
    recipe = load_recipe("digits-gan", {"training.optimizer.name": "rmsprop", "training.optimizer.alpha": 0.9})
    changed_recipe = changed(recipe, {"training.optimizers.generator.learning_rate": 0.1})
    own = changed_recipe.training.optimizers["generator"]
    assert own.name == "rmsprop" and own.learning_rate == 0.1 and own.options["alpha"] == 0.9


def test_the_page_lists_all_that_may_change() -> None:
    page = " ".join((DOCS / "runs.md").read_text().split())
    for _, what, why in CHANGEABLE:
        assert f"| {what} | " in page and f"| {why} |" in page, what


# -- what a change does -------------------------------------------------------------------------------


def test_a_change_acts_from_its_step_on_and_is_recorded(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Run(gan).recipe.training.optimizer.learning_rate
    new = {RATE: 1e-5, "model.label_smoothing": 0.1, "training.log_every": 5}
    assert resume(gan, new | {"training.steps": 60}, visible=False)
    run = Run(gan)
    steps, rates = run.series("generator/learning_rate")
    assert steps[-1] > 40 and rates[-1] == 1e-5 and rates[0] == old
    assert run.changes == [
        {"step": 40, "epoch": pytest.approx(run.journal[7]["epoch"]), "changes": {
            RATE: [old, 1e-5], "model.label_smoothing": [0.0, 0.1],
        }}
    ]  # fmt: skip
    assert "From step 40 on: training.optimizer.learning_rate is now 1e-05" in " ".join(capsys.readouterr().err.split())
    assert load_recipe(gan / "recipe.toml").training.optimizer.learning_rate == 1e-5
    # A further change, whose run is then seen at its older weights: nobody edited the recipe by hand.
    assert resume(gan, {RATE: 2e-5, "training.steps": 70}, visible=False)
    assert Run(gan).model is not None and "was changed since" not in capsys.readouterr().err
    assert [line["step"] for line in Run(gan).changes] == [40, 60]


def test_an_older_checkpoint_of_a_changed_run_is_no_surprise(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume(gan, {RATE: 1e-5, "training.steps": 60}, visible=False)
    newest = checkpoints(gan / "checkpoints")[0]
    newest.unlink()
    (gan / "checkpoints" / "best.safetensors").unlink(missing_ok=True)
    capsys.readouterr()
    run = Run(gan)
    assert run.model is not None and run.step < 60 and "was changed since" not in capsys.readouterr().err
    # What was edited by hand is told as before.
    text = (gan / "recipe.toml").read_text()
    (gan / "recipe.toml").write_text(text.replace("label_smoothing = 0.0", "label_smoothing = 0.2"))
    assert Run(gan).model is not None
    assert "label_smoothing is 0.2 and was 0.0" in " ".join(capsys.readouterr().err.split())


def test_changes_are_marked_in_figures_and_told_in_the_report(
    gan: Path, short_reports: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resume(gan, {RATE: 1e-5, "training.steps": 50}, visible=False)
    run = Run(gan)
    for ax in losses(run).axes:
        assert [line for line in ax.lines if list(line.get_xdata()) == [40, 40]]
        assert [text.get_text() for text in ax.texts] == ["learning rate 1e-05"]
    page = run_report(run).read_text()
    assert "At step 40: <code>training.optimizer.learning_rate</code> became 1e-05 (was" in page


def test_damaged_changes_are_left_out(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"step": 3, "epoch": 0.1, "changes": {"training.ema": [0.9, 0.8]}}
    (gan / "changes.jsonl").write_text(f'{json.dumps(good)}\nnonsense\n{{"step": 3, "changes": {{"a": 1}}}}\n')
    assert Run(gan).changes == [good]
    assert "2 damaged lines are left out" in " ".join(capsys.readouterr().err.split())


# -- starting from a run's weights --------------------------------------------------------------------


def test_a_run_starts_from_the_weights_of_another(
    trained: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trained["gan"]
    settings = {"training.snapshot_every": "never", "training.optimizer.learning_rate": 1e-12, "training.ema": 0.0}
    run = zeuxis.train("digits-gan", steps=1, settings=settings, runs=tmp_path, from_run=first.path)
    origin = run.environment["from_run"]
    assert origin["run"] == "gan" and origin["step"] == 40 and origin["new"] == []
    assert origin["weights"] == first.weights
    # The averaged weights, which the first run uses.
    used = first.model.net("generator").state_dict()
    kept = Checkpoint.read(checkpoints(run.path / "checkpoints")[0]).part("networks/generator.")
    trainable = dict(first.model.net("generator").named_parameters())
    assert trainable and all(torch.allclose(kept[name], used[name].cpu(), atol=1e-6) for name in trainable)
    assert "tensors fit." in " ".join(capsys.readouterr().err.split())


def test_what_does_not_fit_is_new_and_named(
    trained: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = zeuxis.train("digits-gan", steps=1, settings={"model.latent": 7}, runs=tmp_path, from_run=trained["gan"].path)
    (name,) = run.environment["from_run"]["new"]
    assert name.startswith("generator.") and name.endswith("weight")
    said = " ".join(capsys.readouterr().err.split())
    total = len(trained["gan"].model.networks.state_dict())
    assert f"{total - 1} of {total} tensors fit; new are {name}." in said


def test_weights_of_other_networks_are_refused_before_anything_is_written(
    trained: dict[str, Run], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"No weights of .* fit: its networks are .*generator.*, and those of recipe"):
        zeuxis.train("digits-vae", steps=1, runs=tmp_path / "runs", from_run=trained["gan"].path, progress=False)
    assert not (tmp_path / "runs").exists()
