r"""VAE-GAN.

The decoder of a VAE is also the generator of a GAN. Reconstructions are compared in the discriminator's features rather
than pixel by pixel, which is what blurs a VAE. With the features f(x) of the discriminator's trunk, z ~ q(z|x),
x^ = G(z), and x~ = G(z_p) from a sample of the prior z_p ~ N(0, 1),

    encoder:        beta KL(q(z|x) || N(0, 1)) + gamma |f(x) - f(x^)|^2 + delta |x - x^|^2
    decoder:        gamma |f(x) - f(x^)|^2 + delta |x - x^|^2 + alpha h(D(fake))
    discriminator:  g(D(x)) + g(D(fake)),   half of the fakes x^, half x~

There are three phases, each with its own optimiser, in the order discriminator, encoder, decoder. The adversarial loss
does not reach the encoder, and reconstruction does not reach the discriminator. A small pixel error delta keeps the
colours right while the features are still untrained.

Source: A. B. L. Larsen, S. K. Sonderby, H. Larochelle and O. Winther, Autoencoding beyond pixels using a learned
similarity metric, ICML 2016, section 3 and algorithm 1.

A third error, in the features of a network trained on photographs (`zeuxis.nets.photographs`), has the weight epsilon;
it is 0 unless a recipe asks for it.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeuxis.data import to_unit
from zeuxis.errors import UserError
from zeuxis.models.adversarial import Adversarial, AdversarialOptions
from zeuxis.models.autoencoder import Autoencoder
from zeuxis.models.base import Inputs, Iteration, Posterior, Terms, Weighted, phase
from zeuxis.models.registry import register
from zeuxis.models.vae import VAEOptions, Variational
from zeuxis.nets.photographs import perceptual_error, require_installed

__all__ = ["VAEGAN", "FeatureAutoencoder", "FeatureOptions", "VAEGANOptions"]


class FeatureOptions(AdversarialOptions, VAEOptions):
    """Options of autoencoders with a discriminator."""

    reconstruction: Literal["mse"] = Field("mse", description="squared error of a pixel")
    reduction: Literal["sum", "mean"] = Field("mean", description="over pixels, features and latent dimensions")
    kl_weight: float = Field(0.01, ge=0, le=1e6, description="beta: larger smooths the latent space")
    feature_weight: float = Field(1.0, ge=0, le=1e6, description="gamma: of the error in the discriminator's features")
    pixel_weight: float = Field(1.0, ge=0, le=1e6, description="delta: of the error in pixels; as published, 0")
    perceptual_weight: float = Field(
        0.0, ge=0, le=1e6, description="epsilon: of the error in features of EfficientNet-Lite0, for photographs"
    )
    adversarial_weight: float = Field(0.1, gt=0, le=1e6, description="alpha: of the decoder's adversarial loss")


class FeatureAutoencoder(Adversarial, Variational):
    """Base of autoencoders whose reconstructions are compared in the features of a discriminator."""

    options: FeatureOptions

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

    def require_packages(self) -> None:
        super().require_packages()
        if self.options.perceptual_weight:
            require_installed("model.perceptual_weight")

    def posterior(self, iteration: Iteration) -> Posterior:
        """Returns the posterior of the iteration's images, shared until the encoder is updated."""
        return iteration.once(
            "posterior", lambda: self.encode(iteration.images, self.condition(iteration)), through="encoder"
        )

    def reconstructed(self, iteration: Iteration) -> Tensor:
        """Returns reconstructions of the iteration's images, shared until encoder or decoder are updated."""

        def make() -> Tensor:
            return self.generate(self.posterior(iteration).sample(iteration.generator), self.condition(iteration))

        return iteration.once("reconstruction", make, through="encoder decoder")

    def fakes(self, iteration: Iteration) -> Tensor:
        """Returns what the discriminator tells from the iteration's images: reconstructions, `(B, C, H, W)`."""
        return self.reconstructed(iteration)

    def feature_error(self, images: Tensor, reconstructions: Tensor, network: str = "discriminator") -> Tensor:
        """Returns the squared error of reconstructions in the features of a network's trunk."""
        judging = self.net(network)
        with torch.no_grad():
            targets = judging(images).features
        return self.reduced((judging(reconstructions).features - targets).square())

    def similarity(self, iteration: Iteration) -> dict[str, Tensor | Weighted]:
        """Returns the errors of the reconstructions, in features, in pixels and, if asked for, as perceived."""
        reconstructions, options = self.reconstructed(iteration), self.options
        terms: dict[str, Tensor | Weighted] = {
            "features": Weighted(self.feature_error(iteration.images, reconstructions), options.feature_weight),
            "pixels": Weighted(
                self.reduced(F.mse_loss(reconstructions, iteration.images, reduction="none")), options.pixel_weight
            ),
        }
        if options.perceptual_weight:
            images, targets = (to_unit(each, self.recipe.data.range) for each in (reconstructions, iteration.images))
            terms["perceptual"] = Weighted(perceptual_error(images, targets).mean(), options.perceptual_weight)
        return terms

    def pair(self, iteration: Iteration) -> tuple[Tensor, Tensor, Tensor | None]:
        return iteration.images, self.fakes(iteration), None

    @phase("discriminator", updates="discriminator", repeat="discriminator_updates")
    def discriminator_terms(self, iteration: Iteration) -> Terms:
        terms, _, _ = self.discriminator_loss(iteration, *self.pair(iteration))
        return terms


class VAEGANOptions(FeatureOptions):
    """Options of the VAE-GAN."""


@register("vae-gan")
class VAEGAN(FeatureAutoencoder):
    """A VAE whose decoder is the generator of a GAN."""

    Options = VAEGANOptions
    options: VAEGANOptions

    def fakes(self, iteration: Iteration) -> Tensor:
        """Returns reconstructions (one half) and images of sampled latents (the other half), `(B, C, H, W)`."""

        def make() -> Tensor:
            half = iteration.batch_size // 2
            condition = self.condition(iteration)
            latents = self.sample_latents(iteration.batch_size - half, iteration.generator)
            samples = self.generate(latents, None if condition is None else condition[half:])
            return torch.cat([self.reconstructed(iteration)[:half], samples])

        return iteration.once("fake", make, through="encoder decoder")

    def extra_generator_terms(self, iteration: Iteration) -> Terms:
        """Returns further terms of the decoder's loss."""
        return {}

    @phase("encoder", updates="encoder")
    def encoder_terms(self, iteration: Iteration) -> Terms:
        return {**self.similarity(iteration), "kl": self.divergence(iteration, self.posterior(iteration))}

    @phase("decoder", updates="decoder", repeat="generator_updates")
    def generator_terms(self, iteration: Iteration) -> Terms:
        loss, _ = self.generator_loss(iteration, self.fakes(iteration), lambda: iteration.images, None)
        return {
            **self.similarity(iteration),
            "adversarial": Weighted(loss, self.options.adversarial_weight),
            **self.extra_generator_terms(iteration),
        }
