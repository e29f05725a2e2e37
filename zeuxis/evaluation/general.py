"""Distances and coverage of colour images in the features of a general network, beside those of the images' own judge.

A classifier of the images' own classes prefers a model that was trained on these classes: a judge of smiles finds the
samples of a GAN that was asked for smiles nearer to the images than the eye does. EfficientNet-Lite0
(`zeuxis.evaluation.efficientnet`) knows a thousand kinds of things and none of ours. Comparisons of photographs and
drawings in colour lead with it.
"""

from __future__ import annotations

from zeuxis.evaluation.efficientnet import EfficientNet
from zeuxis.evaluation.frechet import distance_value
from zeuxis.evaluation.measure import Figures, Material, measure
from zeuxis.evaluation.neighbourhoods import prdc
from zeuxis.nets.photographs import installed
from zeuxis.run import Run

__all__ = ["by_general_judge", "general_applies"]


def general_applies(material: Material) -> bool:
    """Whether the general judge is asked besides the run's own."""
    run = material.run
    colour = run.generates and run.recipe.data.channels >= 3
    return colour and isinstance(material.judge, Run) and installed()


def by_general_judge(material: Material) -> Material:
    """The same samples and images, with the general judge; made once for all measures."""
    return material.once(
        "by the general judge", lambda: material.with_judge(EfficientNet(material.run.recipe.data.shape))
    )


@measure(
    gives={"general_fid": "Frechet distance in the features of a general network"},
    better="low",
    applies=general_applies,
)
def general_fid(material: Material) -> Figures:
    return {"general_fid": distance_value(by_general_judge(material))}


@measure(
    gives={
        "general_precision": "precision in the features of a general network",
        "general_recall": "recall in the features of a general network",
        "general_density": "density in the features of a general network",
        "general_coverage": "coverage in the features of a general network",
    },
    better="high",
    applies=general_applies,
)
def general_prdc(material: Material) -> Figures:
    return {f"general_{name}": value for name, value in prdc(by_general_judge(material)).items()}
