r"""CVAE-GAN.

A VAE-GAN conditional on the class c, with encoder q(z|x, c) and decoder G(z, c). A discriminator judges whether an
image is real. A classifier C, trained on real images only, judges whether it shows the class c:

    classifier:  E[-log C(c|x)]
    decoder:     the VAE-GAN's terms, + kappa E[-log C(c|G(z, c))]

and reconstructions are also compared in the classifier's features. There are four phases, each with its own optimiser.
The published model matches the mean features of real and generated images; here the decoder is trained against the
discriminator with the adversarial loss of the options instead.

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
    """A VAE-GAN conditional on the class."""

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
        """Returns class logits `(B, K)` for `(B, C, H, W)` images."""
        return self.net("classifier")(images).heads["class"].logits

    def feature_error(self, images: Tensor, reconstructions: Tensor, network: str = "discriminator") -> Tensor:
        error = super().feature_error(images, reconstructions, network)
        return error + super().feature_error(images, reconstructions, "classifier")

    def extra_generator_terms(self, iteration: Iteration) -> Terms:
        loss = F.cross_entropy(self.classify(self.fakes(iteration)), iteration.labels)
        return {"class": Weighted(loss, self.options.class_weight)}

    @phase("classifier", updates="classifier")
    def classifier_terms(self, iteration: Iteration) -> Terms:
        logits = self.classify(iteration.images)
        iteration.log("accuracy_class", (logits.detach().argmax(dim=1) == iteration.labels).float().mean(), "share")
        return {"cross_entropy": F.cross_entropy(logits, iteration.labels)}
