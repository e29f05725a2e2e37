r"""CVAE-GAN.

A VAE-GAN that is told the class c: encoder q(z|x, c), decoder G(z, c). A discriminator judges whether an image is
real, and a classifier C, which learns from real images alone, whether it shows the class that was asked for:

    classifier:  E[-log C(c|x)]
    decoder:     the VAE-GAN's terms, + kappa E[-log C(c|G(z, c))]

and reconstructions are compared in the classifier's features too. Four phases with an optimiser each. Where the
published model matches the mean features of real and generated images, here the decoder fools the discriminator
by the adversarial loss of the options.

Source: J. Bao, D. Chen, F. Wen, H. Li and G. Hua, CVAE-GAN: Fine-Grained Image Generation through Asymmetric
Training, ICCV 2017, section 3.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeuxis.errors import UserError
from zeuxis.models.base import ConditionalOptions, Inputs, Iteration, Terms, Weighted, phase
from zeuxis.models.registry import register
from zeuxis.models.vae_gan import VAEGAN, VAEGANOptions

__all__ = ["CVAEGAN"]


class CVAEGANOptions(VAEGANOptions, ConditionalOptions):
    """Options of the conditional VAE-GAN with a classifier."""

    class_weight: float = Field(0.1, gt=0, le=1e6, description="kappa: of the decoder's class loss")


@register("cvae-gan")
class CVAEGAN(VAEGAN):
    """A VAE-GAN that draws the class it is asked for."""

    Options = CVAEGANOptions
    options: CVAEGANOptions
    conditional = True
    needs_classes = True

    def inputs(self) -> Inputs:
        return {**super().inputs(), "classifier": self.image_shape}

    def check(self) -> None:
        super().check()
        classifier = self.net("classifier")
        if classifier.head_shapes != {"class": (len(self.class_names),)}:
            raise UserError(
                f"In {classifier.where}, the layers must end in features, with a head 'class' of "
                f"{len(self.class_names)} values after them (`dense classes`)."
            )

    def classify(self, images: Tensor) -> Tensor:
        """Logits `(B, K)` of the classes."""
        return self.net("classifier")(images).heads["class"].logits

    def feature_error(self, images: Tensor, made: Tensor, network: str = "discriminator") -> Tensor:
        seen = super().feature_error(images, made, network)
        return seen + super().feature_error(images, made, "classifier")

    def extra_generator_terms(self, iteration: Iteration) -> Terms:
        named = F.cross_entropy(self.classify(self.fakes(iteration)), iteration.labels)
        return {"class": Weighted(named, self.options.class_weight)}

    @phase("classifier", updates="classifier")
    def classifier_terms(self, iteration: Iteration) -> Terms:
        logits = self.classify(iteration.images)
        iteration.log("accuracy_class", (logits.detach().argmax(dim=1) == iteration.labels).float().mean(), "share")
        return {"cross_entropy": F.cross_entropy(logits, iteration.labels)}
