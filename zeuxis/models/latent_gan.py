r"""Latent GAN: a GAN on the latent space that a VAE learned.

A VAE's decoder is asked, when sampling, for latents from the prior N(0, 1), but has learned on those from the
aggregate posterior q(z) = E_x[q(z|x)], which is never quite the prior. Here a small GAN learns q(z) itself: with
encoder and decoder of a trained VAE run, frozen,

    real: z ~ q(z|x), x from the data;   fake: G(n), n ~ N(0, 1);   samples: x = decoder(G(n)).

As both players see vectors of a few dozen numbers, it trains in minutes. Data, encoder, decoder and number of
latents are those of the run that `model.vae` names.

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

    vae: str = Field("", description="the trained run that encoder and decoder come from: its folder, or its name")
    latent: int = Field(16, ge=1, le=100_000, description="latent dimensions of that run")
    noise: int = Field(16, ge=1, le=100_000, description="dimensions of the generator's noise")


@register("latent-gan")
class LatentGAN(GAN):
    """A GAN that learns which latents a VAE's decoder knows."""

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
        latent = self.options.latent
        self.net("generator").require_output((latent,), f"the {latent} latents of the VAE")
        self.net("decoder").require_output(self.image_shape, "the recipe's image")

    def train(self, mode: bool = True) -> LatentGAN:
        super().train(mode)
        for name in self.trained_networks:  # what is not trained is used as when trained to the end
            self.net(name).eval()
        return self

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.options.noise, generator=generator, device=generator.device)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net("decoder")(self.net("generator")(latents).value).value

    def posterior(self, images: Tensor) -> Posterior:
        """The VAE's posterior of `(B, C, H, W)` images; the generator's noise has no encoder."""
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
