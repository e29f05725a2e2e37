"""A run for MLflow: `zeuxis train RECIPE --track mlflow`.

Without a server, runs go to a SQLite file in the folder of runs, which
`mlflow ui --backend-store-uri sqlite:///runs/.mlflow/mlflow.db` shows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from zeuxis.files import make_folder
from zeuxis.recipe import Section
from zeuxis.training.callbacks.base import CALLBACKS
from zeuxis.training.callbacks.tracking import Tracker
from zeuxis.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["MLflow"]

# Numbers are sent together after so many seconds: each transaction takes time off the training.
EVERY = 5.0
# Limits of MLflow: numbers and settings in one request, and letters of a setting.
NUMBERS, SETTINGS, LETTERS = 1000, 100, 6000
KEY = "tracking/mlflow"


class MLflowOptions(Section):
    """Options of MLflow."""

    uri: str = Field("", description="server or store; else MLFLOW_TRACKING_URI, else a file in the folder of runs")
    experiment: str = Field("zeuxis", min_length=1, description="the experiment that the run belongs to")
    images: bool = Field(True, description="also send snapshots")


@CALLBACKS.add("mlflow")
class MLflow(Tracker):
    """Writes to an MLflow server or file.

    Args:
        uri: of a server or store; a file in the folder of runs if empty and MLFLOW_TRACKING_URI is not set.
        experiment: the experiment that the run belongs to.
        images: also send snapshots.
    """

    name, title, Options = "mlflow", "MLflow", MLflowOptions

    def __init__(self, uri: str = "", experiment: str = "zeuxis", images: bool = True) -> None:
        super().__init__(images)
        self.uri, self.experiment, self._run = uri, experiment, ""

    def load(self) -> None:
        # A training reports to its tracker and to nobody else, and does not wait minutes for a server that is gone.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        import mlflow

        self._mlflow: Any = mlflow

    def open(self, trainer: Trainer, settings: Mapping[str, Any]) -> None:
        uri, artifacts = self.uri or os.environ.get("MLFLOW_TRACKING_URI", ""), None
        if not uri:
            folder = make_folder(trainer.folder.parent.resolve() / ".mlflow")
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self._client = self._mlflow.MlflowClient(tracking_uri=uri)
        self._waiting: list[Any] = []
        self._sent = time.monotonic()
        if not self._run:
            known = self._client.get_experiment_by_name(self.experiment)
            experiment = known.experiment_id if known else self._client.create_experiment(self.experiment, artifacts)
            self._run = self._client.create_run(experiment, run_name=trainer.folder.name).info.run_id
            parameters = [self._mlflow.entities.Param(key, str(v)[:LETTERS]) for key, v in settings.items()]
            for i in range(0, len(parameters), SETTINGS):
                self._client.log_batch(self._run, params=parameters[i : i + SETTINGS])
        self._client.update_run(self._run, status="RUNNING")
        self._client.log_text(self._run, trainer.model.recipe.to_toml(), "recipe.toml")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._waiting += [self._mlflow.entities.Metric(name, value, now, step) for name, value in numbers.items()]
        if time.monotonic() - self._sent > EVERY:
            self._send()

    def _send(self) -> None:
        for i in range(0, len(self._waiting), NUMBERS):
            self._client.log_batch(self._run, metrics=self._waiting[i : i + NUMBERS])
        self._waiting, self._sent = [], time.monotonic()

    def draw(self, step: int, grid: np.ndarray) -> None:
        self._client.log_image(self._run, grid.squeeze(-1) if grid.shape[2] == 1 else grid, key="samples", step=step)

    def close(self, final: Mapping[str, float], complete: bool) -> None:
        self.write(0, {f"final/{name}": value for name, value in final.items()})
        self._send()
        self._client.set_terminated(self._run, "FINISHED" if complete else "KILLED")

    def state(self) -> Mapping[str, Any]:
        return {KEY: self._run} if self._run else {}

    def restore(self, checkpoint: Checkpoint) -> None:
        self._run = checkpoint.state.get(KEY, "")
