r"""Likelihood of held-out images under a VAE: two lower bounds, bits per dimension, and what its latents carry.

    ELBO = E_q[log p(x|z) + log p(z) - log q(z|x)]  <=  E_q log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)  <=  log p(x),

with z_k ~ q(z|x). The second, importance-weighted bound rises to log p(x) with K. For a Gaussian decoder p is a density
of pixels in the recipe's range; of bytes, whose steps are d wide in that range, it takes

    -log2 p(x) / D - log2 d   bits per dimension.

A Bernoulli decoder (``bce``) on grey values gives no density of them, so its bounds compare with its like alone, and
there are no bits per dimension.

A latent is active if its posterior mean varies over images by more than 0.01.

Sources: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, ICLR 2014, section 2.2; Y. Burda, R. Grosse and
R. Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, equation 8 and section 5.3 (active units).
"""

from __future__ import annotations

import math

import numpy as np
import torch

from zeuxis.data.batches import from_unit
from zeuxis.evaluation.measure import Material, Value, measure, pieces
from zeuxis.models.vae import VAE
from zeuxis.run import Run

__all__ = ["bounds"]

DRAWS, MOST, CHUNK = 64, 1000, 50
ACTIVE = 0.01


def bounds(run: Run, images: np.ndarray, labels: np.ndarray | None, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """ELBO and importance-weighted bound of images, `(N, 2)` in nats.

    Args:
        run: of a VAE with a decoder that is a likelihood.
        images: `(N, H, W, C)` in 0..1.
        labels: class indices `(N,)`, for a conditional model.
        draws: K, latents an image.
        seed: of the latents.
    """
    model = run.model
    assert isinstance(model, VAE)
    generator = torch.Generator().manual_seed(seed)
    constant = 0.5 * math.log(2 * math.pi) if model.options.reconstruction == "gaussian" else 0.0
    weights = run.condition(labels)
    found = []
    with torch.no_grad():
        for at in pieces(np.arange(len(images)), CHUNK):
            x = from_unit(torch.from_numpy(images[at]).permute(0, 3, 1, 2), run.recipe.data.range).to(run.device)
            told = None if weights is None else torch.from_numpy(weights[at]).to(run.device)
            posterior = model.encode(x, told)
            each = []
            for _ in range(draws):
                noise = torch.randn(posterior.mean.shape, generator=generator).to(run.device)
                z = posterior.mean + torch.exp(posterior.logvar / 2) * noise
                likelihood = -(model.surprise(x, z, told) + constant).flatten(1).sum(1).double()
                # The normalising constants of prior and posterior cancel.
                prior = -0.5 * z.double().square().sum(1)
                drawn = -0.5 * (noise.double().square() + posterior.logvar).sum(1)
                each.append(likelihood + prior - drawn)
            ratios = torch.stack(each)
            weighted = torch.logsumexp(ratios, dim=0) - math.log(draws)
            found.append(torch.stack([ratios.mean(dim=0), weighted], dim=1).cpu().numpy())
    return np.concatenate(found)


def _likelihood(material: Material) -> str:
    """The distribution of a pixel that the decoder gives; "" where it gives none."""
    model = material.run.model
    return model.options.reconstruction.replace("mse", "") if isinstance(model, VAE) else ""


@measure(
    gives={
        "elbo": "evidence lower bound of held-out images, nats an image",
        "importance_bound": f"importance-weighted bound with {DRAWS} draws, nats an image",
    },
    better="high",
    applies=lambda material: bool(_likelihood(material)),
)
def likelihood(material: Material) -> dict[str, Value]:
    found = _bounds(material)
    return {name: Value.mean(each) for name, each in zip(("elbo", "importance_bound"), found.T, strict=True)}


@measure(
    gives={"bits_per_dimension": "of bytes, by the importance-weighted bound"},
    better="low",
    applies=lambda material: _likelihood(material) == "gaussian",
)
def bits(material: Material) -> dict[str, Value]:
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
    applies=lambda material: isinstance(material.run.model, VAE),
)
def latents(material: Material) -> dict[str, Value]:
    run = material.run
    chosen = run.choose_images("test", material.n)
    posterior = run.posterior(run.images(chosen), run.condition(run.labels(chosen)))
    each = posterior.kl().sum(dim=1).numpy()
    active = float((posterior.mean.var(dim=0) > ACTIVE).sum())
    return {
        "active_latents": Value(active, None, len(each)),
        "kl": Value.mean(each),
    }


def _bounds(material: Material) -> np.ndarray:
    """The bounds of some held-out images, computed once for all measures."""

    def make() -> np.ndarray:
        run = material.run
        chosen = run.choose_images("test", min(MOST, material.n))
        return bounds(run, run.images(chosen), run.labels(chosen), seed=material.seed)

    return material.once("bounds", make)
