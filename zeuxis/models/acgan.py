r"""Auxiliary-classifier GAN.

The generator is conditional on the class c. The discriminator is not; it has a second output that predicts the class.
With its real-or-fake output P(S|x) and its class output P(C|x),

    L_S = E[log P(S = real | x)] + E[log P(S = fake | G(z, c))],
    L_C = E[log P(C = c | x)]    + E[log P(C = c | G(z, c))];

the discriminator maximises L_S + L_C, the generator L_C - L_S (here with the non-saturating loss). Here the
discriminator's L_C is the mean of its two terms, so that `class_weight` means the same with and without the classes of
fakes (`classify_fakes`). For two classes
(an attribute that an image has or not), the generator takes one number and the class output is one sigmoid; likewise
for each of several attributes. For more classes, the generator takes a one-hot vector and the output is a softmax.

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
    """Options of the auxiliary-classifier GAN."""

    class_weight: float = Field(1.0, gt=0, le=1e6, description="of the class terms, in both losses")
    classify_fakes: bool = Field(True, description="train the class output on fakes too, as published")


@register("acgan")
class ACGAN(GAN):
    """A GAN whose discriminator also predicts the class."""

    Options = ACGANOptions
    options: ACGANOptions
    conditional = True
    needs_classes = True

    def make_condition(self) -> Condition:
        """Returns the condition: one number for two classes."""
        return of_two(self.class_names) if len(self.class_names) == 2 else super().make_condition()

    def inputs(self) -> Inputs:
        return {**super().inputs(), "discriminator": self.image_shape}

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
        loss = self._class_loss(iteration, real)
        iteration.log("accuracy_class", self._agreement(iteration, real), "share")
        if self.options.classify_fakes:
            loss = (loss + self._class_loss(iteration, fake)) / 2
        return {"class": Weighted(loss, self.options.class_weight)}

    def extra_generator_terms(self, iteration: Iteration, fake: Scores) -> Terms:
        return {"class": Weighted(self._class_loss(iteration, fake), self.options.class_weight)}

    def _class_loss(self, iteration: Iteration, scores: Scores) -> Tensor:
        logits = scores["class"]
        if self._by_parts:
            return F.binary_cross_entropy_with_logits(logits, self.condition_of_labels(iteration.labels))
        return F.cross_entropy(logits, iteration.labels)

    @property
    def _by_parts(self) -> bool:
        """Whether each number of the condition is predicted separately by a sigmoid, as for attributes."""
        return self.conditions.of_attributes or self.condition_size == 1

    def _agreement(self, iteration: Iteration, scores: Scores) -> Tensor:
        logits = scores["class"].detach()
        if self._by_parts:
            return torch.eq(logits > 0, self.condition_of_labels(iteration.labels) > 0.5).float().mean()
        return torch.eq(logits.argmax(dim=1), iteration.labels).float().mean()
