"""Measures of a run: the quality of its samples, and its cost."""

from zeuxis.evaluation.agreement import Share, code_agreement, label_agreement
from zeuxis.evaluation.cost import Cost, cost
from zeuxis.evaluation.frechet import frechet_distance
from zeuxis.evaluation.neighbours import nearest_images
from zeuxis.evaluation.reconstruction import mean_squared_error
from zeuxis.evaluation.sharpness import sharpness
from zeuxis.evaluation.two_sample import TwoSample, energy_test

__all__ = [
    "Cost",
    "Share",
    "TwoSample",
    "code_agreement",
    "cost",
    "energy_test",
    "frechet_distance",
    "label_agreement",
    "mean_squared_error",
    "nearest_images",
    "sharpness",
]
