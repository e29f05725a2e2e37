r"""Control: whether a model generates the class it is asked for, and what its codes have come to mean.

Besides the agreement with requested classes and with matched codes (`zeuxis.evaluation.agreement`), this is the mutual
information between a categorical code c and the class y that the judge predicts,

    I(c; y) = sum p(c, y) log p(c, y) / (p(c) p(y)),

as a share of log K, its value where each of K values generates a class of its own.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.agreement import Share, matched, values_of
from zeuxis.evaluation.measure import Figures, Material, Value, has_classifier, jackknife, measure, too_few
from zeuxis.models import Code

__all__ = ["mutual_information"]

GROUPS = 10
# Fewer held-out images say little of a judge.
FEWEST = 100


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the mutual information of two series of indices, both `(N,)`, in nats."""
    from sklearn.metrics import mutual_info_score

    return float(mutual_info_score(a, b))


def _asks_for_known_classes(material: Material) -> bool:
    """Whether the judge knows the classes that the model is asked for."""
    if not (has_classifier(material) and material.run.conditional):
        return False
    asked = material.run.model.class_names
    return bool(asked) and set(asked) <= set(material.classifier.model.class_names)


def _named_rightly(material: Material, probabilities: np.ndarray, labels: np.ndarray) -> Value:
    """The share of images that the judge gives the class of their label."""
    named = np.array(material.classifier.model.class_names)[probabilities.argmax(axis=1)]
    return Value(*Share.of(named == np.array(material.run.model.class_names)[labels]), material.space)


@measure(
    gives={"label_agreement": "share of samples that show the requested class"},
    better="high",
    applies=_asks_for_known_classes,
)
def asked(material: Material) -> Figures:
    assert material.labels is not None, "the model is conditional"
    return {"label_agreement": _named_rightly(material, material.probabilities, material.labels)}


@measure(
    gives={"label_agreement_real": "share of held-out images whose class the judge names: a scale for the agreement"},
    better="",
    applies=_asks_for_known_classes,
)
def named(material: Material) -> Figures:
    held_out = material.run.choose_images("test", material.n)
    if reason := too_few(FEWEST, len(held_out), "held-out images"):
        return {"label_agreement_real": reason}
    labels = material.run.labels(held_out)
    assert labels is not None, "the model is conditional"
    return {"label_agreement_real": _named_rightly(material, material.probabilities_of("test"), labels)}


def _class_codes(material: Material) -> list[Code]:
    """Returns the codes with one value for each class that the judge knows."""
    classes = len(material.classifier.model.class_names)
    return [code for code in material.run.codes if code.categorical and code.size == classes]


@measure(
    gives={
        "code_agreement": "share of samples whose class is the one matched to their code",
        "code_information": "mutual information of code and class, as a share of its maximum",
    },
    better="high",
    applies=lambda material: has_classifier(material) and bool(_class_codes(material)),
)
def codes(material: Material) -> Figures:
    code = _class_codes(material)[0]
    values, predicted = values_of(code, material.latents), material.probabilities.argmax(axis=1)
    classes = material.probabilities.shape[1]
    share, maximum = matched(values, predicted, code.size, classes), np.log(min(code.size, classes))
    stderr = jackknife(GROUPS, len(predicted), lambda mask: mutual_information(values[mask], predicted[mask]) / maximum)
    return {
        "code_agreement": Value(*share, material.space),
        "code_information": Value(
            mutual_information(values, predicted) / maximum, stderr, len(predicted), material.space, groups=GROUPS
        ),
    }
