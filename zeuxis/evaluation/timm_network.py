"""Any network of timm as a judge: `--judge timm:vit_small_patch14_dinov2.lvd142m`.

Features of DINOv2 agree with what people find alike better than those of Inception (G. Stein et al., Exposing Flaws of
Generative Model Evaluation Metrics and Their Unfair Treatment of Diffusion Models, NeurIPS 2023). Weights are fetched
from the model hub when a network is first used.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from zeuxis.errors import UserError, nearest, quoted
from zeuxis.evaluation.features import JUDGES, FeatureJudge, resized
from zeuxis.nets import Shape
from zeuxis.recipe import Section

__all__ = ["TimmNetwork"]


class TimmOptions(Section):
    """Options of the judge."""

    model: str = Field("vit_small_patch14_dinov2.lvd142m", max_length=200, description="name of the network in timm")


@JUDGES.add("timm")
class TimmNetwork(FeatureJudge):
    """Pooled features of a pretrained network of timm, at the size that it was trained for.

    Raises:
        UserError: if timm is not installed, has no such network, or its weights cannot be fetched.
    """

    Options = TimmOptions
    options: TimmOptions
    main: ClassVar[str] = "model"
    chunk: ClassVar[int] = 16

    def __init__(self, shape: Shape, **options: Any) -> None:
        super().__init__(shape, **options)
        try:
            import timm
        except ImportError as error:
            raise UserError("The judge 'timm' needs timm: pip install 'zeuxis[timm]'.") from error
        model = self.options.model
        if not timm.is_model(model.partition(".")[0]):
            raise UserError(f"timm has no network '{quoted(model)}'.{nearest(model, timm.list_models())}")
        try:
            self.network: Any = timm.create_model(model, pretrained=True, num_classes=0).eval()
        except Exception as error:  # whatever the hub's client raises
            raise UserError(f"The weights of '{quoted(model)}' cannot be fetched ({quoted(str(error))}).") from error
        settings = timm.data.resolve_model_data_config(self.network)
        self.size = int(settings["input_size"][-1])
        self.mean, self.deviation = (np.array(settings[key], np.float32) * 255 for key in ("mean", "std"))
        self.name = f"timm {model} at {self.size}"

    def extract(self, pixels: Tensor) -> Tensor:
        mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.deviation))
        features: Tensor = self.network((resized(pixels, self.size) - mean) / deviation)
        return features
