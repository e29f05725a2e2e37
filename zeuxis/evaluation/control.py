r"""Control: whether a model generates the class it is asked for, and what its codes have come to mean.

Besides the agreement with requested classes and with matched codes (`zeuxis.evaluation.agreement`), this is the mutual
information between a categorical code c and the class y that the judge predicts,

    I(c; y) = sum p(c, y) log p(c, y) / (p(c) p(y)),

as a share of log K, its value where each of K values generates a class of its own.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.agreement import Share, code_agreement
from zeuxis.evaluation.measure import Figures, Material, Value, has_classifier, jackknife, measure
from zeuxis.models import Code

__all__ = ["mutual_information"]

GROUPS = 10


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the mutual information of two series of indices, both `(N,)`, in nats."""
    from sklearn.metrics import mutual_info_score

    return float(mutual_info_score(a, b))


@measure(
    gives={"label_agreement": "share of samples that show the requested class"},
    better="high",
    applies=lambda material: (
        has_classifier(material)
        and material.run.conditional
        and bool(material.run.model.class_names)
        and set(material.run.model.class_names) <= set(material.classifier.model.class_names)
    ),
)
def asked(material: Material) -> Figures:
    shown = np.array(material.classifier.model.class_names)[material.probabilities.argmax(axis=1)]
    wanted = np.array(material.run.model.class_names)[material.labels]
    return {"label_agreement": Value(*Share.of(shown == wanted), material.space)}


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
    run, judge = material.run, material.classifier
    code = _class_codes(material)[0]
    predicted = material.probabilities.argmax(axis=1)
    share = code_agreement(run, judge, material.n, material.seed, predicted=predicted)[code.name]
    values = run.latents(material.n, material.seed)[:, code.start : code.start + code.size].argmax(axis=1)
    maximum = np.log(min(code.size, material.probabilities.shape[1]))
    stderr = jackknife(GROUPS, len(predicted), lambda mask: mutual_information(values[mask], predicted[mask]) / maximum)
    return {
        "code_agreement": Value(*share, material.space),
        "code_information": Value(
            mutual_information(values, predicted) / maximum, stderr, len(predicted), material.space, groups=GROUPS
        ),
    }
