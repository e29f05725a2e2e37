"""Latents against the prior: where images are encoded, and where samples are decoded from.

Above, what the decoder makes of latents of test images, of draws from the prior, and of draws from a normal
distribution fitted to the test images' latents. Below, two latent dimensions of both, and all of them by
spread. A decoder knows only where images are encoded; an autoencoder's prior lies elsewhere, and it cannot generate.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from zeuxis.evaluation import energy_test
from zeuxis.figures.registry import figure
from zeuxis.figures.style import LINES, MUTED, new_figure, show_tiles, title
from zeuxis.run import Run

COLUMNS, POINTS = 10, 500


def aggregate_posterior(run: Run, n: int, seed: int = 0) -> np.ndarray:
    """Draws `(n, Z)` latents: of n test images, one from the posterior of each."""
    posterior = run.posterior(run.images(run.choose_images("test", n)))
    return np.asarray(posterior.sample(torch.Generator().manual_seed(seed)).numpy())


@figure(
    "prior",
    "Latents against the prior",
    "Samples are decoded from the prior, images are encoded elsewhere: the further apart, the worse the samples.",
    order=6,
    applies=lambda run: run.encodes and run.generates and not run.conditional,
)
def prior(run: Run) -> Figure:
    encoded = aggregate_posterior(run, POINTS)
    drawn_latents = run.latents(len(encoded), seed=1)
    found = energy_test(encoded, drawn_latents)
    fitted = np.random.default_rng(1).multivariate_normal(
        encoded.mean(axis=0), np.atleast_2d(np.cov(encoded, rowvar=False)), COLUMNS
    )
    rows = (run.reconstruct(run.test_images(COLUMNS)[0]), run.decode(drawn_latents[:COLUMNS]), run.decode(fitted))
    drawn = new_figure(9.4, 7.2)
    grid = drawn.add_gridspec(2, 2, height_ratios=(1.0, 1.15))
    labels = ["test images,\nrebuilt", "drawn from\nthe prior", "drawn from\na normal fitted\nto images"]
    show_tiles(drawn.add_subplot(grid[0, :]), np.concatenate(rows)[: 3 * COLUMNS], COLUMNS, rows=labels)
    spread = np.argsort(-encoded.std(axis=0), kind="stable")
    ax = drawn.add_subplot(grid[1, 0])
    if encoded.shape[1] > 1:
        one, two = np.sort(spread[:2])
        ax.scatter(drawn_latents[:, one], drawn_latents[:, two], s=9, color=MUTED, alpha=0.45, lw=0, label="prior")
        ax.scatter(encoded[:, one], encoded[:, two], s=9, color=LINES[1], alpha=0.6, lw=0, label="test images")
        ax.set_xlabel(f"latent {one + 1}")
        ax.set_ylabel(f"latent {two + 1}")
    else:
        ax.hist(drawn_latents[:, 0], 40, density=True, color=MUTED, alpha=0.45, label="prior")
        ax.hist(encoded[:, 0], 40, density=True, color=LINES[1], alpha=0.6, label="test images")
    ax.legend(loc="upper right", fontsize=9, markerscale=2, frameon=True, edgecolor="none", framealpha=0.85)
    ax.set_title("the two widest latents" if encoded.shape[1] > 1 else "the latent")
    ax = drawn.add_subplot(grid[1, 1])
    place = np.arange(1, encoded.shape[1] + 1)
    ax.plot(place, drawn_latents.std(axis=0)[spread], color=MUTED, lw=1.6, label="prior", marker="o", ms=3)
    ax.plot(place, encoded.std(axis=0)[spread], color=LINES[1], lw=1.8, label="test images", marker="o", ms=3)
    ax.plot(place, np.abs(encoded.mean(axis=0))[spread], color=LINES[0], lw=1.2, ls=":", label="test images, |mean|")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("latents, widest first")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="best", fontsize=9)
    ax.set_title(f"deviations; alike with p = {found.p_value:.2g} (energy distance {found.distance:.3g})")
    title(drawn, run, "Latents against the prior")
    return drawn
