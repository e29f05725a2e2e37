r"""Classifier.

A network gives one logit for each class and minimises the cross-entropy of the image's class c,

    L = E[-log softmax(f(x))_c].

It generates no images. It predicts the classes of generated images, and its last features are a space in which
distances between sets of images are meaningful.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeuxis.errors import UserError
from zeuxis.models.base import ConditionalOptions, Inputs, Iteration, Model, Terms, phase
from zeuxis.models.registry import register

__all__ = ["Classifier"]


class ClassifierOptions(ConditionalOptions):
    """Options of the classifier."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the label spread over all classes")


@register("classifier")
class Classifier(Model):
    """A network that predicts the classes of images."""

    Options = ClassifierOptions
    options: ClassifierOptions
    labelled = True
    needs_classes = True

    def inputs(self) -> Inputs:
        return {"classifier": self.image_shape}

    def check(self) -> None:
        self.net("classifier").require_output((len(self.class_names),), "a value for each class")

    def classify(self, images: Tensor) -> Tensor:
        """Returns class logits `(B, K)` for `(B, C, H, W)` images."""
        return self.net("classifier")(images).logits

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the input of the last dense layer, `(B, F)`, and class logits, `(B, K)`."""
        network = self.net("classifier")
        if network.feature_shape is None:
            raise UserError(f"In {network.where}, there is no 'dense' layer, so there are no features to measure in.")
        output = network(images)
        return output.features, output.logits

    @phase("classifier", updates="classifier")
    def classifier_terms(self, iteration: Iteration) -> Terms:
        logits = self.classify(iteration.images)
        iteration.log("accuracy_class", (logits.detach().argmax(dim=1) == iteration.labels).float().mean(), "share")
        return {
            "cross_entropy": F.cross_entropy(logits, iteration.labels, label_smoothing=self.options.label_smoothing)
        }

    def test(self, iteration: Iteration) -> dict[str, Tensor]:
        """Returns `error`, the share of images classified wrongly, and `cross_entropy`."""
        logits = self.classify(iteration.images)
        wrong = (logits.argmax(dim=1) != iteration.labels).float().mean()
        return {"error": wrong, "cross_entropy": F.cross_entropy(logits, iteration.labels)}
