"""The models, one file each, with their losses and phases."""

from zeuxis.models.base import (
    Classifies,
    Code,
    Encodes,
    Generates,
    HasCodes,
    HasDensity,
    HasFeatures,
    HasLikelihood,
    HasPrior,
    Iteration,
    Model,
    ModelOptions,
    Phase,
    Posterior,
    Weighted,
    phase,
)
from zeuxis.models.registry import MODELS, build_model, register

__all__ = [
    "MODELS",
    "Classifies",
    "Code",
    "Encodes",
    "Generates",
    "HasCodes",
    "HasDensity",
    "HasFeatures",
    "HasLikelihood",
    "HasPrior",
    "Iteration",
    "Model",
    "ModelOptions",
    "Phase",
    "Posterior",
    "Weighted",
    "build_model",
    "phase",
    "register",
]
