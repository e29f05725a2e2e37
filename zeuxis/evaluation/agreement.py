"""Agreement of samples with what was requested, according to a classifier.

The judge is a run of a classifier on the same kind of images. Its own errors on real images limit what an agreement can
show.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

from zeuxis.errors import UserError
from zeuxis.models import Code
from zeuxis.run import Run

__all__ = ["Share", "code_agreement", "label_agreement", "matched", "values_of"]


class Share(NamedTuple):
    """A share of n samples, with its binomial standard error.

    The error is computed with one hit and one miss added (Laplace's rule of succession), so that it is not 0 where all
    or none of a few samples hit.
    """

    value: float
    stderr: float
    n: int

    @classmethod
    def of(cls, hits: np.ndarray) -> Share:
        """Returns the share of true values among `(N,)`."""
        n = len(hits)
        likely = (np.sum(hits) + 1) / (n + 2)
        return cls(float(np.mean(hits)), float(np.sqrt(likely * (1 - likely) / n)), n)


def label_agreement(run: Run, judge: Run, n: int = 2000, seed: int = 1) -> Share:
    """Returns the share of samples whose class, according to the judge, is the requested one.

    Args:
        run: a conditional model.
        judge: a classifier of the same classes.
        n: samples, of all classes in turn.
        seed: of the latents.

    Raises:
        UserError: if the run is not conditional, or the judge knows other classes.
    """
    names = run.model.class_names
    if not run.conditional:
        raise UserError(f"Label agreement needs a conditional run, and {run.path} is not conditional.")
    _require_classes(judge, names)
    predicted = judge.classify(run.sample(n, seed=seed)).argmax(axis=1)
    shown = np.array(judge.model.class_names)[predicted]
    return Share.of(shown == np.array([names[i % len(names)] for i in range(n)]))


def code_agreement(
    run: Run, judge: Run, n: int = 2000, seed: int = 1, *, predicted: np.ndarray | None = None
) -> dict[str, Share]:
    """Returns, for each categorical code, the share of samples whose class is the one matched to their code's value.

    Values and classes are matched one to one, so that they agree as often as possible. The arguments are those of
    `label_agreement`; `predicted` holds the judge's class indices for these samples, `(n,)`, where they are known.

    Raises:
        UserError: if the run has no categorical code.
    """
    codes = [code for code in run.codes if code.categorical]
    if not codes:
        raise UserError(f"{run.path} has no categorical code.")
    latents = run.latents_of_samples(n, seed)
    if predicted is None:
        predicted = judge.classify(run.decode(latents)).argmax(axis=1)
    classes = len(judge.model.class_names)
    return {code.name: matched(values_of(code, latents), predicted, code.size, classes) for code in codes}


def values_of(code: Code, latents: np.ndarray) -> np.ndarray:
    """Returns the values `(N,)` of a categorical code in latents `(N, Z)`."""
    values: np.ndarray = latents[:, code.start : code.start + code.size].argmax(axis=1)
    return values


def matched(values: np.ndarray, predicted: np.ndarray, size: int, classes: int) -> Share:
    """Returns the share of N samples whose class is the one matched to their code's value.

    Args:
        values: `(N,)`, of a code of this size.
        predicted: class indices `(N,)`, below `classes`.
    """
    table = np.zeros((size, classes), np.int64)
    np.add.at(table, (values, predicted), 1)
    class_of = np.full(size, -1)
    rows, columns = scipy.optimize.linear_sum_assignment(-table)
    class_of[rows] = columns
    return Share.of(class_of[values] == predicted)


def _require_classes(judge: Run, names: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in judge.model.class_names]
    if unknown:
        raise UserError(
            f"{judge.path} cannot judge: it knows the classes {', '.join(judge.model.class_names)}, but not "
            f"{', '.join(unknown)}."
        )
