r"""Adversarial autoencoder.

As in a VAE the latents of the data shall follow a prior p(z) = N(0, 1); but no KL divergence says so, a
discriminator does. It tells draws from the prior from encoded images, and the encoder learns to fool it, so that
the aggregate posterior q(z) = E_x[q(z|x)] comes to match p(z) as a whole:

    reconstruction:  min over encoder and decoder  E_x[-log p(x|z)],  z ~ q(z|x)
    discriminator:   min  E_p(z)[softplus(-D(z))] + E_q(z)[softplus(D(z))]
    encoder:         min  E_q(z)[softplus(-D(z))]

Three phases with an optimiser each; as Adam's steps do not depend on a loss's scale, it is the rate of the phase
``encoder`` that weighs the prior against reconstruction. The encoder gives a point, or a normal distribution.

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
    """Options of the adversarial autoencoder; the generator of its game is the encoder."""


@register("aae")
class AAE(Adversarial, Autoencoder):
    """An autoencoder whose latents match a prior because a discriminator cannot tell."""

    Options = AAEOptions
    options: AAEOptions

    def inputs(self) -> Inputs:
        return {**Autoencoder.inputs(self), "discriminator": (self.options.latent,)}

    def check(self) -> None:
        Adversarial.check(self)
        Autoencoder.check(self)

    def encoded(self, iteration: Iteration) -> Tensor:
        """Latents of the iteration's images, `(B, Z)`; phases share a pass until the encoder is updated."""

        def make() -> Tensor:
            return self.encode(iteration.images).sample(iteration.generator)

        return iteration.once("latents", make, through="encoder")

    def pair(self, iteration: Iteration) -> tuple[Tensor, Tensor, Tensor | None]:
        drawn = self.sample_latents(iteration.batch_size, iteration.generator)
        return drawn, self.encoded(iteration), None

    @phase("autoencoder", updates="encoder decoder")
    def reconstruct(self, iteration: Iteration) -> Terms:
        return {"reconstruction": self.reconstruction(iteration.images, self.encoded(iteration), None)}

    @phase("discriminator", updates="discriminator", repeat="discriminator_updates")
    def discriminator_terms(self, iteration: Iteration) -> Terms:
        terms, _, _ = self.discriminator_loss(iteration, *self.pair(iteration))
        return terms

    @phase("encoder", updates="encoder", repeat="generator_updates")
    def generator_terms(self, iteration: Iteration) -> Terms:
        drawn = self.sample_latents(iteration.batch_size, iteration.generator)
        loss, _ = self.generator_loss(iteration, self.encoded(iteration), lambda: drawn, None)
        return {"adversarial": loss}
