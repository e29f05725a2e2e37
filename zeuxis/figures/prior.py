"""Latents against the prior: where images are encoded, and where samples are decoded from.

Above, decoded latents of test images, of samples from the prior, and of samples from a normal distribution fitted to
the test images' latents. Below, two latent dimensions of both, and all dimensions by their spread. A decoder has only
learned the region where images are encoded; where the prior lies elsewhere, as in an autoencoder, it cannot generate.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from zeuxis.errors import UserError
from zeuxis.evaluation import energy_test
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, MUTED, filled, new_figure, show_tiles, title
from zeuxis.run import Run

COLUMNS, POINTS = 10, 500


def aggregate_posterior(run: Run, n: int, seed: int = 0) -> np.ndarray:
    """Samples `(n, Z)` latents: one from the posterior of each of n test images."""
    posterior = run.posterior(run.images(run.choose_images("test", n)))
    return np.asarray(posterior.sample(torch.Generator().manual_seed(seed)).numpy())


@figure(
    "prior",
    "Latents against the prior",
    "Samples are decoded from the prior, images are encoded elsewhere. The farther apart, the worse the samples.",
    order=6,
    applies=lambda run: run.encodes and run.generates and not run.conditional,
)
def prior(run: Run) -> Figure:
    encoded = aggregate_posterior(run, POINTS)
    if len(encoded) < 2:
        raise UserError("The spread of latents needs at least 2 test images, and there is 1.")
    sampled = run.latents(len(encoded), seed=1)
    comparison = energy_test(encoded, sampled)
    from_fit = np.random.default_rng(1).multivariate_normal(
        encoded.mean(axis=0), np.atleast_2d(np.cov(encoded, rowvar=False)), COLUMNS
    )
    rows = (run.reconstruct(run.test_images(COLUMNS)[0]), run.decode(sampled[:COLUMNS]), run.decode(from_fit))
    fig = new_figure(9.4, 7.2)
    grid = fig.add_gridspec(2, 2, height_ratios=(1.0, 1.15))
    labels = ["test images,\nrebuilt", "sampled from\nthe prior", "sampled from\na fitted normal"]
    show_tiles(
        fig.add_subplot(grid[0, :]), np.concatenate([filled(row, COLUMNS) for row in rows]), COLUMNS, rows=labels
    )
    spread = np.argsort(-encoded.std(axis=0), kind="stable")
    ax = fig.add_subplot(grid[1, 0])
    if encoded.shape[1] > 1:
        one, two = np.sort(spread[:2])
        ax.scatter(sampled[:, one], sampled[:, two], s=9, color=MUTED, alpha=0.45, lw=0, label="prior")
        ax.scatter(encoded[:, one], encoded[:, two], s=9, color=LINES[1], alpha=0.6, lw=0, label="test images")
        ax.set_xlabel(f"latent {one + 1}")
        ax.set_ylabel(f"latent {two + 1}")
    else:
        ax.hist(sampled[:, 0], 40, density=True, color=MUTED, alpha=0.45, label="prior")
        ax.hist(encoded[:, 0], 40, density=True, color=LINES[1], alpha=0.6, label="test images")
    ax.legend(loc="upper right", fontsize=9, markerscale=2, frameon=True, edgecolor="none", framealpha=0.85)
    ax.set_title(f"energy distance {comparison.distance:.2g}, p = {comparison.p_value:.2g}")
    ax = fig.add_subplot(grid[1, 1])
    rank = np.arange(1, encoded.shape[1] + 1)
    ax.plot(rank, sampled.std(axis=0)[spread], color=MUTED, lw=1.6, label="prior", marker="o", ms=3)
    ax.plot(rank, encoded.std(axis=0)[spread], color=LINES[1], lw=1.8, label="test images", marker="o", ms=3)
    ax.plot(rank, np.abs(encoded.mean(axis=0))[spread], color=LINES[0], lw=1.2, ls=":", label="test images, |mean|")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("latents, widest first")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="best", fontsize=9)
    ax.set_title("deviation of each latent")
    title(fig, run, "Latents against the prior")
    return fig
