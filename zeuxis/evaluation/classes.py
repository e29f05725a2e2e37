r"""What a classifier sees in samples: the Inception Score, the classes covered, and how evenly.

    IS = exp E_x KL(p(y|x) | p(y)),    p(y) = E_x p(y|x),

is between 1 and the number of classes: high where every sample is surely of one class and all classes are drawn.
The entropy of the classes that samples are taken for is given as a share of the entropy of even draws.

Source: T. Salimans et al., Improved Techniques for Training GANs, NeurIPS 2016, section 4.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.measure import Figures, Material, Value, has_classifier, jackknife, measure

__all__ = ["class_entropy", "inception_score"]

GROUPS = 10
# A class that is drawn less often than this share of an even draw counts as lost.
LOST = 0.1


def inception_score(probabilities: np.ndarray) -> float:
    """IS of class probabilities `(N, K)`."""
    p = np.clip(probabilities.astype(np.float64), 1e-12, None)
    marginal = p.mean(axis=0)
    return float(np.exp((p * (np.log(p) - np.log(marginal))).sum(axis=1).mean()))


def class_entropy(said: np.ndarray, classes: int) -> float:
    """Entropy of class indices `(N,)`, 0..1: 1 where all classes are drawn alike."""
    share = np.bincount(said, minlength=classes) / len(said)
    return abs(float((share[share > 0] * np.log(share[share > 0])).sum() / np.log(classes)))


@measure(gives={"inception_score": "sure of one class each, all classes drawn"}, better="high", applies=has_classifier)
def score(material: Material) -> Figures:
    p = material.probabilities
    stderr = jackknife(GROUPS, len(p), lambda chosen: inception_score(p[chosen]))
    return {"inception_score": Value(inception_score(p), stderr, len(p), material.space, groups=GROUPS)}


@measure(
    gives={"classes_covered": "classes that samples are taken for", "class_entropy": "how evenly, 1 at best"},
    better="high",
    applies=has_classifier,
)
def covered(material: Material) -> Figures:
    p = material.probabilities
    said, classes = p.argmax(axis=1), p.shape[1]
    often = np.bincount(said, minlength=classes) >= LOST * len(said) / classes
    stderr = jackknife(GROUPS, len(said), lambda chosen: class_entropy(said[chosen], classes))
    return {
        "classes_covered": Value(float(often.sum()), None, len(said), material.space),
        "class_entropy": Value(class_entropy(said, classes), stderr, len(said), material.space, groups=GROUPS),
    }
