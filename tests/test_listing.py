"""The list of runs, and what one does with a run: every state is named, nothing is lost by mistake."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from shutil import copytree

import pytest
from typer.testing import CliRunner, Result

import zeuxis
from zeuxis.cli import app
from zeuxis.errors import UserError
from zeuxis.files import locked
from zeuxis.listing import entries, entry, prune
from zeuxis.run import Run
from zeuxis.training import resume
from zeuxis.watching import watch

SETTINGS = {"training.test_every": "2 steps", "training.checkpoint_every": "2 steps", "training.log_every": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    zeuxis.train("digits-vae", steps=4, settings=SETTINGS, runs=folder, name="a-vae", progress=False)
    zeuxis.train("digits-gan", steps=2, settings=SETTINGS, runs=folder, name="b-gan", progress=False)
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    return copytree(trained, tmp_path / "runs")


def call(runs: Path, *words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["runs", *words, "--runs", str(runs)], input=answer, catch_exceptions=True)


def test_a_list_names_recipe_progress_and_numbers(runs: Path) -> None:
    vae, gan = entries(runs)
    assert (vae.name, vae.state, vae.progress) == ("a-vae", "finished", "4 of 4 steps")
    assert vae.test_mse == Run(runs / "a-vae").journal[-1]["test/mse"] and vae.distance is None
    assert (gan.recipe, gan.model, gan.data, gan.step) == ("digits-gan", "gan", "digits", 2)
    assert vae.bytes == sum(path.stat().st_size for path in (runs / "a-vae").rglob("*") if path.is_file())
    assert vae.started.startswith("20")


def test_every_state_is_told(runs: Path) -> None:
    recipe = runs / "a-vae" / "recipe.toml"
    recipe.write_text(recipe.read_text("utf-8").replace("steps = 4", "steps = 40"), "utf-8")
    assert entry(runs / "a-vae").state == "stopped" and entry(runs / "a-vae").progress == "4 of 40 steps"
    with locked(runs / "b-gan"):
        assert entry(runs / "b-gan").state == "running"
    recipe.write_text("not toml [", "utf-8")
    assert entry(runs / "a-vae").state == "broken"
    (runs / "b-gan" / "journal.jsonl").write_bytes(b"\xff\x00{")
    assert entry(runs / "b-gan").step == 0
    (runs / "b-gan" / "evaluation.json").write_text("[]", "utf-8")
    (runs / "b-gan" / "notes.json").write_text('{"note": 3}', "utf-8")
    assert entry(runs / "b-gan").note == "3"
    output = call(runs).output
    assert "broken" in output and "b-gan" in output


def test_a_training_that_settled_is_not_called_stopped(tmp_path: Path) -> None:
    settings = {**SETTINGS, "training.until": "mse", "training.patience": 1, "training.optimizer.learning_rate": 1.0}
    zeuxis.train("digits-vae", steps=60, settings=settings, runs=tmp_path, name="s", progress=False)
    assert entry(tmp_path / "s").state == "settled"


def test_lists_are_sorted_filtered_and_written_for_programs(runs: Path) -> None:
    assert next(e.name for e in entries(runs, sort="size")) == max(entries(runs), key=lambda e: e.bytes).name
    assert [e.name for e in entries(runs, sort="mse")] == ["a-vae", "b-gan"], "what has no number comes last"
    assert [e.name for e in entries(runs, matching="GAN")] == ["b-gan"]
    as_json = json.loads(call(runs, "--json").output)
    assert as_json[0]["name"] == "a-vae" and as_json[1]["test_mse"] is None
    rows = list(csv.DictReader(io.StringIO(call(runs, "--csv").output)))
    assert rows[1]["recipe"] == "digits-gan"
    assert "There are no runs" in call(runs / "nowhere").output
    error = call(runs, "--sort", "dat").exception
    assert isinstance(error, UserError) and "Did you mean 'date'" in str(error)


def test_the_distance_is_of_the_weights_in_use(runs: Path) -> None:
    folder = runs / "a-vae"
    evaluation = {"step": 4, "measures": {"fid": {"value": 2.5}}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation), "utf-8")
    assert entry(folder).distance == 2.5
    resume(folder, {"training.steps": 6}, visible=False)
    assert entry(folder).distance is None, "it was trained on since it was evaluated"
    journal = folder / "journal.jsonl"
    *lines, last = journal.read_text("utf-8").splitlines()
    journal.write_text("\n".join([*lines, json.dumps(json.loads(last) | {"test/fid": 1.5})]) + "\n", "utf-8")
    assert entry(folder).distance == 1.5, "of a later test"


def test_more_than_the_budget_is_not_a_share_of_it(runs: Path) -> None:
    recipe = runs / "a-vae" / "recipe.toml"
    recipe.write_text(recipe.read_text("utf-8").replace("steps = 4", "steps = 3"), "utf-8")
    assert (entry(runs / "a-vae").state, entry(runs / "a-vae").progress) == ("finished", "4 steps")


def test_folders_of_further_runs_are_named(runs: Path) -> None:
    copytree(runs, runs / "my sweep")
    sentence = f"{runs / 'my sweep'} holds 2 more runs: zeuxis runs --runs '{runs / 'my sweep'}'"
    assert call(runs).output.splitlines()[-1] == sentence
    rename = call(runs, "rename", "a-vae", "my/vae").exception
    assert str(rename) == "'my/vae' cannot name a run: it has a slash."
    assert "holds" not in call(runs / "my sweep").output


def test_a_printed_command_has_a_name_with_spaces_in_quotes(runs: Path) -> None:
    assert call(runs, "rename", "a-vae", "my vae").exit_code == 0
    resumed = CliRunner().invoke(app, ["resume", "my vae", "--steps", "5", "--runs", str(runs)])
    assert "Next: zeuxis sample 'my vae', zeuxis evaluate 'my vae', zeuxis report 'my vae'" in resumed.output
    assert watch(runs / "my vae").endswith("Next: zeuxis report 'my vae'")


def test_nothing_is_cut_in_a_pipe(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "v" * 100
    assert call(runs, "rename", "a-vae", name).exit_code == 0
    assert call(runs, "note", name, "the best of them").exit_code == 0
    line = next(line for line in call(runs).output.splitlines() if line.startswith(name))
    assert "4 of 4 steps" in line and line.rstrip().endswith("the best of them")


def test_notes_and_stars_are_shown(runs: Path) -> None:
    assert call(runs, "note", "b-gan", "blurred, but whole").exit_code == 0
    assert call(runs, "star", "b-gan").exit_code == 0
    assert [e.name for e in entries(runs)] == ["b-gan", "a-vae"] and entries(runs)[0].note == "blurred, but whole"
    assert "* b-gan" in call(runs).output
    assert call(runs, "star", "b-gan", "--off").exit_code == 0
    assert entries(runs)[0].name == "a-vae" and entries(runs)[1].note == "blurred, but whole"


def test_a_run_is_renamed_and_opens(runs: Path) -> None:
    assert call(runs, "rename", "a-vae", "best").exit_code == 0
    assert Run(runs / "best").sample(2).shape == (2, 16, 16, 1)
    for words, expected in (
        (("rename", "best", "b-gan"), "exists already"),
        (("rename", "best", "../out"), "cannot name a run"),
        (("rename", "a-vea", "x"), "There is no run 'a-vea'"),
    ):
        error = call(runs, *words).exception
        assert isinstance(error, UserError) and expected in str(error)
    with locked(runs / "best"):
        assert isinstance(call(runs, "rename", "best", "other").exception, UserError)
    assert (runs / "best").is_dir()


def test_removing_asks_first_and_spares_what_is_trained(runs: Path) -> None:
    assert isinstance(call(runs, "rm", "a-vae", answer="n\n").exception, UserError)
    nobody = call(runs, "rm", "a-vae", answer="").exception
    assert isinstance(nobody, UserError) and "--yes" in str(nobody) and (runs / "a-vae").is_dir()
    with locked(runs / "b-gan"):
        assert isinstance(call(runs, "rm", "a-vae", "b-gan", "--yes").exception, UserError)
    assert {e.name for e in entries(runs)} == {"a-vae", "b-gan"}
    assert isinstance(call(runs, "rm", "../runs", "--yes").exception, UserError) and runs.is_dir()
    assert call(runs, "rm", "a-vae", answer="y\n").exit_code == 0
    assert [e.name for e in entries(runs)] == ["b-gan"]


def test_a_pruned_run_is_small_samples_the_same_and_cannot_be_resumed(runs: Path) -> None:
    before = Run(runs / "a-vae")
    images, step = before.sample(3), before.step
    freed = prune(runs / "a-vae")
    after = Run(runs / "a-vae")
    assert freed > 0 and after.step == step and (after.sample(3) == images).all()
    assert [path.name for path in (runs / "a-vae" / "checkpoints").iterdir()] == ["best.safetensors"]
    with pytest.raises(UserError, match="holds only its weights"):
        resume(runs / "a-vae", {"training.steps": 9}, visible=False)
    assert "nothing to free" in call(runs, "prune", "a-vae").output
    assert "can no longer be resumed" in call(runs, "prune", "b-gan").output


def test_files_may_vanish_while_a_list_is_made(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a training's temporary files and old checkpoints do."""
    gone = runs / "a-vae" / "checkpoints" / "gone.safetensors"
    before = {entry.name: entry.bytes for entry in entries(runs)}
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: [*rglob(self, pattern), gone])
    assert {entry.name: entry.bytes for entry in entries(runs)} == before


def test_distances_by_different_judges_are_not_mixed(runs: Path) -> None:
    for name, value, judge in (("a-vae", 2.5, "efficientnet"), ("b-gan", 7.0, "digits-cnn")):
        step = Run(runs / name).journal[-1]["step"]
        measures = {"fid": {"value": value, "features": judge}}
        (runs / name / "evaluation.json").write_text(json.dumps({"step": step, "measures": measures}), "utf-8")
    listed = entries(runs, sort="distance")
    assert [(each.name, each.judge) for each in listed] == [("b-gan", "digits-cnn"), ("a-vae", "efficientnet")]
    said = " ".join(call(runs).output.split())
    assert "can be compared only within one of these: digits-cnn, efficientnet" in said
