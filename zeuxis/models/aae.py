r"""Adversarial autoencoder.

As in a VAE, the latents of the data should follow a prior p(z) = N(0, 1). A discriminator, not a KL divergence, sees
to that: it learns to tell samples of the prior from encoded images, and the encoder learns to fool it, so that the
aggregate posterior q(z) = E_x[q(z|x)] comes to match p(z) as a whole:

    reconstruction:  min over encoder and decoder  E_x[-log p(x|z)],  z ~ q(z|x)
    discriminator:   min  E_p(z)[softplus(-D(z))] + E_q(z)[softplus(D(z))]
    encoder:         min  E_q(z)[softplus(-D(z))]

There are three phases, each with its own optimiser. Adam's updates do not depend on the scale of a loss, so the
learning rate of the phase ``encoder`` balances the prior against reconstruction. The encoder may give a point or a
normal distribution.

Source: A. Makhzani, J. Shlens, N. Jaitly, I. Goodfellow and B. Frey, Adversarial Autoencoders, 2015, section 2.
"""

from __future__ import annotations

from torch import Tensor

from zeuxis.models.adversarial import Adversarial, AdversarialOptions
from zeuxis.models.autoencoder import Autoencoder, AutoencoderOptions
from zeuxis.models.base import Inputs, Iteration, Terms, phase
from zeuxis.models.registry import register

__all__ = ["AAE"]


class AAEOptions(AdversarialOptions, AutoencoderOptions):
    """Options of the adversarial autoencoder, whose encoder takes the generator's part."""


@register("aae")
class AAE(Adversarial, Autoencoder):
    """An autoencoder whose latents are trained against a discriminator to match the prior."""

    Options = AAEOptions
    options: AAEOptions

    def inputs(self) -> Inputs:
        return {**Autoencoder.inputs(self), "discriminator": (self.options.latent,)}

    def check(self) -> None:
        Adversarial.check(self)
        Autoencoder.check(self)

    def encoded(self, iteration: Iteration) -> Tensor:
        """Returns latents of the iteration's images, `(B, Z)`, shared by the phases until the encoder is updated."""

        def make() -> Tensor:
            return self.encode(iteration.images).sample(iteration.generator)

        return iteration.once("latents", make, through="encoder")

    def pair(self, iteration: Iteration) -> tuple[Tensor, Tensor, Tensor | None]:
        real = self.sample_latents(iteration.batch_size, iteration.generator)
        return real, self.encoded(iteration), None

    @phase("autoencoder", updates="encoder decoder")
    def reconstruct(self, iteration: Iteration) -> Terms:
        return {"reconstruction": self.reconstruction(iteration.images, self.encoded(iteration), None)}

    @phase("discriminator", updates="discriminator", repeat="discriminator_updates")
    def discriminator_terms(self, iteration: Iteration) -> Terms:
        terms, _, _ = self.discriminator_loss(iteration, *self.pair(iteration))
        return terms

    @phase("encoder", updates="encoder", repeat="generator_updates")
    def generator_terms(self, iteration: Iteration) -> Terms:
        real = self.sample_latents(iteration.batch_size, iteration.generator)
        loss, _ = self.generator_loss(iteration, self.encoded(iteration), lambda: real, None)
        return {"adversarial": loss}
