"""Trackers: what TensorBoard, MLflow and Weights & Biases hold of a run, read back from their own files."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import zeuxis
from zeuxis.cli import app
from zeuxis.errors import UserError
from zeuxis.run import Run
from zeuxis.training import CALLBACKS, Tracker, read_warnings, resume

SETTINGS = {
    "training.batch_size": 64, "training.log_every": 1, "training.steps": 4, "training.snapshot_every": "2 steps",
    "training.test_every": "2 steps", "training.checkpoint_every": "2 steps", "training.threads": 1,
    "training.device": "cpu",
}  # fmt: skip


def train(folder: Path, *, track: tuple[str, ...] = (), callbacks: list[Any] | None = None) -> Run:
    settings = SETTINGS | ({"training.callbacks": callbacks} if callbacks else {})
    return zeuxis.train("digits-vae", settings=settings, runs=folder, name="run", progress=False, track=track)


# -- TensorBoard --------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [True, False])
def test_tensorboard_reads_back_what_was_trained(images: bool, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path, callbacks=[{"name": "tensorboard", "images": images}])
    assert resume(run.path, {"training.steps": 6}, visible=False)
    run = Run(run.path)
    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()
    steps, values = run.series("vae/loss")
    scalars = events.Scalars("loss/vae/loss")
    assert [event.step for event in scalars] == steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in scalars] == pytest.approx(values.tolist())
    assert [event.step for event in events.Scalars("test/mse")] == [2, 4, 6]
    if images:
        pictures = events.Images("samples")
        assert [picture.step for picture in pictures] == [0, 2, 4, 6]
        assert (pictures[0].width, pictures[0].height) == (8 * 16, 2 * 16)
    else:
        assert not events.Tags()["images"]
    assert b"training.optimizer.learning_rate" in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]
    assert "_hparams_/session_start_info" in events.summary_metadata


# -- MLflow -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mlflow_keeps_one_run_over_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = train(tmp_path, track=("mlflow",))
    assert resume(run.path, {"training.steps": 6}, visible=False)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / '.mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("zeuxis")
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.run_name == "run" and kept.info.status == "FINISHED"
    losses = sorted((point.step, point.value) for point in client.get_metric_history(kept.info.run_id, "loss/vae/loss"))
    steps, values = Run(run.path).series("vae/loss")
    assert [step for step, _ in losses] == steps.tolist()
    assert [value for _, value in losses] == pytest.approx(values.tolist())
    assert kept.data.metrics["final/test/mse"] == Run(run.path).last("test/mse")
    assert kept.data.params["model.name"] == "vae"
    names = {artifact.path for artifact in client.list_artifacts(kept.info.run_id)}
    assert {"recipe.toml", "images"} <= names
    assert list((tmp_path / ".mlflow" / "artifacts").rglob("*.png"))


# -- Weights & Biases ---------------------------------------------------------------------------------


def wandb_records(path: Path) -> list[Any]:
    """Reads a run's file: LevelDB's log format, a header of 7 bytes, then blocks of 32 KiB with pieces of records."""
    from wandb.proto import wandb_internal_pb2

    content, place, pieces, records = path.read_bytes(), 7, b"", []
    if content[:4] != b":W&B":
        return []
    while place + 7 <= len(content):
        if 2**15 - place % 2**15 < 7:  # too little of the block is left for another header
            place += 2**15 - place % 2**15
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        if place + 7 + length > len(content):
            break
        pieces += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            records.append(wandb_internal_pb2.Record.FromString(pieces))
            pieces = b""
    return records


def test_weights_and_biases_writes_its_files_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_X_SERVICE_WAIT", "120")
    run = train(tmp_path, callbacks=[{"name": "wandb", "mode": "offline"}])
    if run.warnings:  # its background process did not start on a machine this busy
        pytest.skip(" ".join(run.warnings))
    (file,) = (run.path / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 20
    while not (records := wandb_records(file)) or not records[-1].HasField("exit"):
        assert time.monotonic() < deadline, "its own process writes the file, and may end a little later"
        time.sleep(0.1)
    rows = [
        {(item.key or item.nested_key[0]): item.value_json for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    losses = {int(row["step"]): float(row["loss/vae/loss"]) for row in rows if "loss/vae/loss" in row}
    steps, values = run.series("vae/loss")
    assert list(losses) == steps.tolist() and list(losses.values()) == pytest.approx(values.tolist())
    assert [int(row["step"]) for row in rows if "samples" in row] == [0, 2, 4]
    config = {item.key: item.value_json for r in records if r.HasField("run") for item in r.run.config.update}
    assert config["model.name"] == '"vae"'
    assert len(list(file.parent.rglob("samples*.png"))) == 3


# -- failures -----------------------------------------------------------------------------------------


class Failing(Tracker):
    """Fails when it is given the numbers of its second line."""

    name, title = "failing", "Failing"
    written, closed = 0, False

    def load(self) -> None:
        pass

    def open(self, trainer: Any, settings: Mapping[str, Any]) -> None:
        pass

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.written += 1
        if self.written == 2:
            raise ConnectionError("the server is gone\nTraceback")

    def draw(self, step: int, grid: np.ndarray) -> None:
        pass

    def close(self, final: Mapping[str, float], complete: bool) -> None:
        self.closed = True


def test_a_tracker_that_fails_does_not_stop_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = Failing()
    run = zeuxis.train("digits-vae", settings=SETTINGS, runs=tmp_path, name="run", callbacks=[failing])
    assert run.step == 4 and failing.written == 2 and not failing.closed
    (line,) = read_warnings(run.path / "warnings.jsonl")
    assert (
        line["warning"] == ("Failing failed at step 2, and the training continues without it: the server is gone")
        and line["step"] == 2
    )
    assert " ".join(capsys.readouterr().err.split()).count("continues without it") == 1


def test_mlflow_whose_server_is_gone_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = train(tmp_path, callbacks=[{"name": "mlflow", "uri": "http://127.0.0.1:9"}])
    assert run.step == 4
    (line,) = read_warnings(run.path / "warnings.jsonl")
    assert line["warning"].startswith("MLflow failed at step 0") and "127.0.0.1" in line["warning"]


@pytest.mark.parametrize(("name", "module"), [
    ("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb"),
])  # fmt: skip
def test_a_tracker_that_is_not_installed_is_told_before_anything_is_written(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UserError, match=rf"install it with: pip install .zeuxis\[{name}\]"):
        train(tmp_path / "runs", track=(name,))
    assert not (tmp_path / "runs").exists()


def test_a_name_that_is_no_trackers_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tracker 'tensorbord'\. Did you mean 'tensorboard'"):
        train(tmp_path / "runs", track=("tensorbord",))
    with pytest.raises(UserError, match="no tracker 'fid'"):
        train(tmp_path / "runs", track=("fid",))
    assert "fid" in CALLBACKS and not (tmp_path / "runs").exists()


# -- the journal as CSV -------------------------------------------------------------------------------


def test_the_journal_as_csv_holds_every_number(trained: dict[str, Run], tmp_path: Path) -> None:
    run, file = trained["gan"], tmp_path / "journal.csv"
    arguments = ["runs", "journal", "gan", "--runs", str(run.path.parent)]
    assert CliRunner().invoke(app, [*arguments, "--csv", "--out", str(file)], catch_exceptions=False).exit_code == 0
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [int(row["step"]) for row in rows] == [line["step"] for line in run.journal]
    for name in run.journal.roles:
        values = [float(row[name]) for row in rows if row[name]]
        assert values == run.series(name)[1].tolist()
    printed = CliRunner().invoke(app, [*arguments, "--csv"], catch_exceptions=False).stdout
    assert printed == file.read_text()
    table = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert "generator/loss" in table and "accuracy" in table
