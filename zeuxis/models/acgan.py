r"""Auxiliary-classifier GAN.

The generator is told the class c; the discriminator is not, but has a second output that must name it. With
P(S|x) its real-or-fake output and P(C|x) its class output,

    L_S = E[log P(S = real | x)] + E[log P(S = fake | G(z, c))],
    L_C = E[log P(C = c | x)]    + E[log P(C = c | G(z, c))];

the discriminator maximises L_S + L_C, the generator L_C - L_S (here with the non-saturating loss). Two classes,
an attribute that an image has or not, are told to the generator as one number and named by one sigmoid output, as is
each of several attributes; more classes are told as a one-hot vector and named by a softmax.

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
from zeuxis.models.base import ConditionalOptions, Inputs, Iteration, Terms, Weighted
from zeuxis.models.conditions import Condition, of_two
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
    needs_classes = True

    def make_condition(self) -> Condition:
        """One number where there are two classes."""
        return of_two(self.class_names) if len(self.class_names) == 2 else super().make_condition()

    def inputs(self) -> Inputs:
        return {"generator": self.conditioned((self.options.latent,)), "discriminator": self.image_shape}

    def check(self) -> None:
        super().check()
        discriminator = self.net("discriminator")
        if discriminator.head_shapes.get("class") != (self.condition_size,):
            raise UserError(
                f"In {discriminator.where}, a head 'class' with {self.condition_size} "
                f"value{'s' * (self.condition_size > 1)} is needed for {len(self.class_names)} classes."
            )

    def score(self, samples: Tensor, condition: Tensor | None) -> Scores:
        return super().score(samples, None)

    def extra_discriminator_terms(self, iteration: Iteration, real: Scores, fake: Scores) -> Terms:
        named = self._class_loss(iteration, real)
        iteration.log("accuracy_class", self._agreement(iteration, real), "share")
        if self.options.classify_fakes:
            named = (named + self._class_loss(iteration, fake)) / 2
        return {"class": Weighted(named, self.options.class_weight)}

    def extra_generator_terms(self, iteration: Iteration, fake: Scores) -> Terms:
        return {"class": Weighted(self._class_loss(iteration, fake), self.options.class_weight)}

    def _class_loss(self, iteration: Iteration, scores: Scores) -> Tensor:
        named = scores["class"]
        if self._by_parts:
            return F.binary_cross_entropy_with_logits(named, self.condition_of(iteration.labels))
        return F.cross_entropy(named, iteration.labels)

    @property
    def _by_parts(self) -> bool:
        """Whether every number of the condition is named by itself, as an attribute is."""
        return self.conditions.of_attributes or self.condition_size == 1

    def _agreement(self, iteration: Iteration, scores: Scores) -> Tensor:
        named = scores["class"].detach()
        if self._by_parts:
            return torch.eq(named > 0, self.condition_of(iteration.labels) > 0.5).float().mean()
        return torch.eq(named.argmax(dim=1), iteration.labels).float().mean()
