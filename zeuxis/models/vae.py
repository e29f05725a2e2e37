r"""Variational autoencoder.

An encoder gives the posterior :math:`q(z|x) = N(\mu(x), \sigma^2(x))`, a decoder the likelihood
:math:`p(x|z)`; both maximise the evidence lower bound

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || N(0, 1)),
    KL = 1/2 sum_j (sigma_j^2 + mu_j^2 - 1 - log sigma_j^2).

The expectation is estimated with one draw, reparameterised as ``z = mu + sigma * eps``, ``eps ~ N(0, 1)``, so
that the draw is a differentiable function of what the encoder gave: ``dL/dmu = dL/dz`` and
``dL/dsigma = dL/dz * eps``.

Reconstruction terms (negative log-likelihoods up to a constant):

- ``bce``: Bernoulli, cross-entropy of every pixel; images in 0..1.
- ``mse``: squared error, a normal distribution of fixed variance.
- ``gaussian``: a normal distribution whose one variance is learned with the decoder,
  ``1/2 ((x - x^)^2 / v + log v)``; it balances the two terms without a KL weight (sigma-VAE).

Sources: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, ICLR 2014, sections 2 and 3 and
appendix B; I. Higgins et al., beta-VAE, ICLR 2017 (the weight); O. Rybkin, K. Daniilidis and S. Levine, Simple
and Effective VAE Training with Calibrated Decoders, ICML 2021 (the learned variance).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zeuxis.data import to_unit
from zeuxis.errors import UserError
from zeuxis.models.base import Model, ModelOptions, Posterior, Step, Weighted, phase
from zeuxis.models.registry import register

__all__ = ["VAE"]


class VAEOptions(ModelOptions):
    """Options of the variational autoencoder."""

    latent: int = Field(2, ge=1, description="latent dimensions")
    reconstruction: Literal["bce", "mse", "gaussian"] = Field("bce", description="see the module's head")
    reduction: Literal["sum", "mean"] = Field(
        "sum", description="over pixels and latent dimensions; 'sum' makes the loss the bound in nats"
    )
    kl_weight: float = Field(1.0, ge=0, description="beta: larger smooths the latent space and blurs")
    kl_warmup: float = Field(0.0, ge=0, description="epochs over which the weight rises from 0")


@register("vae")
class VAE(Model):
    """Encoder and decoder under the evidence lower bound."""

    Options = VAEOptions
    options: VAEOptions
    generating_network = "decoder"

    def inputs(self) -> dict[str, tuple[int, ...]]:
        return {"encoder": self.image_shape, "decoder": (self.options.latent,)}

    def check(self) -> None:
        encoder, latent = self.net("encoder"), self.options.latent
        if encoder.heads:
            if encoder.head_shapes != {"mean": (latent,), "logvar": (latent,)}:
                raise UserError(
                    f"In {encoder.where}, the heads must be 'mean' and 'logvar' with {latent} values each "
                    f"(model.latent), not {encoder.head_shapes}."
                )
        else:
            encoder.require_output((2 * latent,), f"the mean and log-variance of {latent} latent dimensions")
        self.net("decoder").require_output(self.image_shape, "the recipe's image")
        if self.options.reconstruction == "bce" and self.recipe.data.range != "0..1":
            raise UserError(f"Recipe {self.recipe.name}: reconstruction 'bce' needs data.range = '0..1'.")
        if self.options.reconstruction == "gaussian":
            # One variance for all pixels, stored as its logarithm with the decoder that it belongs to.
            self.net("decoder").log_variance = nn.Parameter(torch.zeros(()))

    def encode(self, images: Tensor, condition: Tensor | None = None) -> Posterior:
        """Returns the posterior of `(B, C, H, W)` images."""
        encoder = self.net("encoder")
        if encoder.heads:
            heads = encoder(images, heads=True)
            return Posterior(heads["mean"], heads["logvar"])
        return Posterior(*encoder(images).chunk(2, dim=1))

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.options.latent, generator=generator, device=generator.device)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        images: Tensor = self.net("decoder")(latents)
        return images

    @phase("vae", updates="encoder decoder")
    def evidence_lower_bound(self, step: Step) -> dict[str, Tensor | Weighted]:
        posterior = self.encode(step.images)
        latents = posterior.sample(step.generator)
        reconstruction = self._reconstruction(step.images, latents)
        divergence = posterior.kl()
        step.record("kl_nats", divergence.sum() / len(divergence))
        kl = self._reduce(divergence)
        warmup = self.options.kl_warmup
        weight = self.options.kl_weight * (min(step.epoch / warmup, 1) if warmup else 1)
        return {"reconstruction": reconstruction, "kl": Weighted(kl, weight)}

    def test(self, step: Step) -> dict[str, Tensor]:
        """`mse` of reconstructions from the posterior mean at pixel range 0..1, averaged over pixels."""
        posterior = self.encode(step.images)
        pixel_range = self.recipe.data.range
        made = to_unit(self.generate(posterior.mean), pixel_range)
        return {
            "mse": F.mse_loss(made, to_unit(step.images, pixel_range)),
            "kl": self._reduce(posterior.kl()),
        }

    def _reconstruction(self, images: Tensor, latents: Tensor) -> Tensor:
        decoder = self.net("decoder")
        kind = self.options.reconstruction
        if kind == "bce":
            if isinstance(decoder.trunk[-1], nn.Sigmoid):
                logits = decoder(latents, logits=True)
                return self._reduce(F.binary_cross_entropy_with_logits(logits, images, reduction="none"))
            return self._reduce(F.binary_cross_entropy(decoder(latents), images, reduction="none"))
        error = (decoder(latents) - images).square()
        if kind == "gaussian":
            # Softly kept above -6 (a deviation of 0.05), below which the density grows without bound: the
            # reference above, section 4.
            free: Any = decoder.log_variance
            log_variance = -6 + F.softplus(free + 6)
            error = 0.5 * (error * torch.exp(-log_variance) + log_variance)
        return self._reduce(error)

    def _reduce(self, values: Tensor) -> Tensor:
        """Means over the batch of sums, or of means, over all else."""
        return values.mean() if self.options.reduction == "mean" else values.sum() / len(values)
