"""Pruning: a training of a search ends early where others did better with the same share of their budget.

A training reports its running distance, or its test error where the model generates nothing, to its trial in Optuna's
storage, which all processes share. The pruner compares it with what other trials reported at the same rung: 12% of
the budget, and three times as much. Of those that reach a rung, about a third go on to the next.

Sources: L. Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, algorithm 2 (ASHA); L. Li et
al., Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR 2018, algorithm 1.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zeuxis.errors import PrunedError, UserError, quoted
from zeuxis.evaluation.running import NAME, RunningDistance
from zeuxis.files import first_line, write_file
from zeuxis.models import Generates
from zeuxis.training import Callback
from zeuxis.training.callbacks.testing import held_out_terms

if TYPE_CHECKING:
    from zeuxis.training import Trainer

__all__ = ["PRUNERS", "Pruner", "Pruning", "optuna_study", "pruned"]

PRUNERS = ("asha", "hyperband")
# The first rung, in percent of the budget, and the factor between rungs, of which 1 / FACTOR go on.
FIRST, FACTOR = 12, 3
# A run's file that says where it was pruned.
FILE = "pruned.json"


class Pruning(NamedTuple):
    """What a training must know to be pruned.

    Attributes:
        storage: of the search, as of `optuna_study`.
        study: name of the search in it.
        number: of the training's trial.
        pruner: one of `PRUNERS`.
    """

    storage: str
    study: str
    number: int
    pruner: str


def optuna_study(name: str, storage: str, pruner: str) -> Any:
    """Opens an Optuna study, which is made if there is none.

    Args:
        name: name of the study.
        storage: a database's address, such as `sqlite:///search.db`, or the path of a file; in memory if empty.
        pruner: one of `PRUNERS`; none if empty.

    Raises:
        UserError: if Optuna is not installed, or if the storage cannot be used.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("--search tpe and --prune need Optuna: pip install 'zeuxis[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruners = {
        "": optuna.pruners.NopPruner(),
        "asha": optuna.pruners.SuccessiveHalvingPruner(min_resource=FIRST, reduction_factor=FACTOR),
        "hyperband": optuna.pruners.HyperbandPruner(min_resource=FIRST, max_resource=100, reduction_factor=FACTOR),
    }
    with _explained(storage), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        opened: Any = storage or None
        if storage and "://" not in storage:
            from optuna.storages.journal import JournalFileBackend

            opened = optuna.storages.JournalStorage(JournalFileBackend(storage))
        return optuna.create_study(storage=opened, pruner=pruners[pruner], study_name=name, load_if_exists=True)


def _without_secret(text: str) -> str:
    """Returns a text without the users and passwords of addresses in it."""
    return re.sub(r"(?<=://)[^\s/]*@", "", text)


@contextmanager
def _explained(storage: str) -> Iterator[None]:
    """Turns the errors of a storage into a `UserError`."""
    import optuna
    import sqlalchemy

    try:
        yield
    except (optuna.exceptions.OptunaError, sqlalchemy.exc.SQLAlchemyError, ImportError, OSError, ValueError) as error:
        raise UserError(
            f"The storage of the search, {quoted(_without_secret(storage), 200)}, cannot be used: "
            f"{quoted(_without_secret(first_line(error)), 300)}. "
            "Name a file in a folder that exists, or the address of a database, such as sqlite:///search.db."
        ) from error


class Pruner(Callback):
    """Reports to a trial after each test, and ends the training if the trial is pruned."""

    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning

    def attached(self, trainer: Trainer) -> None:
        if isinstance(trainer.model, Generates):
            self._number = NAME
            if not any(isinstance(callback, RunningDistance) for callback in trainer.callbacks):
                trainer.callbacks.insert(0, RunningDistance())
                trainer.callbacks[0].attached(trainer)
            return
        terms = list(held_out_terms(trainer, 2))
        if not terms:
            raise UserError(
                f"The model '{trainer.model.recipe.model.name}' cannot be pruned: it generates no images, and has no "
                "test error."
            )
        self._number = terms[0]

    def begin(self, trainer: Trainer) -> None:
        import optuna

        pruning = self._pruning
        with _explained(pruning.storage):
            study = optuna_study(pruning.study, pruning.storage, pruning.pruner)
            known = study.get_trials(deepcopy=False)[pruning.number]
            self._trial = None if known.state.is_finished() else optuna.trial.Trial(study, known._trial_id)
            self._last = known.last_step or 0  # a resumed training does not report twice

    def iterated(self, trainer: Trainer) -> None:
        value, percent = trainer.tests.get(self._number), int(100 * trainer.progress)
        if self._trial is None or value is None or percent <= self._last or trainer.complete:
            return
        with _explained(self._pruning.storage):
            self._last = percent
            self._trial.report(value, percent)
            if not self._trial.should_prune():
                return
        known = {"step": trainer.step, "percent": percent, "number": self._number, "value": value}
        write_file(trainer.folder / FILE, json.dumps(known, indent=1) + "\n")
        trainer.stop("pruned")


def pruned(folder: Path) -> PrunedError | None:
    """Returns the error of a run that was pruned; None if it was not."""
    try:
        known = json.loads((folder / FILE).read_text("utf-8"))
        number = "running distance" if known["number"] == NAME else f"test {known['number']}"
        return PrunedError(
            f"it was pruned at step {known['step']}, {known['percent']}% of its budget, at a {number} of "
            f"{known['value']:.4g}."
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / FILE} cannot be read; remove it to train this run further.") from error
