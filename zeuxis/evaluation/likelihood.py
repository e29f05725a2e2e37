r"""Likelihood of held-out images under a VAE: two lower bounds, bits per dimension, and what its latents carry.

    ELBO = E_q[log p(x|z) + log p(z) - log q(z|x)]  <=  E_q log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)  <=  log p(x),

with z_k ~ q(z|x), and p(z) the prior that the model samples from: N(0, 1), or what a two-stage VAE learned
(`zeuxis.models.two_stage_vae`). The second, importance-weighted bound rises to log p(x) with K. It needs p(z) itself:
where a model gives but an estimate of log p(z), as a two-stage VAE of many latents does, the average of its
exponential would be too large and no bound, so the bound and bits per dimension are left out. For a Gaussian decoder
p is a density of pixels in the recipe's range; of bytes, whose steps are d wide in that range, it takes

    -log2 p(x) / D - log2 d   bits per dimension.

A Bernoulli decoder (``bce``) on grey values gives no density of them, so its bounds compare with its like alone, and
there are no bits per dimension.

The divergence of posterior and prior is E_q[log q(z|x) - log p(z)]: in closed form for N(0, 1), else by one draw an
image. A latent is active if its posterior mean varies over images by more than 0.01.

Sources: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, ICLR 2014, section 2.2; Y. Burda, R. Grosse and
R. Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, equation 8 and section 5.3 (active units).
"""

from __future__ import annotations

import math

import numpy as np
import torch

from zeuxis.data.batches import from_unit
from zeuxis.evaluation.measure import Figures, Material, Value, measure, pieces, too_few
from zeuxis.models import HasLikelihood, HasPrior
from zeuxis.run import Run

__all__ = ["bounds"]

POSTERIOR_SAMPLES, MOST, CHUNK = 64, 1000, 50
# A density that is no formula takes hundreds of passes through a network for each latent.
MOST_LEARNED = 100
ACTIVE = 0.01


def bounds(
    run: Run, images: np.ndarray, labels: np.ndarray | None, *, samples: int = POSTERIOR_SAMPLES, seed: int = 0
) -> np.ndarray:
    """ELBO and importance-weighted bound of images, `(N, 2)` in nats; of an estimated prior, the ELBO alone holds.

    Args:
        run: of a model whose decoder gives a likelihood.
        images: `(N, H, W, C)` in 0..1.
        labels: class indices `(N,)`, for a conditional model.
        samples: K, latents an image.
        seed: of the latents.
    """
    model = run.model
    assert isinstance(model, HasLikelihood)
    generator = torch.Generator().manual_seed(seed)
    weights = run.condition(labels)
    found = []
    with torch.no_grad():
        for at in pieces(np.arange(len(images)), CHUNK):
            x = from_unit(torch.from_numpy(images[at]).permute(0, 3, 1, 2), run.recipe.data.range).to(run.device)
            condition = None if weights is None else torch.from_numpy(weights[at]).to(run.device)
            posterior = model.encode(x, condition)
            latents, ratios = [], []
            for _ in range(samples):
                noise = torch.randn(posterior.mean.shape, generator=generator).to(run.device)
                z = posterior.mean + torch.exp(posterior.logvar / 2) * noise
                latents.append(z)
                ratios.append(model.log_likelihood(x, z, condition).double() - posterior.log_density(z).double())
            prior = model.log_prior(torch.cat(latents), generator).double()
            each = torch.stack(ratios) + prior.view(samples, -1)
            weighted = torch.logsumexp(each, dim=0) - math.log(samples)
            found.append(torch.stack([each.mean(dim=0), weighted], dim=1).cpu().numpy())
    return np.concatenate(found)


def _pixels(material: Material) -> str:
    """The distribution of a pixel that the decoder gives; "" where it gives none."""
    model = material.run.model
    return model.pixels if isinstance(model, HasLikelihood) else ""


def _has_exact_prior(material: Material) -> bool:
    model = material.run.model
    return isinstance(model, HasPrior) and model.prior_density != "estimated"


NO_BOUND = "the density of its learned prior is known by an estimate only, which gives no bound"


@measure(
    gives={
        "elbo": "evidence lower bound of held-out images, nats an image",
        "importance_bound": f"importance-weighted bound with {POSTERIOR_SAMPLES} samples, nats an image",
    },
    better="high",
    applies=lambda material: bool(_pixels(material)),
)
def likelihood(material: Material) -> Figures:
    elbo, weighted = _bounds(material).T
    exact = _has_exact_prior(material)
    return {"elbo": Value.mean(elbo), "importance_bound": Value.mean(weighted) if exact else NO_BOUND}


@measure(
    gives={"bits_per_dimension": "of bytes, by the importance-weighted bound"},
    better="low",
    applies=lambda material: _pixels(material) == "gaussian",
)
def bits(material: Material) -> Figures:
    if not _has_exact_prior(material):
        return {"bits_per_dimension": NO_BOUND}
    options = material.run.recipe.data
    step = (2 if options.range == "-1..1" else 1) / 256
    each = -_bounds(material)[:, 1] / (math.prod(options.shape) * math.log(2)) - math.log2(step)
    return {"bits_per_dimension": Value.mean(each)}


@measure(
    gives={
        "active_latents": "latents that tell images apart",
        "kl": "divergence of posterior and prior, nats an image",
    },
    better="",
    applies=lambda material: isinstance(material.run.model, HasPrior),
)
def latents(material: Material) -> Figures:
    run, model = material.run, material.run.model
    assert isinstance(model, HasPrior)
    chosen = run.choose_images("test", material.n)
    posterior = run.posterior(run.images(chosen), run.condition(run.labels(chosen)))
    if model.prior_density == "normal":
        each = posterior.kl().sum(dim=1)
    else:
        generator = torch.Generator().manual_seed(material.seed)
        z = posterior.sample(generator)
        prior = [model.log_prior(part.to(run.device), generator).cpu() for part in torch.split(z, 1000)]
        each = posterior.log_density(z) - torch.cat(prior)
    return {
        "active_latents": too_few(2, len(chosen), "held-out images")
        or Value(float((posterior.mean.var(dim=0) > ACTIVE).sum()), n=len(chosen)),
        "kl": Value.mean(each.double().numpy()),
    }


def _bounds(material: Material) -> np.ndarray:
    """The bounds of some held-out images, computed once for all measures."""

    def make() -> np.ndarray:
        run, model = material.run, material.run.model
        normal = isinstance(model, HasPrior) and model.prior_density == "normal"
        chosen = run.choose_images("test", min(MOST if normal else MOST_LEARNED, material.n))
        return bounds(run, run.images(chosen), run.labels(chosen), seed=material.seed)

    return material.once("bounds", make)
