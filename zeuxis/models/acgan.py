r"""Auxiliary-classifier GAN.

The generator is told the class c; the discriminator is not, but has a second output that must name it. With
P(S|x) its real-or-fake output and P(C|x) its class output,

    L_S = E[log P(S = real | x)] + E[log P(S = fake | G(z, c))],
    L_C = E[log P(C = c | x)]    + E[log P(C = c | G(z, c))];

the discriminator maximises L_S + L_C, the generator L_C - L_S (here with the non-saturating loss). Two classes,
an attribute that an image has or not, are told to the generator as one number and named by one sigmoid output;
more are told as a one-hot vector and named by a softmax.

Source: A. Odena, C. Olah and J. Shlens, Conditional Image Synthesis with Auxiliary Classifier GANs, ICML 2017,
section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeuxis.errors import UserError
from zeuxis.models.adversarial import Scores
from zeuxis.models.base import ConditionalOptions, Inputs, Step, Terms, Weighted
from zeuxis.models.gan import GAN, GANOptions
from zeuxis.models.registry import register

__all__ = ["ACGAN"]


class ACGANOptions(GANOptions, ConditionalOptions):
    """Options of the game with an auxiliary classifier."""

    class_weight: float = Field(1.0, gt=0, le=1e6, description="of the class terms, in both losses")
    classify_fakes: bool = Field(True, description="the discriminator learns to name fakes too, as published")


@register("acgan")
class ACGAN(GAN):
    """A GAN whose discriminator also names the class."""

    Options = ACGANOptions
    options: ACGANOptions
    conditional = True

    @property
    def condition_size(self) -> int:
        """Values that tell the generator the class: 1 for two classes."""
        return 1 if len(self.class_names) == 2 else len(self.class_names)

    def inputs(self) -> Inputs:
        return {"generator": self.told((self.options.latent,)), "discriminator": self.image_shape}

    def check(self) -> None:
        super().check()
        discriminator = self.net("discriminator")
        if discriminator.head_shapes.get("class") != (self.condition_size,):
            raise UserError(
                f"In {discriminator.where}, a head 'class' with {self.condition_size} "
                f"value{'s' * (self.condition_size > 1)} is needed for {len(self.class_names)} classes."
            )

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None, "a conditional model is asked with a condition"
        return super().generate(latents, condition[:, 1:] if self.condition_size == 1 else condition)

    def score(self, samples: Tensor, condition: Tensor | None) -> Scores:
        return super().score(samples, None)

    def also_judged(self, step: Step, real: Scores, fake: Scores) -> Terms:
        named = self._class_loss(step, real)
        step.record("accuracy_class", self._agreement(step, real), "share")
        if self.options.classify_fakes:
            named = (named + self._class_loss(step, fake)) / 2
        return {"class": Weighted(named, self.options.class_weight)}

    def also_fooled(self, step: Step, fake: Scores) -> Terms:
        return {"class": Weighted(self._class_loss(step, fake), self.options.class_weight)}

    def _class_loss(self, step: Step, scores: Scores) -> Tensor:
        named = scores["class"]
        if named.shape[1] == 1:
            return F.binary_cross_entropy_with_logits(named[:, 0], step.labels.to(named.dtype))
        return F.cross_entropy(named, step.labels)

    def _agreement(self, step: Step, scores: Scores) -> Tensor:
        named = scores["class"].detach()
        said = (named[:, 0] > 0).long() if named.shape[1] == 1 else named.argmax(dim=1)
        return torch.eq(said, step.labels).float().mean()
