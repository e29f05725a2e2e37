r"""Latent GAN: a GAN in the latent space of a trained VAE.

When a VAE samples, its decoder gets latents from the prior N(0, 1), but it was trained on latents from the aggregate
posterior q(z) = E_x[q(z|x)], which never quite matches the prior. Here a small GAN learns q(z) itself. With the
encoder and decoder of a trained VAE run, frozen,

    real: z ~ q(z|x), x from the data;   fake: G(n), n ~ N(0, 1);   samples: x = decoder(G(n)).

Generator and discriminator work on vectors of a few dozen numbers, so training takes minutes. Data, encoder, decoder
and number of latents are those of the run that `model.vae` names.

Source: the specification, S8; the same idea on point clouds is the l-GAN of P. Achlioptas, O. Diamanti,
I. Mitliagkas and L. Guibas, Learning Representations and Generative Models for 3D Point Clouds, ICML 2018.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from zeuxis.models.adversarial import Adversarial
from zeuxis.models.autoencoder import posterior_of
from zeuxis.models.base import Inputs, Iteration, Posterior
from zeuxis.models.gan import GAN, GANOptions
from zeuxis.models.registry import register

__all__ = ["LatentGAN"]


class LatentGANOptions(GANOptions):
    """Options of the GAN on latents."""

    vae: str = Field("", description="the trained run, as folder or name, from which encoder and decoder come")
    latent: int = Field(16, ge=1, le=100_000, description="latent dimensions of that run")
    noise: int = Field(16, ge=1, le=100_000, description="dimensions of the generator's noise")


@register("latent-gan")
class LatentGAN(GAN):
    """A GAN that learns the distribution of a VAE's latents."""

    Options = LatentGANOptions
    options: LatentGANOptions
    trained_networks = ("encoder", "decoder")
    trained_option = "vae"

    def inputs(self) -> Inputs:
        latent = (self.options.latent,)
        return {
            "encoder": self.image_shape,
            "decoder": latent,
            "generator": (self.options.noise,),
            "discriminator": latent,
        }

    def check(self) -> None:
        Adversarial.check(self)
        self.check_second()
        latent = self.options.latent
        self.net("generator").require_output((latent,), f"the {latent} latents of the VAE")
        self.net("decoder").require_output(self.image_shape, "the recipe's image")

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.options.noise, generator=generator, device=generator.device)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net("decoder")(self.net("generator")(latents).value).value

    def posterior(self, images: Tensor) -> Posterior:
        """Returns the VAE's posterior of `(B, C, H, W)` images; no encoder gives the generator's noise."""
        return posterior_of(self.net("encoder"), images, self.options.latent)

    def reals(self, iteration: Iteration) -> Tensor:
        def make() -> Tensor:
            with torch.no_grad():
                return self.posterior(iteration.images).sample(iteration.generator)

        return iteration.once("latents", make)

    def fakes(self, iteration: Iteration) -> Tensor:
        def make() -> Tensor:
            return self.net("generator")(self.sample_latents(iteration.batch_size, iteration.generator)).value

        return iteration.once("fake", make, through="generator")
