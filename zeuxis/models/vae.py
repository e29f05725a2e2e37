r"""Variational autoencoder.

An encoder gives the posterior :math:`q(z|x) = N(\mu(x), \sigma^2(x))`, a decoder the likelihood
:math:`p(x|z)`. Both maximise the evidence lower bound

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || N(0, 1)),
    KL = 1/2 sum_j (sigma_j^2 + mu_j^2 - 1 - log sigma_j^2).

The expectation is estimated with one sample, reparameterised as ``z = mu + sigma * eps``, ``eps ~ N(0, 1)``, which is
a differentiable function of the encoder's output: ``dL/dmu = dL/dz`` and ``dL/dsigma = dL/dz * eps``. For the
likelihoods, see `zeuxis.models.autoencoder`.

The KL divergence can have a weight beta (beta-VAE), can be warmed up from 0, and can be free up to some nats per
dimension, ``sum_j max(free, E_x[KL_j])``, so that no dimension collapses early.

Sources: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, ICLR 2014, sections 2 and 3 and
appendix B; I. Higgins et al., beta-VAE, ICLR 2017 (the weight); D. P. Kingma et al., Improved Variational
Inference with Inverse Autoregressive Flow, NeurIPS 2016, appendix C.8 (free bits).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from zeuxis.models.autoencoder import Autoencoder, AutoencoderOptions
from zeuxis.models.base import Iteration, Posterior, Terms, Weighted, log_normal, phase
from zeuxis.models.registry import register

__all__ = ["VAE", "VAEOptions", "Variational"]


class VAEOptions(AutoencoderOptions):
    """Options of the variational autoencoder."""

    kl_weight: float = Field(1.0, ge=0, le=1e6, description="beta: larger smooths the latent space and blurs")
    kl_warmup: float = Field(0.0, ge=0, le=1e9, description="epochs over which the weight rises from 0")
    free_bits: float = Field(0.0, ge=0, le=1e6, description="nats of KL divergence per latent dimension without cost")


class Variational(Autoencoder):
    """Base of models with a posterior and a KL divergence."""

    options: VAEOptions
    stochastic = True

    def divergence(self, iteration: Iteration, posterior: Posterior) -> Weighted:
        """Returns the KL term of a batch with its weight at this point of training."""
        options, divergences = self.options, posterior.kl()
        iteration.log("kl_nats", divergences.sum() / len(divergences), "kl")
        if options.free_bits:
            divergences = divergences.mean(dim=0, keepdim=True).clamp(min=options.free_bits)
        warmup = (iteration.epoch / options.kl_warmup).clamp(max=1) if options.kl_warmup else 1
        return Weighted(self.reduced(divergences), options.kl_weight * warmup)

    @property
    def prior_density(self) -> Literal["normal", "exact", "estimated"]:
        """The kind of density that `log_prior` returns."""
        return "normal"

    def log_prior(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the log-density `(B,)` of latents `(B, Z)` under N(0, 1), in nats."""
        return log_normal(latents)

    def test(self, iteration: Iteration) -> dict[str, Tensor]:
        """Returns the `mse` of every autoencoder, and the KL divergence, `kl`."""
        posterior = self.encode(iteration.images, self.condition(iteration))
        return {**super().test(iteration), "kl": self.reduced(posterior.kl())}


@register("vae")
class VAE(Variational):
    """An encoder and a decoder that maximise the evidence lower bound."""

    Options = VAEOptions
    options: VAEOptions

    @property
    def pixels(self) -> Literal["bernoulli", "gaussian", ""]:
        """The distribution of a pixel; "" for `mse`, whose variance is not defined."""
        kind = self.options.reconstruction
        return "bernoulli" if kind == "bce" else "gaussian" if kind == "gaussian" else ""

    def log_likelihood(self, images: Tensor, latents: Tensor, condition: Tensor | None) -> Tensor:
        """Returns log p(x|z), `(B,)` in nats, of `(B, C, H, W)` images."""
        constant = 0.5 * math.log(2 * math.pi) if self.pixels == "gaussian" else 0.0
        return -(self.surprise(images, latents, condition) + constant).flatten(1).sum(dim=1)

    @phase("vae", updates="encoder decoder")
    def evidence_lower_bound(self, iteration: Iteration) -> Terms:
        condition = self.condition(iteration)
        posterior = self.encode(iteration.images, condition)
        latents = posterior.sample(iteration.generator)
        return {
            "reconstruction": self.reconstruction(iteration.images, latents, condition),
            "kl": self.divergence(iteration, posterior),
        }
