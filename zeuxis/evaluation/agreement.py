"""Whether samples show what was asked for, as a classifier sees it.

The judge is a run of a classifier on the same kind of images; what it gets wrong on real images bounds what an
agreement can say.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from zeuxis.errors import UserError
from zeuxis.run import Run

__all__ = ["Share", "code_agreement", "label_agreement"]


class Share(NamedTuple):
    """A share of n samples, with its binomial standard error.

    The error is that of a share with one hit and one miss more (Laplace's rule of succession), so that all or none of a
    few samples are not taken for certainty.
    """

    value: float
    stderr: float
    n: int

    @classmethod
    def of(cls, hits: np.ndarray) -> Share:
        """The share of true values among `(N,)`."""
        n = len(hits)
        likely = (np.sum(hits) + 1) / (n + 2)
        return cls(float(np.mean(hits)), float(np.sqrt(likely * (1 - likely) / n)), n)


def label_agreement(run: Run, judge: Run, n: int = 2000, seed: int = 1) -> Share:
    """Share of samples whose class, as the judge sees it, is the one that was asked for.

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
        raise UserError(f"{run.path} is not conditional, so nothing was asked for that a sample could agree with.")
    _require_classes(judge, names)
    said = np.array(judge.model.class_names)[judge.classify(run.sample(n, seed=seed)).argmax(axis=1)]
    return Share.of(said == np.array([names[i % len(names)] for i in range(n)]))


def code_agreement(run: Run, judge: Run, n: int = 2000, seed: int = 1) -> dict[str, Share]:
    """For each categorical code, the share of samples whose class is the one that their value stands for.

    Values are matched to classes one to one, in the way that agrees most often.

    Raises:
        UserError: if the run has no categorical code.
    """
    codes = [code for code in run.codes if code.categorical]
    if not codes:
        raise UserError(f"{run.path} has no categorical code.")
    latents = run.latents(n, seed)
    said = judge.classify(run.decode(latents)).argmax(axis=1)
    found = {}
    for code in codes:
        drawn = latents[:, code.start : code.start + code.size].argmax(axis=1)
        table = np.zeros((code.size, len(judge.model.class_names)), np.int64)
        np.add.at(table, (drawn, said), 1)
        stands_for = np.full(code.size, -1)
        rows, columns = linear_sum_assignment(-table)
        stands_for[rows] = columns
        found[code.name] = Share.of(stands_for[drawn] == said)
    return found


def _require_classes(judge: Run, names: tuple[str, ...]) -> None:
    strange = [name for name in names if name not in judge.model.class_names]
    if strange:
        raise UserError(
            f"{judge.path} cannot judge: it knows the classes {', '.join(judge.model.class_names)}, and not "
            f"{', '.join(strange)}."
        )
