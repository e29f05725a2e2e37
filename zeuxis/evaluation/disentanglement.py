r"""Disentanglement: whether each latent, or each code, stands for one factor that the images were drawn by.

With z_d the latents of an image (posterior means, or what a model reads of its codes) and v_f its known factors:

- MIG, the mutual information gap: for each factor the distance between the two latents that tell most of it, as a
  share of all there is to tell, 1/F sum_f (I(z_1; v_f) - I(z_2; v_f)) / H(v_f), where z_1 and z_2 are the best and
  the second best for f; latents are cut into 20 bins of equal width.
- DCI: a random forest learns each factor from the latents; R[d, f] is the importance of latent d for factor f.
  Disentanglement is 1 - H(R[d, :]) in base F, averaged over latents by their share of all importance: each latent
  serves one factor. Completeness is 1 - H(R[:, f]) in base D, averaged over factors: each factor is in one latent.
  Informativeness is how often the forests are right on images held back, averaged over factors.

All are 1 where the latents are the factors, and (informativeness aside, which falls to chance) near 0 for noise.

Sources: R. T. Q. Chen, X. Li, R. Grosse and D. Duvenaud, Isolating Sources of Disentanglement in VAEs, NeurIPS
2018, section 4; C. Eastwood and C. K. I. Williams, A framework for the quantitative evaluation of disentangled
representations, ICLR 2018, section 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import entropy

from zeuxis.evaluation.control import mutual_information
from zeuxis.evaluation.measure import Figures, Material, Value, jackknife, measure, too_few
from zeuxis.run import Run

__all__ = ["DCI", "dci", "mutual_information_gap"]

BINS, GROUPS, FOLDS, TREES = 20, 10, 5, 50
IMAGES = 5000
# Fewer would leave a forest less than sixteen images to learn from.
FEWEST = 100


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness, each in 0..1."""

    disentanglement: float
    completeness: float
    informativeness: float


def mutual_information_gap(latents: np.ndarray, factors: np.ndarray) -> float:
    """MIG, in 0..1.

    Args:
        latents: `(N, D)` numbers.
        factors: `(N, F)` indices.
    """
    cut = np.stack([np.digitize(column, np.histogram_bin_edges(column, BINS)[1:-1]) for column in latents.T])
    gaps = []
    for factor in factors.T:
        told = sorted([0.0, *(mutual_information(column, factor) for column in cut)])
        gaps.append((told[-1] - told[-2]) / entropy(np.bincount(factor)))
    return float(np.mean(gaps))


def dci(latents: np.ndarray, factors: np.ndarray, seed: int = 0) -> DCI:
    """DCI by random forests, which learn from four fifths of the images and are tried on the rest.

    Args:
        latents: `(N, D)` numbers.
        factors: `(N, F)` indices.
        seed: of the forests and of the choice.
    """
    from sklearn.ensemble import RandomForestClassifier

    order = np.random.default_rng(seed).permutation(len(latents))
    held, learnt = np.split(order, [len(order) // 5])
    importances, right = [], []
    for factor in factors.T:
        # Every split looks at all latents: choosing among a few credits those that tell nothing.
        forest = RandomForestClassifier(TREES, max_features=None, random_state=seed)
        forest.fit(latents[learnt], factor[learnt])
        importances.append(forest.feature_importances_)
        right.append(forest.score(latents[held], factor[held]))
    table = np.stack(importances, axis=1)
    return DCI(
        _concentration(table, table.sum(axis=1)), _concentration(table.T, table.sum(axis=0)), float(np.mean(right))
    )


def _concentration(table: np.ndarray, weights: np.ndarray) -> float:
    """One minus the entropy of each row, in the base of its length, averaged by weight."""
    if table.shape[1] == 1:
        return 1.0
    if not weights.any():
        return 0.0
    rows = table[weights > 0]
    return float(np.average(1 - entropy(rows, axis=1, base=table.shape[1]), weights=weights[weights > 0]))


def representation(run: Run, indices: np.ndarray) -> np.ndarray:
    """What a run holds images of its data for, `(N, D)`: posterior means, or the values of codes that it reads."""
    images = run.images(indices)
    return run.encode(images, run.condition(run.labels(indices))) if run.encodes else run.read_codes(images)


@measure(
    gives={
        "mig": "gap between the two latents that tell most of a factor, as a share of all there is to tell",
        "dci_disentanglement": "how far each latent serves one factor alone",
        "dci_completeness": "how far each factor is held in one latent alone",
        "dci_informativeness": "how often a forest reads a factor off the latents",
    },
    better="high",
    applies=lambda material: bool(material.run.factors) and (material.run.encodes or bool(material.run.codes)),
)
def disentangled(material: Material) -> Figures:
    run = material.run
    chosen = run.choose_images("train", IMAGES)
    latents, factors = representation(run, chosen), run.factor_values(chosen)
    factors = factors[:, np.ptp(factors, axis=0) > 0]  # of chosen classes, one may have a single value
    reason = too_few(FEWEST, len(chosen), "training images")
    if not factors.shape[1]:
        reason = "its images do not differ in any factor"
    if not np.isfinite(latents).all():
        reason = "its latents are not all finite"
    if reason:
        return dict.fromkeys(("mig", *(f"dci_{name}" for name in DCI._fields)), reason)
    gap = mutual_information_gap(latents, factors)
    stderr = jackknife(GROUPS, len(chosen), lambda kept: mutual_information_gap(latents[kept], factors[kept]))
    folds = np.array([dci(latents[i::FOLDS], factors[i::FOLDS], seed=i) for i in range(FOLDS)])
    means, errors = folds.mean(axis=0).tolist(), (folds.std(axis=0, ddof=1) / np.sqrt(FOLDS)).tolist()
    return {"mig": Value(gap, stderr, len(chosen), groups=GROUPS)} | {
        f"dci_{name}": Value(mean, error, len(chosen), groups=FOLDS)
        for name, mean, error in zip(DCI._fields, means, errors, strict=True)
    }
