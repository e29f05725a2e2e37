r"""Classes of samples, according to a classifier: the Inception Score, the classes covered, and how evenly.

    IS = exp E_x KL(p(y|x) | p(y)),    p(y) = E_x p(y|x),

lies between 1 and the number of classes. It is high where every sample is clearly of one class and all classes occur.
The class entropy is the entropy of the predicted classes, as a share of that of the uniform distribution.

Source: T. Salimans et al., Improved Techniques for Training GANs, NeurIPS 2016, section 4.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.measure import (
    Figures,
    Material,
    Value,
    has_classifier,
    has_classifier_of_its_classes,
    jackknife,
    measure,
)

__all__ = ["class_entropy", "inception_score"]

GROUPS = 10
# A class with less than this share of the samples it would have in a uniform distribution counts as lost.
LOST = 0.1


def inception_score(probabilities: np.ndarray) -> float:
    """Computes the Inception Score of class probabilities `(N, K)`."""
    p = np.clip(probabilities.astype(np.float64), 1e-12, None)
    marginal = p.mean(axis=0)
    return float(np.exp((p * (np.log(p) - np.log(marginal))).sum(axis=1).mean()))


def class_entropy(predicted: np.ndarray, classes: int) -> float:
    """Computes the entropy of class indices `(N,)` in 0..1: 1 where all classes are equally frequent."""
    share = np.bincount(predicted, minlength=classes) / len(predicted)
    return abs(float((share[share > 0] * np.log(share[share > 0])).sum() / np.log(classes)))


@measure(
    gives={"inception_score": "high where every sample is clearly of one class and all classes occur"},
    better="high",
    applies=has_classifier,
)
def score(material: Material) -> Figures:
    p = material.probabilities
    stderr = jackknife(GROUPS, len(p), lambda mask: inception_score(p[mask]))
    return {"inception_score": Value(inception_score(p), stderr, len(p), material.space, groups=GROUPS)}


@measure(
    gives={
        "classes_covered": "number of classes that occur among the samples",
        "class_entropy": "how evenly the classes occur; 1 is uniform",
    },
    better="high",
    applies=has_classifier_of_its_classes,
)
def covered(material: Material) -> Figures:
    p = material.probabilities
    predicted, classes = p.argmax(axis=1), p.shape[1]
    is_covered = np.bincount(predicted, minlength=classes) >= LOST * len(predicted) / classes
    stderr = jackknife(GROUPS, len(predicted), lambda mask: class_entropy(predicted[mask], classes))
    return {
        "classes_covered": Value(float(is_covered.sum()), None, len(predicted), material.space),
        "class_entropy": Value(
            class_entropy(predicted, classes), stderr, len(predicted), material.space, groups=GROUPS
        ),
    }
