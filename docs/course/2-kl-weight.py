# %% [markdown]
# # 2. What the KL weight does
#
# *What is lost when the KL term is made cheaper or dearer, and can the best weight be read from a number?*
#
# With a weight $\beta$ on the divergence, a VAE minimises
#
# $$
# L_\beta = \underbrace{\mathbb E_{q(z\mid x)}\big[-\log p(x\mid z)\big]}_{\text{distortion}}
# + \beta\,\underbrace{\mathrm{KL}\big(q(z\mid x)\,\|\,p(z)\big)}_{\text{rate}} .
# $$
#
# The rate is the number of nats by which the latent tells images apart: $\mathbb E_x\,\mathrm{KL} = I(x; z) +
# \mathrm{KL}\big(q(z)\,\|\,p(z)\big)$, the information that is kept and the price of an aggregate posterior $q(z)$
# that is not the prior. The distortion is what the decoder still has to guess. $\beta$ is the exchange rate between
# the two: at a minimum, $\partial\,\text{distortion} / \partial\,\text{rate} = -\beta$. Only at $\beta=1$ is
# $-L_\beta$ the evidence lower bound.
#
# Two failures lie at the ends. With a small $\beta$, posteriors turn into points and drift apart; reconstructions are
# good, but the prior has its mass where the decoder has seen nothing. With a large $\beta$, the posterior *collapses*
# to the prior: $q(z\mid x)=p(z)$ for every $x$, the rate is zero, and the decoder draws the average of all images.

# %%
import json

import matplotlib.pyplot as plt
import numpy as np

import zeuxis
from zeuxis.figures.style import STYLE, show_tiles

plt.rcParams.update(STYLE)

# %% [markdown]
# ## One sweep
#
# `zeuxis.sweep` trains the recipe at each weight and measures every run. It also writes a report, `sweep.html`. Eight
# latents leave room for some of them to be given up.

# %%
WEIGHTS = [0.02, 0.2, 1, 5, 50]
settings = {
    "model.latent": 8,
    "training.epochs": 12,
    "training.log_every": 10,
    "training.snapshot_every": "never",
    "training.checkpoint_every": "never",
}
swept = zeuxis.sweep("digits-vae", {"model.kl_weight": WEIGHTS}, settings=settings, samples=1000, progress=False)
results = json.loads(swept.path.with_suffix(".json").read_text())
runs = [zeuxis.load(swept.path.parent / result["run"]) for result in results]
measured = {
    name: np.array([[result["measures"][name][key] or 0 for key in ("value", "stderr")] for result in results])
    for name in ("test_mse", "kl", "elbo", "fid")
}

# %%
print("weight   error of         KL, nats        ELBO, nats      Frechet distance")
print("         reconstruction                                   of samples")
for i, weight in enumerate(WEIGHTS):
    mse, kl, elbo, fid = (values[i] for values in measured.values())
    print(
        f"{weight:6}   {mse[0]:.4f}         {kl[0]:6.2f} ± {kl[1]:.2f}   "
        f"{elbo[0]:7.1f} ± {elbo[1]:.1f}   {fid[0]:5.1f} ± {fid[1]:.1f}"
    )
best_bound, best_samples = (
    WEIGHTS[int(np.argmax(measured["elbo"][:, 0]))],
    WEIGHTS[int(np.argmin(measured["fid"][:, 0]))],
)
print(f"The highest bound is at {best_bound}, the lowest distance of samples at {best_samples}.")

# %% [markdown]
# ## The trade-off, drawn
#
# Each point is one training. Down is better reconstruction, left is a cheaper code. No weight is better in both: that
# is what a trade-off is. The right-hand picture asks a different question, what the samples are like.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.errorbar(measured["kl"][:, 0], measured["test_mse"][:, 0], measured["test_mse"][:, 1], measured["kl"][:, 1], "o-")
right.errorbar(WEIGHTS, measured["fid"][:, 0], measured["fid"][:, 1], fmt="o-")
for weight, rate, error in zip(WEIGHTS, measured["kl"][:, 0], measured["test_mse"][:, 0], strict=True):
    left.annotate(rf"$\beta$ = {weight}", (rate, error), xytext=(7, 5), textcoords="offset points")
