r"""Generative adversarial network.

A generator G turns noise z ~ N(0, 1) into images; a discriminator D gives the logit of "this image is real".
With targets t (1 for real, 0 for fake) and binary cross-entropy on logits,

    L_D = E_x[BCE(D(x), t_real)] + E_z[BCE(D(G(z)), 0)],
    L_G = E_z[BCE(D(G(z)), 1)]                                 (non-saturating).

Other losses, penalties, and measures against a discriminator that wins are options of all adversarial models:
`zeuxis.models.adversarial`.

Sources: I. Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014, section 3; A. Radford, L. Metz and
S. Chintala, DCGAN, ICLR 2016.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from zeuxis.models.adversarial import Adversarial, AdversarialOptions, Scores
from zeuxis.models.base import Inputs, Iteration, Terms, phase
from zeuxis.models.registry import register

__all__ = ["GAN", "GANOptions"]


class GANOptions(AdversarialOptions):
    """Options of the generative adversarial network."""

    latent: int = Field(100, ge=1, le=100_000, description="dimensions of the noise")


@register("gan")
class GAN(Adversarial):
    """A generator and a discriminator; in a conditional subclass, both take the class."""

    Options = GANOptions
    options: GANOptions
    generating_networks: ClassVar[tuple[str, ...]] = ("generator",)

    def inputs(self) -> Inputs:
        return {
            "generator": self.conditioned((self.options.latent,)),
            "discriminator": self.conditioned(self.image_shape),
        }

    def check(self) -> None:
        super().check()
        self.net("generator").require_output(self.image_shape, "the recipe's image")

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.options.latent, generator=generator, device=generator.device)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net("generator")(latents, condition=condition).value

    def reals(self, iteration: Iteration) -> Tensor:
        """Returns the real samples: the iteration's images."""
        return iteration.images

    def fakes(self, iteration: Iteration) -> Tensor:
        """Returns generated images; the phases share one pass through the generator until it is updated."""

        def make() -> Tensor:
            return self.generate(
                self.sample_latents(iteration.batch_size, iteration.generator), self.condition(iteration)
            )

        return iteration.once("fake", make, through="generator")

    def pair(self, iteration: Iteration) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.reals(iteration), self.fakes(iteration), self.condition(iteration)

    def extra_discriminator_terms(self, iteration: Iteration, real: Scores, fake: Scores) -> Terms:
        """Returns further terms of the discriminator's loss, from its scores of real and fake images."""
        return {}

    def extra_generator_terms(self, iteration: Iteration, fake: Scores) -> Terms:
        """Returns further terms of the generator's loss, from the discriminator's scores of its images."""
        return {}

    @phase("discriminator", updates="discriminator", repeat="discriminator_updates")
    def discriminator_terms(self, iteration: Iteration) -> Terms:
        terms, real, fake = self.discriminator_loss(iteration, *self.pair(iteration))
        return {**terms, **self.extra_discriminator_terms(iteration, real, fake)}

    @phase("generator", updates="generator", repeat="generator_updates")
    def generator_terms(self, iteration: Iteration) -> Terms:
        loss, scores = self.generator_loss(
            iteration, self.fakes(iteration), lambda: self.reals(iteration), self.condition(iteration)
        )
        return {"adversarial": loss, **self.extra_generator_terms(iteration, scores)}
