r"""Likelihood of held-out images: bounds of VAEs, densities of flows, bits per dimension, and the use of latents.

A VAE gives two lower bounds,

    ELBO = E_q[log p(x|z) + log p(z) - log q(z|x)]  <=  E_q log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)  <=  log p(x),

with z_k ~ q(z|x), and p(z) the prior that the model samples from: N(0, 1), or the learned prior of a two-stage VAE
(`zeuxis.models.two_stage_vae`). The second, importance-weighted bound approaches log p(x) as K grows. It needs p(z)
itself. Where a model only estimates log p(z), as a two-stage VAE with many latents does, the average of the exponential
would be too large to be a bound, so this bound and bits per dimension are left out. For a Gaussian decoder, p is a
density of pixels in the recipe's range. Bytes, whose steps have width d in that range, take

    -log2 p(x) / D - log2 d   bits per dimension.

A Bernoulli decoder (``bce``) gives no density of grey values. Its bounds are comparable only with those of other
Bernoulli decoders, and there are no bits per dimension.

A flow gives the density of an image itself (`zeuxis.models.flow`), for which bytes are spread evenly over their steps.
The mean over the spread is a lower bound of the log-probability of the bytes, so both families stand in one column.

The divergence of posterior and prior is E_q[log q(z|x) - log p(z)]: in closed form for N(0, 1), else estimated from one
latent sample per image. A latent is active if the variance of its posterior mean over images exceeds 0.01.

Sources: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, ICLR 2014, section 2.2; Y. Burda, R. Grosse and
R. Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, equation 8 and section 5.3 (active units); L. Theis, A.
van den Oord and M. Bethge, A Note on the Evaluation of Generative Models, ICLR 2016, section 3.1 (spread bytes).
"""

from __future__ import annotations

import math

import numpy as np
import torch

from zeuxis.data.batches import from_unit
from zeuxis.evaluation.measure import Figures, Material, Value, measure, pieces, too_few
from zeuxis.models import HasDensity, HasLikelihood, HasPrior
from zeuxis.run import Run

__all__ = ["bounds", "densities"]

POSTERIOR_SAMPLES, MOST, CHUNK = 64, 500, 50
# A density without a formula takes hundreds of network passes per latent.
MOST_LEARNED = 100
ACTIVE = 0.01


def bounds(
    run: Run, images: np.ndarray, labels: np.ndarray | None, *, samples: int = POSTERIOR_SAMPLES, seed: int = 0
) -> np.ndarray:
    """Computes ELBO and importance-weighted bound, `(N, 2)` in nats; with an estimated prior, only the ELBO holds.

    Args:
        run: of a model whose decoder gives a likelihood.
        images: `(N, H, W, C)` in 0..1.
        labels: class indices `(N,)`, for a conditional model.
        samples: K, latents per image.
        seed: of the latents.
    """
    model = run.model
    assert isinstance(model, HasLikelihood)
    generator = torch.Generator().manual_seed(seed)
    conditions = run.condition_of_labels(labels)
    bounds_of_parts = []
    with torch.no_grad():
        for indices in pieces(np.arange(len(images)), CHUNK):
            x = from_unit(torch.from_numpy(images[indices]).permute(0, 3, 1, 2), run.recipe.data.range).to(run.device)
            condition = None if conditions is None else torch.from_numpy(conditions[indices]).to(run.device)
            posterior = model.encode(x, condition)
            latents, ratios = [], []
            for _ in range(samples):
                noise = torch.randn(posterior.mean.shape, generator=generator).to(run.device)
                z = posterior.mean + torch.exp(posterior.logvar / 2) * noise
                latents.append(z)
                ratios.append(model.log_likelihood(x, z, condition).double() - posterior.log_density(z).double())
            prior = model.log_prior(torch.cat(latents), generator).double()
            log_weights = torch.stack(ratios) + prior.view(samples, -1)
            weighted = torch.logsumexp(log_weights, dim=0) - math.log(samples)
            bounds_of_parts.append(torch.stack([log_weights.mean(dim=0), weighted], dim=1).cpu().numpy())
    return np.concatenate(bounds_of_parts)


