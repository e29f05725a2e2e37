r"""Two-stage VAE: a VAE, and a second model that learns the distribution of its latents.

A VAE samples from the prior N(0, 1), but its decoder is trained on the aggregate posterior q(z) = E_x[q(z|x)]; the
better the reconstructions, the more the two differ. The second stage learns q(z): a velocity field v, a small dense
network on (z_t, t), carries noise to latents along straight lines (flow matching),

    z_t = (1 - t) n + t z,   n ~ N(0, 1),  z ~ q(z|x),  t ~ U(0, 1),
    L_prior = E |v(z_t, t) - (z - n)|^2,

and a sample is decoded from the solution of dz/dt = v(z, t), z = n at t = 0, at t = 1. The first stage is not affected:
no gradient of the prior reaches the encoder, so reconstructions do not get worse for better samples, and the KL weight
no longer trades one for the other.

The density of this prior is computed along the path backwards, from z at t = 1 to n at t = 0,

    log p(z) = log N(n; 0, 1) - int_0^1 div v(z_t, t) dt,    div v = sum_j dv_j / dz_j,

with the midpoint steps of sampling. The solver's error, which falls with the square of `solver_steps`, separates the
path back from the path there, and p from the density of samples. Up to 32 latents, the divergence is computed exactly,
with a backward pass for each latent. For more, each step estimates it as e^T (dv/dz) e, with e sampled from -1 and 1:
this gives an unbiased estimate of log p(z), but not of p(z).

Sources: B. Dai and D. Wipf, Diagnosing and Enhancing VAE Models, ICLR 2019 (two stages); Y. Lipman, R. T. Q. Chen,
H. Ben-Hamu, M. Nickel and M. Le, Flow Matching for Generative Modeling, ICLR 2023, section 4 (its straight paths);
R. T. Q. Chen, Y. Rubanova, J. Bettencourt and D. Duvenaud, Neural Ordinary Differential Equations, NeurIPS 2018,
theorem 1 (the density); W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud, FFJORD, ICLR 2019,
section 3.1 (the estimate, which is Hutchinson's).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeuxis.models.base import Input, Inputs, Iteration, Terms, log_normal, phase
from zeuxis.models.registry import register
from zeuxis.models.samplers import midpoint
from zeuxis.models.vae import VAE, VAEOptions
from zeuxis.nets import Conditioning

__all__ = ["TwoStageVAE"]

# Up to so many latents, the divergence is computed exactly.
EXACT = 32


class TwoStageVAEOptions(VAEOptions):
    """Options of the two-stage VAE."""

    prior_draws: int = Field(4, ge=1, le=1000, description="latents (with noise and time) per image and step")
    solver_steps: int = Field(32, ge=1, le=10_000, description="midpoint steps from noise to latents when sampling")


@register("two-stage-vae")
class TwoStageVAE(VAE):
    """A VAE that samples from a learned prior."""

    Options = TwoStageVAEOptions
    options: TwoStageVAEOptions
    generating_networks = ("decoder", "prior")
    sampling_options = ("solver_steps",)

    def inputs(self) -> Inputs:
        return {**super().inputs(), "prior": Input((self.options.latent,), Conditioning(time=True))}

    def check(self) -> None:
        super().check()
        self.net("prior").require_output((self.options.latent,), "a velocity in latent space")

    def velocity(self, latents: Tensor, time: Tensor) -> Tensor:
        """Returns the velocity `(B, Z)` at latents `(B, Z)` and times `(B, 1)` in 0..1."""
        return self.net("prior")(latents, time=time).value

    @torch.no_grad()
    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        noise = super().sample_latents(count, generator)
        return self.latents_of(noise.to(next(self.net("prior").parameters()).device)).to(noise.device)

    def latents_of(self, noise: Tensor) -> Tensor:
        """Returns latents `(B, Z)` for noise `(B, Z)` of N(0, 1): the solution of the flow."""
        return midpoint(self.velocity, noise, self.options.solver_steps)

    @property
    def prior_density(self) -> Literal["normal", "exact", "estimated"]:
        """The kind of density that `log_prior` returns."""
        return "exact" if self.options.latent <= EXACT else "estimated"

    @torch.no_grad()
    def log_prior(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the log-density `(B,)` of latents `(B, Z)` under the learned prior, in nats (see above)."""
        z, divergence, step = latents, torch.zeros_like(latents[:, 0]), 1 / self.options.solver_steps
        for i in reversed(range(self.options.solver_steps)):
            t = torch.full((len(z), 1), (i + 1) * step, device=z.device)
            halfway = z - step / 2 * self.velocity(z, t)
            velocity, slope = self._velocity_and_divergence(halfway, t - step / 2, generator)
            z, divergence = z - step * velocity, divergence + step * slope
        return log_normal(z) - divergence

    def _velocity_and_divergence(self, z: Tensor, t: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the velocity `(B, Z)` and its divergence, or an estimate of it, `(B,)`."""
        if self.prior_density == "exact":
            probes = torch.eye(z.shape[1], device=z.device)[:, None].expand(-1, len(z), -1)
        else:
            probes = (torch.randint(2, (1, *z.shape), generator=generator) * 2.0 - 1).to(z.device)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            velocity = self.velocity(z, t)
            slopes = [torch.autograd.grad(velocity, z, probe, retain_graph=True)[0] for probe in probes]
        return velocity.detach(), (torch.stack(slopes) * probes).sum(dim=(0, 2))

    @phase("prior", updates="prior")
    def prior_terms(self, iteration: Iteration) -> Terms:
        with torch.no_grad():
            # The prior is small compared with the encoder, so one encoding of the images serves several latents.
            posterior = self.encode(iteration.images, self.condition(iteration))
            latents = torch.cat([posterior.sample(iteration.generator) for _ in range(self.options.prior_draws)])
        noise = iteration.randn(*latents.shape)
        t = torch.rand(len(latents), 1, generator=iteration.generator, device=iteration.device)
        flow = self.velocity(torch.lerp(noise, latents, t), t)
        return {"flow": F.mse_loss(flow, latents - noise)}
