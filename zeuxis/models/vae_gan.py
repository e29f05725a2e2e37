r"""VAE-GAN.

The decoder of a VAE is the generator of a GAN, and reconstructions are compared by what the discriminator sees
in them rather than pixel by pixel, which is what blurs a VAE. With f(x) the features of the discriminator's
trunk, z ~ q(z|x), x^ = G(z), and x~ = G(z_p) from a prior draw z_p ~ N(0, 1),

    encoder:        beta KL(q(z|x) || N(0, 1)) + gamma |f(x) - f(x^)|^2 + delta |x - x^|^2
    decoder:        gamma |f(x) - f(x^)|^2 + delta |x - x^|^2 + alpha h(D(fake))
    discriminator:  g(D(x)) + g(D(fake)),   half of the fakes x^, half x~

Three phases with an optimiser each, in the order discriminator, encoder, decoder; the adversarial loss does not
reach the encoder, and reconstruction does not reach the discriminator. A small pixel error delta keeps colours
while the features are young.

Source: A. B. L. Larsen, S. K. Sonderby, H. Larochelle and O. Winther, Autoencoding beyond pixels using a learned
similarity metric, ICML 2016, section 3 and algorithm 1.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeuxis.errors import UserError
from zeuxis.models.adversarial import Adversarial, AdversarialOptions
from zeuxis.models.autoencoder import Autoencoder
from zeuxis.models.base import Inputs, Posterior, Step, Terms, Weighted, phase
from zeuxis.models.registry import register
from zeuxis.models.vae import VAEOptions, Variational

__all__ = ["VAEGAN", "VAEGANOptions"]


class VAEGANOptions(AdversarialOptions, VAEOptions):
    """Options of the VAE with a discriminator."""

    reconstruction: Literal["mse"] = Field("mse", description="what a pixel is off by, squared")
    reduction: Literal["sum", "mean"] = Field("mean", description="over pixels, features and latent dimensions")
    kl_weight: float = Field(0.01, ge=0, le=1e6, description="beta: larger smooths the latent space")
    feature_weight: float = Field(1.0, ge=0, le=1e6, description="gamma: of the error in the discriminator's features")
    pixel_weight: float = Field(1.0, ge=0, le=1e6, description="delta: of the error in pixels; published without, 0")
    adversarial_weight: float = Field(0.1, gt=0, le=1e6, description="alpha: of the decoder's adversarial loss")


@register("vae-gan")
class VAEGAN(Adversarial, Variational):
    """A VAE whose reconstructions a discriminator judges."""

    Options = VAEGANOptions
    options: VAEGANOptions

    def inputs(self) -> Inputs:
        return {**Autoencoder.inputs(self), "discriminator": self.image_shape}

    def check(self) -> None:
        Adversarial.check(self)
        Autoencoder.check(self)
        discriminator = self.net("discriminator")
        if not discriminator.head_shapes:
            raise UserError(
                f"In {discriminator.where}, the layers must end in features, with the score in a head 'real'."
            )

    def posterior(self, step: Step) -> Posterior:
        """Posterior of the step's images, shared until the encoder is updated."""
        return step.once("posterior", lambda: self.encode(step.images, self.condition(step)), through="encoder")

    def reconstructed(self, step: Step) -> Tensor:
        """Reconstructions of the step's images, shared until encoder or decoder are updated."""

        def make() -> Tensor:
            return self.generate(self.posterior(step).sample(step.generator), self.condition(step))

        return step.once("reconstruction", make, through="encoder decoder")

    def fakes(self, step: Step) -> Tensor:
        """Half reconstructions and half images of prior draws, `(B, C, H, W)`."""

        def make() -> Tensor:
            half = step.batch_size // 2
            condition = self.condition(step)
            drawn = self.draw_latents(step.batch_size - half, step.generator)
            imagined = self.generate(drawn, None if condition is None else condition[half:])
            return torch.cat([self.reconstructed(step)[:half], imagined])

        return step.once("fake", make, through="encoder decoder")

    def feature_error(self, images: Tensor, made: Tensor, network: str = "discriminator") -> Tensor:
        """Squared error of reconstructions in the features of a network's trunk."""
        judging = self.net(network)
        with torch.no_grad():
            wanted = judging(images).features
        return self.reduced((judging(made).features - wanted).square())

    def similarity(self, step: Step) -> dict[str, Tensor | Weighted]:
        """How far reconstructions are from the images, in features and in pixels."""
        made = self.reconstructed(step)
        return {
            "features": Weighted(self.feature_error(step.images, made), self.options.feature_weight),
            "pixels": Weighted(
                self.reduced(F.mse_loss(made, step.images, reduction="none")), self.options.pixel_weight
            ),
        }

    def pair(self, step: Step) -> tuple[Tensor, Tensor, Tensor | None]:
        return step.images, self.fakes(step), None

    def also_fooled(self, step: Step) -> Terms:
        """Further terms of the decoder's loss."""
        return {}

    @phase("discriminator", updates="discriminator", repeat="discriminator_updates")
    def judge(self, step: Step) -> Terms:
        terms, _, _ = self.judged(step, *self.pair(step))
        return terms

    @phase("encoder", updates="encoder")
    def encode_well(self, step: Step) -> Terms:
        return {**self.similarity(step), "kl": self.divergence(step, self.posterior(step))}

    @phase("decoder", updates="decoder", repeat="generator_updates")
    def fool(self, step: Step) -> Terms:
        loss, _ = self.fooled(step, self.fakes(step), lambda: step.images, None)
        return {
            **self.similarity(step),
            "adversarial": Weighted(loss, self.options.adversarial_weight),
            **self.also_fooled(step),
        }