left.margins(x=0.15, y=0.12)
left.set(title="Reconstruction against rate", xlabel="KL divergence, nats per image", ylabel="squared error")
right.set(title="Distance of samples from images", xlabel=r"KL weight $\beta$", ylabel="Frechet distance", xscale="log")
plt.show()

# %% [markdown]
# ## Samples and reconstructions at each weight

# %%
figure, axes = plt.subplots(len(runs), 2, figsize=(9, 5.4), layout="constrained")
shown = runs[0].test_images(12)[0]
for (left, right), run, weight in zip(axes, runs, WEIGHTS, strict=True):
    show_tiles(left, np.concatenate([shown, run.reconstruct(shown)]), 12)
    show_tiles(right, run.sample(24), 12)
    left.set_ylabel(rf"$\beta$ = {weight}", rotation=0, ha="right", va="center")
axes[0, 0].set_title("held-out images above their reconstructions")
axes[0, 1].set_title("samples of the prior")
plt.show()

# %% [markdown]
# Read the columns against each other. On the left, images get blurred as $\beta$ grows. On the right, a small $\beta$
# gives strokes that belong to no digit, and the largest one the same blur from every latent.
#
# ## Collapse, seen
#
# How far do images differ that are decoded from different latents? And what did the training say while it happened?

# %%
for run, weight in zip(runs, WEIGHTS, strict=True):
    spread = run.sample(200).std(axis=0).mean()
    print(f"weight {weight:4}: pixels of samples vary by {spread:.3f}")
    for warning in run.warnings:
        print(f"             {warning}")

# %%
figure, axes = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
for run, weight in zip(runs, WEIGHTS, strict=True):
    axes.semilogy(*run.series("vae/kl_nats"), label=rf"$\beta$ = {weight}")
axes.set(title="KL divergence in training", xlabel="step", ylabel="nats per image")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# A monitor warns of what it sees at the time. A curve that rises again says that the collapse was a stage and not the
# end; one that still falls says the opposite.
#
# ### Beyond: which latents are given up?
#
# The divergence is a sum over latents, and the weight acts on each by itself. A latent is worth its price only if it
# saves the decoder more than $\beta$ nats for each nat that it costs. So latents do not fade together: they drop out
# one by one.

# %%
images, _ = runs[0].test_images()
figure, axes = plt.subplots(1, len(runs), figsize=(9, 2.3), layout="constrained", sharey=True)
for ax, run, weight in zip(axes, runs, WEIGHTS, strict=True):
    posterior = run.posterior(images)
    mean, variance = posterior.mean.numpy(), posterior.logvar.exp().numpy()
    nats = np.sort((variance + mean**2 - 1 - np.log(variance)).mean(axis=0) / 2)[::-1]
    ax.bar(range(1, 9), nats)
    ax.set(title=rf"$\beta$ = {weight}", xlabel="latent", xticks=[1, 4, 8])
axes[0].set_ylabel("nats per image")
plt.show()

# %% [markdown]
# ## What follows
#
# The bound answers "which weight models the pixels best" and is only comparable because it is always computed with
# $\beta=1$, whatever the training used. The Frechet distance answers "which samples look like the images", in the
# features of a classifier. The table says whether the two agree here. Neither sees what you may want the latents for:
# a code with few active latents is easier to read and to move through, and costs reconstruction.
#
# ## Exercises
#
# 1. Add `"model.kl_warmup": 6` to the settings, which lets the weight rise from 0 over six epochs. Does the largest
#    weight still collapse? Why should, or should not, a warm-up change where the training ends?
# 2. `"model.free_bits": 0.5` makes the first half nat of each latent free. What is the smallest rate that you expect at
#    $\beta=50$? Check it.
# 3. Replace the likelihood: `"model.reconstruction": "gaussian"` learns the variance of a pixel. What does this do to
#    the meaning of $\beta$, and where is the best weight now?
#
# <details>
# <summary>Hints</summary>
#
# 1. A warm-up changes the path and not the objective at its end. Collapse at $\beta=1$ can be an accident of the first
#    steps; ask whether at $\beta=50$ the collapsed solution is the minimum.
# 2. Below the free amount, latents have no reason to give up information: multiply by the number of latents.
# 3. Halving the variance doubles the weight of the squared error, which is the same as halving $\beta$. A learned
#    variance makes this choice by itself.
#
# </details>
