r"""Base of autoencoding models: encoder, decoder and reconstruction terms.

The encoder gives either a point, `(B, Z)`, or a normal distribution q(z|x), whose mean and log-variance come from two
heads or from one output of 2 Z values. Reconstruction terms are negative log-likelihoods up to a constant:

- ``bce``: Bernoulli, the cross-entropy of every pixel; images in 0..1.
- ``mse``: squared error, a normal distribution of fixed variance.
- ``gaussian``: a normal distribution with one variance v, learned with the decoder,
  ``1/2 ((x - x^)^2 / v + log v)``; it balances reconstruction and KL divergence without a weight (sigma-VAE).

Source of the learned variance: O. Rybkin, K. Daniilidis and S. Levine, Simple and Effective VAE Training with
Calibrated Decoders, ICML 2021.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zeuxis.data import to_unit
from zeuxis.errors import UserError
from zeuxis.models.base import Inputs, Iteration, Model, ModelOptions, Posterior
from zeuxis.nets import Network

__all__ = ["Autoencoder", "AutoencoderOptions", "posterior_of"]

# Upper limit of a latent's log-variance. The prior's is 0, and a wider posterior never lowers the loss. But if many
# features feed it, the first optimiser update can raise it to 75: samples are then 1e16, and Adam's moments of such
# gradients decay only after tens of thousands of steps.
CEILING = 2.0


class AutoencoderOptions(ModelOptions):
    """Options of models that encode and decode."""

    latent: int = Field(2, ge=1, le=100_000, description="latent dimensions")
    reconstruction: Literal["bce", "mse", "gaussian"] = Field(
        "bce", description="likelihood of a pixel: Bernoulli, or normal with fixed or learned variance"
    )
    reduction: Literal["sum", "mean"] = Field(
        "sum", description="over pixels and latent dimensions; 'sum' makes the VAE's loss the bound in nats"
    )


class Autoencoder(Model):
    """Base of models that encode and decode; a conditional one gives the class to both networks."""

    options: AutoencoderOptions
    generating_networks: ClassVar[tuple[str, ...]] = ("decoder",)
    # True if the encoder must give a distribution, False if it must give a point, None if either will do.
    stochastic: ClassVar[bool | None] = None

    def inputs(self) -> Inputs:
        return {"encoder": self.conditioned(self.image_shape), "decoder": self.conditioned((self.options.latent,))}

    def check(self) -> None:
        encoder, latent = self.net("encoder"), self.options.latent
        if encoder.head_shapes:
            if encoder.head_shapes != {"mean": (latent,), "logvar": (latent,)} or self.stochastic is False:
                requirement = (
                    f"the output must be {latent} latent values, without heads"
                    if self.stochastic is False
                    else f"the heads must be 'mean' and 'logvar' with {latent} values each (model.latent)"
                )
                raise UserError(f"In {encoder.where}, {requirement}, not {encoder.head_shapes}.")
        elif self.stochastic or (self.stochastic is None and encoder.output_shape != (latent,)):
            encoder.require_output((2 * latent,), f"the mean and log-variance of {latent} latent dimensions")
        else:
            encoder.require_output((latent,), f"a point in {latent} latent dimensions")
        self.net("decoder").require_output(self.image_shape, "the recipe's image")
        if self.options.reconstruction == "bce" and self.recipe.data.range != "0..1":
            raise UserError(f"Recipe {self.recipe.name}: reconstruction 'bce' needs data.range = '0..1'.")
        decoder = self.net("decoder")
        if self.options.reconstruction == "bce" and not decoder.may_be_bounded:
            raise UserError(
                f"In {decoder.where}, reconstruction 'bce' needs an output in 0..1, so the last layer must be "
                f"'sigmoid', not '{decoder.rows[-1].layer}'."
            )
        if self.options.reconstruction == "gaussian":
            # The logarithm of the variance of all pixels, as a parameter of the decoder.
            self.net("decoder").log_variance = nn.Parameter(torch.zeros(()))

    def encode(self, images: Tensor, condition: Tensor | None = None) -> Posterior:
        """Returns the posterior of `(B, C, H, W)` images; its variance is 0 if the encoder gives a point."""
        return posterior_of(self.net("encoder"), images, self.options.latent, condition)

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.options.latent, generator=generator, device=generator.device)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net("decoder")(latents, condition=condition).value

    def test(self, iteration: Iteration) -> dict[str, Tensor]:
        """Returns the `mse` of reconstructions from the posterior mean, averaged over pixels, at pixel range 0..1."""
        condition = self.condition(iteration)
        reconstructions = self.generate(self.encode(iteration.images, condition).mean, condition)
        pixel_range = self.recipe.data.range
        return {"mse": F.mse_loss(to_unit(reconstructions, pixel_range), to_unit(iteration.images, pixel_range))}

    def reconstruction(self, images: Tensor, latents: Tensor, condition: Tensor | None) -> Tensor:
        """Returns the negative log-likelihood of images under the decoder, up to a constant, reduced by `reduced`."""
        return self.reduced(self.surprise(images, latents, condition))

    def surprise(self, images: Tensor, latents: Tensor, condition: Tensor | None) -> Tensor:
        """Returns the negative log-likelihood of each pixel, `(B, C, H, W)` in nats, up to a constant."""
        decoder, kind = self.net("decoder"), self.options.reconstruction
        decoded = decoder(latents, condition=condition)
        if kind == "bce":
            if decoder.gives_logits:
                return F.binary_cross_entropy_with_logits(decoded.logits, images, reduction="none")
            output = decoded.value
            if not ((output >= 0) & (output <= 1)).all():
                raise UserError(f"In {decoder.where}, reconstruction 'bce' needs an output in 0..1; end in a sigmoid.")
            return F.binary_cross_entropy(output, images, reduction="none")
        error: Tensor = (decoded.value - images).square()
        if kind == "gaussian":
            # A soft lower limit of -6 (a deviation of 0.05) keeps the density from growing without bound: the source
            # above, section 4.
            free: Any = decoder.log_variance
            log_variance = -6 + F.softplus(free + 6)
            error = 0.5 * (error * torch.exp(-log_variance) + log_variance)
        return error

    def reduced(self, values: Tensor) -> Tensor:
        """Returns the sum over all but the batch (or the mean, as the options say), averaged over the batch."""
        return values.mean() if self.options.reduction == "mean" else values.sum() / len(values)


def posterior_of(encoder: Network, x: Tensor, latent: int, condition: Tensor | None = None) -> Posterior:
    """Returns the posterior from an encoder with two heads, with one output of `2 * latent` values, or with a point."""
    encoded = encoder(x, condition=condition)
    if encoder.head_shapes:
        mean, logvar = encoded.heads["mean"].value, encoded.heads["logvar"].value
    else:
        out = encoded.value
        if out.shape[1] == latent:
            return Posterior(out, torch.full_like(out, -torch.inf))
        mean, logvar = out.chunk(2, dim=1)
    # Clamped to the ceiling in value; the gradient passes as if it were not.
    return Posterior(mean, logvar + (logvar.clamp(max=CEILING) - logvar).detach())
