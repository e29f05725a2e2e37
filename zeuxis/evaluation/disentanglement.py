r"""Disentanglement: whether each latent, or each code, represents one of the factors that generated the images.

With z_d the latents of an image (posterior means, or the codes that a model reads from it) and v_f its known factors:

- MIG, the mutual information gap: for each factor, the gap in mutual information between its two most informative
  latents, as a share of its entropy, 1/F sum_f (I(z_1; v_f) - I(z_2; v_f)) / H(v_f), where z_1 and z_2 are the best and
  the second best latent for f. Latents are cut into 20 bins of equal width.
- DCI: a random forest learns each factor from the latents; R[d, f] is the importance of latent d for factor f.
  Disentanglement is 1 - H(R[d, :]) in base F, averaged over latents by their share of all importance: it is high where
  each latent represents one factor. Completeness is 1 - H(R[:, f]) in base D, averaged over factors: it is high where
  each factor is in one latent. Informativeness is the forests' accuracy on held-out images, averaged over factors.

All are 1 where the latents are the factors, and near 0 for noise (informativeness falls to chance instead).

Sources: R. T. Q. Chen, X. Li, R. Grosse and D. Duvenaud, Isolating Sources of Disentanglement in VAEs, NeurIPS
2018, section 4; C. Eastwood and C. K. I. Williams, A framework for the quantitative evaluation of disentangled
representations, ICLR 2018, section 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

from zeuxis.evaluation.control import mutual_information
from zeuxis.evaluation.measure import Figures, Material, Value, jackknife, measure, too_few
from zeuxis.run import Run

__all__ = ["DCI", "dci", "mutual_information_gap"]

BINS, GROUPS, FOLDS, TREES = 20, 10, 5, 50
IMAGES = 5000
# With fewer images, a forest would learn from fewer than sixteen.
FEWEST = 100


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness, each in 0..1."""

    disentanglement: float
    completeness: float
    informativeness: float


def mutual_information_gap(latents: np.ndarray, factors: np.ndarray) -> float:
    """Computes the MIG, in 0..1.

    Args:
        latents: `(N, D)` numbers.
        factors: `(N, F)` indices.
    """
    binned = np.stack([np.digitize(column, np.histogram_bin_edges(column, BINS)[1:-1]) for column in latents.T])
    gaps = []
    for factor in factors.T:
        information = sorted([0.0, *(mutual_information(column, factor) for column in binned)])
        gaps.append((information[-1] - information[-2]) / scipy.stats.entropy(np.bincount(factor)))
    return float(np.mean(gaps))


def dci(latents: np.ndarray, factors: np.ndarray, seed: int = 0) -> DCI:
    """Computes DCI by random forests, which are trained on four fifths of the images and tested on the rest.

    Args:
        latents: `(N, D)` numbers.
        factors: `(N, F)` indices.
        seed: of the forests and of the split.
    """
    from sklearn.ensemble import RandomForestClassifier

    order = np.random.default_rng(seed).permutation(len(latents))
    test, train = np.split(order, [len(order) // 5])
    importances, accuracies = [], []
    for factor in factors.T:
        # Every split considers all latents: with a random few, uninformative latents would gain importance.
        forest = RandomForestClassifier(TREES, max_features=None, random_state=seed)
        forest.fit(latents[train], factor[train])
        importances.append(forest.feature_importances_)
        accuracies.append(forest.score(latents[test], factor[test]))
    table = np.stack(importances, axis=1)
    return DCI(
        _concentration(table, table.sum(axis=1)), _concentration(table.T, table.sum(axis=0)), float(np.mean(accuracies))
    )


def _concentration(table: np.ndarray, weights: np.ndarray) -> float:
    """Returns one minus the entropy of each row, in the base of its length, averaged by weight."""
    if table.shape[1] == 1:
        return 1.0
    if not weights.any():
        return 0.0
    rows = table[weights > 0]
    return float(np.average(1 - scipy.stats.entropy(rows, axis=1, base=table.shape[1]), weights=weights[weights > 0]))


def representation(run: Run, indices: np.ndarray) -> np.ndarray:
    """Returns a run's representation of its images, `(N, D)`: posterior means, or the code values that it reads."""
    images = run.images(indices)
    return run.encode(images, run.condition_of_labels(run.labels(indices))) if run.encodes else run.read_codes(images)


@measure(
    gives={
        "mig": "information gap between the two most informative latents of a factor, as a share of its entropy",
        "dci_disentanglement": "how far each latent represents a single factor",
        "dci_completeness": "how far each factor is represented by a single latent",
        "dci_informativeness": "accuracy with which a random forest predicts a factor from the latents",
    },
    better="high",
    applies=lambda material: bool(material.run.factors) and (material.run.encodes or bool(material.run.codes)),
)
def disentangled(material: Material) -> Figures:
    run = material.run
    indices = run.choose_images("train", IMAGES)
    latents, factors = representation(run, indices), run.factor_values(indices)
    factors = factors[:, np.ptp(factors, axis=0) > 0]  # a selection of classes may leave a factor with one value
    reason = too_few(FEWEST, len(indices), "training images")
    if not factors.shape[1]:
        reason = "its images do not differ in any factor"
    if not np.isfinite(latents).all():
        reason = "its latents are not all finite"
    if reason:
        return dict.fromkeys(("mig", *(f"dci_{name}" for name in DCI._fields)), reason)
    gap = mutual_information_gap(latents, factors)
    stderr = jackknife(GROUPS, len(indices), lambda mask: mutual_information_gap(latents[mask], factors[mask]))
    folds = np.array([dci(latents[i::FOLDS], factors[i::FOLDS], seed=i) for i in range(FOLDS)])
    means, errors = folds.mean(axis=0).tolist(), (folds.std(axis=0, ddof=1) / np.sqrt(FOLDS)).tolist()
    return {"mig": Value(gap, stderr, len(indices), groups=GROUPS)} | {
        f"dci_{name}": Value(mean, error, len(indices), groups=FOLDS)
        for name, mean, error in zip(DCI._fields, means, errors, strict=True)
    }
