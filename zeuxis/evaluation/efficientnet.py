"""EfficientNet-Lite0, trained on ImageNet: the general judge, which works offline.

The features are those before the last layer, averaged over the image: 1,280 of them. For the network itself and its
sources, see `zeuxis.nets.photographs`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from zeuxis.data import to_bytes
from zeuxis.evaluation.features import JUDGES, FeatureJudge, resized
from zeuxis.nets import Shape
from zeuxis.nets.photographs import efficientnet, inputs_of
from zeuxis.recipe import Section

__all__ = ["EfficientNet"]


class EfficientNetOptions(Section):
    """Options of the judge."""

    size: int = Field(128, ge=32, le=512, description="images are resized to this many pixels a side")


@JUDGES.add("efficientnet")
class EfficientNet(FeatureJudge):
    """Pooled features of EfficientNet-Lite0.

    Raises:
        UserError: if its package is not installed.
    """

    Options = EfficientNetOptions
    options: EfficientNetOptions
    main: ClassVar[str] = "size"

    def __init__(self, shape: Shape, **options: Any) -> None:
        super().__init__(shape, **options)
        self.name = f"efficientnet-lite0 at {self.options.size}"
        self.network = efficientnet()

    def extract(self, pixels: Tensor) -> Tensor:
        return self.network.features(inputs_of(resized(pixels, self.options.size)))

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns ImageNet logits `(N, 1000)` of `(N, H, W, C)` images in 0..1 or bytes."""
        pixels = torch.as_tensor(to_bytes(images)).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            logits: Tensor = self.network(inputs_of(resized(pixels, self.options.size)))
        return logits.numpy()
