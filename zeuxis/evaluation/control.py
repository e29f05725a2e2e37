r"""Control: whether a model draws what it is asked for, and what its codes came to mean.

Besides the agreement of asked-for classes and of matched codes (`zeuxis.evaluation.agreement`), the mutual information
between a categorical code c and the class y that the judge sees,

    I(c; y) = sum p(c, y) log p(c, y) / (p(c) p(y)),

as a share of log K, its value where each of K values draws a class of its own.
"""

from __future__ import annotations

import numpy as np

from zeuxis.evaluation.agreement import code_agreement, label_agreement
from zeuxis.evaluation.measure import Figures, Material, Value, has_classifier, jackknife, measure
from zeuxis.models import Code

__all__ = ["mutual_information"]

GROUPS = 10


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information of two series of indices, both `(N,)`, in nats."""
    from sklearn.metrics import mutual_info_score

    return float(mutual_info_score(a, b))


@measure(
    gives={"label_agreement": "share of samples that show the class they were asked for"},
    better="high",
    applies=lambda material: (
        has_classifier(material)
        and material.run.conditional
        and set(material.run.model.class_names) <= set(material.classifier.model.class_names)
    ),
)
def asked(material: Material) -> Figures:
    share = label_agreement(material.run, material.classifier, n=material.n, seed=material.seed)
    return {"label_agreement": Value(*share, material.space)}


def _class_codes(material: Material) -> list[Code]:
    """Codes with a value for each class that the judge knows."""
    classes = len(material.classifier.model.class_names)
    return [code for code in material.run.codes if code.categorical and code.size == classes]


@measure(
    gives={
        "code_agreement": "share of samples of the class that their code stands for",
        "code_information": "information of the code about the class, as a share of what it could be",
    },
    better="high",
    applies=lambda material: has_classifier(material) and bool(_class_codes(material)),
)
def codes(material: Material) -> Figures:
    run, judge = material.run, material.classifier
    code = _class_codes(material)[0]
    share = code_agreement(run, judge, n=material.n, seed=material.seed)[code.name]
    drawn = run.latents(material.n, material.seed)[:, code.start : code.start + code.size].argmax(axis=1)
    said = material.probabilities.argmax(axis=1)
    most = np.log(min(code.size, material.probabilities.shape[1]))
    stderr = jackknife(GROUPS, len(said), lambda chosen: mutual_information(drawn[chosen], said[chosen]) / most)
    return {
        "code_agreement": Value(*share, material.space),
        "code_information": Value(
            mutual_information(drawn, said) / most, stderr, len(said), material.space, groups=GROUPS
        ),
    }