def densities(run: Run, images: np.ndarray, labels: np.ndarray | None, *, seed: int = 0) -> np.ndarray:
    """Estimates log p(x) of images whose bytes are spread over their steps, `(N,)` in nats, in the recipe's range.

    Args:
        run: of a model that gives a density.
        images: `(N, H, W, C)` in 0..1, which are rounded to bytes.
        labels: class indices `(N,)`, for a conditional model.
        seed: of the spread and of the estimate.
    """
    model = run.model
    assert isinstance(model, HasDensity)
    generator = torch.Generator().manual_seed(seed)
    conditions = run.condition_of_labels(labels)
    parts = []
    for indices in pieces(np.arange(len(images)), CHUNK):
        pixels = torch.from_numpy(images[indices]).permute(0, 3, 1, 2)
        spread = ((pixels * 255).round() + torch.rand(pixels.shape, generator=generator)) / 256
        condition = None if conditions is None else torch.from_numpy(conditions[indices]).to(run.device)
        x = from_unit(spread, run.recipe.data.range).to(run.device)
        parts.append(model.log_density(x, generator, condition).double().cpu().numpy())
    return np.concatenate(parts)


def _pixels(material: Material) -> str:
    """Returns the distribution that the decoder gives a pixel; "" where it gives none."""
    model = material.run.model
    return model.pixels if isinstance(model, HasLikelihood) else ""


def _has_exact_prior(material: Material) -> bool:
    model = material.run.model
    return isinstance(model, HasPrior) and model.prior_density != "estimated"


NO_BOUND = "the density of its learned prior can only be estimated, which gives no bound"


@measure(
    gives={
        "elbo": "evidence lower bound of held-out images, nats per image",
        "importance_bound": f"importance-weighted bound with {POSTERIOR_SAMPLES} samples, nats per image",
    },
    better="high",
    applies=lambda material: bool(_pixels(material)),
)
def likelihood(material: Material) -> Figures:
    elbo, weighted = _bounds(material).T
    exact = _has_exact_prior(material)
    return {"elbo": Value.mean(elbo), "importance_bound": Value.mean(weighted) if exact else NO_BOUND}


@measure(
    gives={"bits_per_dimension": "bits per dimension of bytes, by the importance-weighted bound or a flow's density"},
    better="low",
    applies=lambda material: _pixels(material) == "gaussian" or isinstance(material.run.model, HasDensity),
)
def bits(material: Material) -> Figures:
    run = material.run
    if isinstance(run.model, HasDensity):
        indices = run.choose_images("test", min(MOST_LEARNED, material.n))
        nats = densities(run, run.images(indices), run.labels(indices), seed=material.seed)
        steps = 256  # the bytes are spread (`densities`)
    elif _has_exact_prior(material):
        nats, steps = _bounds(material)[:, 1], 255  # the bytes are those of training
    else:
        return {"bits_per_dimension": NO_BOUND}
    options = run.recipe.data
    step = (2 if options.range == "-1..1" else 1) / steps
    per_image = -nats / (math.prod(options.shape) * math.log(2)) - math.log2(step)
    return {"bits_per_dimension": Value.mean(per_image)}


@measure(
    gives={
        "active_latents": "number of latents whose posterior mean varies over images",
        "kl": "KL divergence of the posterior from the prior, nats per image",
    },
    better="",
    applies=lambda material: isinstance(material.run.model, HasPrior),
)
def latents(material: Material) -> Figures:
    run, model = material.run, material.run.model
    assert isinstance(model, HasPrior)
    indices = run.choose_images("test", material.n)
    posterior = run.posterior(run.images(indices), run.condition_of_labels(run.labels(indices)))
    if model.prior_density == "normal":
        divergences = posterior.kl().sum(dim=1)
    else:
        generator = torch.Generator().manual_seed(material.seed)
        z = posterior.sample(generator)
        prior = [model.log_prior(part.to(run.device), generator).cpu() for part in torch.split(z, 1000)]
        divergences = posterior.log_density(z) - torch.cat(prior)
    return {
        "active_latents": too_few(2, len(indices), "held-out images")
        or Value(float((posterior.mean.var(dim=0) > ACTIVE).sum()), n=len(indices)),
        "kl": Value.mean(divergences.double().numpy()),
    }


def _bounds(material: Material) -> np.ndarray:
    """Computes the bounds of held-out images, once for all measures."""

    def make() -> np.ndarray:
        run, model = material.run, material.run.model
        normal = isinstance(model, HasPrior) and model.prior_density == "normal"
        indices = run.choose_images("test", min(MOST if normal else MOST_LEARNED, material.n))
        return bounds(run, run.images(indices), run.labels(indices), seed=material.seed)

    return material.once("bounds", make)
