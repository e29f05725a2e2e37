"""The Inception network in whose features published distances are measured, through torch-fidelity.

It was trained on photographs of a thousand kinds of objects, at 299 pixels, with no digits or small faces among them.
Its distances allow comparison with the literature; a judge trained on the images themselves sees finer differences.

Source: M. Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, NeurIPS
2017; A. Obukhov et al., High-fidelity performance metrics for generative models in PyTorch, 2020 (torch-fidelity).
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.error import URLError

import torch
from torch import Tensor

from zeuxis.errors import UserError
from zeuxis.evaluation.features import JUDGES, FeatureJudge
from zeuxis.nets import Shape

__all__ = ["Inception"]


@JUDGES.add("inception")
class Inception(FeatureJudge):
    """The 2,048 features of Inception v3's last pooling layer.

    Raises:
        UserError: if torch-fidelity is not installed, or its weights are not stored and cannot be downloaded.
    """

    name = "inception-v3"
    chunk: ClassVar[int] = 32
    rounds: ClassVar[bool] = True

    def __init__(self, shape: Shape, **options: Any) -> None:
        super().__init__(shape, **options)
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision for another PyTorch
            raise UserError(
                f"Inception features need torch-fidelity, which cannot be loaded here ({error}): "
                "pip install 'zeuxis[inception]', with a torchvision that fits PyTorch; or measure in another judge's "
                "features."
            ) from error
        try:
            self.network: Any = FeatureExtractorInceptionV3(self.name, ["2048"])
        except (URLError, OSError) as error:
            raise UserError(
                f"The weights of Inception cannot be downloaded ({error}); fetch {URL_INCEPTION_V3} elsewhere and "
                f"put it into {torch.hub.get_dir()}/checkpoints."
            ) from error

    def extract(self, pixels: Tensor) -> Tensor:
        # torch-fidelity's network takes bytes and resizes them itself.
        features: Tensor = self.network(pixels.round().to(torch.uint8).expand(-1, 3, -1, -1))[0]
        return features
