r"""Generative adversarial network.

A generator G turns noise z ~ N(0, 1) into images; a discriminator D gives the logit of "this image is real".
With targets t (1 for real, 0 for fake) and binary cross-entropy on logits,

    L_D = E_x[BCE(D(x), t_real)] + E_z[BCE(D(G(z)), 0)],
    L_G = E_z[BCE(D(G(z)), 1)]                                 (non-saturating).

Other losses, penalties, and measures against a discriminator that wins are options that all adversarial models
share: `zeuxis.models.adversarial`.

Sources: I. Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014, section 3; A. Radford, L. Metz and
S. Chintala, DCGAN, ICLR 2016.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from zeuxis.models.adversarial import Adversarial, AdversarialOptions, Scores
from zeuxis.models.base import Inputs, Step, Terms, phase
from zeuxis.models.registry import register

__all__ = ["GAN", "GANOptions"]


class GANOptions(AdversarialOptions):
    """Options of the generative adversarial network."""

    latent: int = Field(100, ge=1, le=100_000, description="dimensions of the noise")


@register("gan")
class GAN(Adversarial):
    """Generator against discriminator; both are told the class where a subclass is conditional."""

    Options = GANOptions
    options: GANOptions
    generating_networks: ClassVar[tuple[str, ...]] = ("generator",)

    def inputs(self) -> Inputs:
        return {"generator": self.told((self.options.latent,)), "discriminator": self.told(self.image_shape)}

    def check(self) -> None:
        super().check()
        self.net("generator").require_output(self.image_shape, "the recipe's image")

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.options.latent, generator=generator, device=generator.device)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net("generator")(latents, condition=condition).value

    def reals(self, step: Step) -> Tensor:
        """What fakes are told from: the step's images."""
        return step.images

    def fakes(self, step: Step) -> Tensor:
        """Generated images of this step; both phases share one pass through the generator."""

        def make() -> Tensor:
            return self.generate(self.draw_latents(step.batch_size, step.generator), self.condition(step))

        return step.once("fake", make, through="generator")

    def pair(self, step: Step) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.reals(step), self.fakes(step), self.condition(step)

    def also_judged(self, step: Step, real: Scores, fake: Scores) -> Terms:
        """Further terms of the discriminator's loss, from what it said of real and fake images."""
        return {}

    def also_fooled(self, step: Step, fake: Scores) -> Terms:
        """Further terms of the generator's loss, from what the discriminator said of its images."""
        return {}

    @phase("discriminator", updates="discriminator", repeat="discriminator_updates")
    def judge(self, step: Step) -> Terms:
        terms, real, fake = self.judged(step, *self.pair(step))
        return {**terms, **self.also_judged(step, real, fake)}

    @phase("generator", updates="generator", repeat="generator_updates")
    def fool(self, step: Step) -> Terms:
        loss, scores = self.fooled(step, self.fakes(step), lambda: self.reals(step), self.condition(step))
        return {"adversarial": loss, **self.also_fooled(step, scores)}
