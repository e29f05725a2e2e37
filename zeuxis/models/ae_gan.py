r"""Autoencoder with a discriminator: sharp reconstructions, whose latents another model learns to sample.

A squared error alone gives the mean of all images that a latent may stand for, and a mean is blurred. Here a
discriminator tells reconstructions x^ = G(z), z ~ q(z|x), from images x. Encoder and decoder are trained together on

    beta KL(q(z|x) || N(0, 1)) + gamma |f(x) - f(x^)|^2 + delta |x - x^|^2 + alpha h(D(x^)),

with the features f(x) of the discriminator's trunk. Nothing is sampled from the prior during training, and the KL
divergence has so little weight that it only keeps the latents smooth: samples of N(0, 1) are not images. A flow
(`zeuxis.models.latent_flow`) or a GAN (`zeuxis.models.latent_gan`) learns where the latents lie.

The VAE-GAN (`zeuxis.models.vae_gan`) has the same terms and samples by itself; it updates encoder and decoder apart.

Sources: P. Esser, R. Rombach and B. Ommer, Taming Transformers for High-Resolution Image Synthesis, CVPR 2021, section
3.1; R. Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022, section 3.1.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from zeuxis.models.base import Iteration, Terms, Weighted, phase
from zeuxis.models.registry import register
from zeuxis.models.vae_gan import FeatureAutoencoder, FeatureOptions

__all__ = ["AEGAN"]


class AEGANOptions(FeatureOptions):
    """Options of the autoencoder with a discriminator."""

    kl_weight: float = Field(1e-4, ge=0, le=1e6, description="beta: larger smooths the latent space and blurs")


@register("ae-gan")
class AEGAN(FeatureAutoencoder):
    """An autoencoder whose reconstructions a discriminator tells from images."""

    Options = AEGANOptions
    options: AEGANOptions
    # Reconstructions can be told from images for ever; pixels and features still say where to go.
    healthy: ClassVar[frozenset[str]] = frozenset({"discriminator_wins"})

    @phase("autoencoder", updates="encoder decoder")
    def autoencoder_terms(self, iteration: Iteration) -> Terms:
        loss, _ = self.generator_loss(iteration, self.fakes(iteration), lambda: iteration.images, None)
        return {
            **self.similarity(iteration),
            "kl": self.divergence(iteration, self.posterior(iteration)),
            "adversarial": Weighted(loss, self.options.adversarial_weight),
        }
