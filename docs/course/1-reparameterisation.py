# %% [markdown]
# # 1. Reparameterisation
#
# *Why does a VAE draw its noise outside the network, and what would it cost not to?*
#
# A variational autoencoder explains an image $x$ by a latent $z$: first $z\sim\mathcal N(0, 1)$, then
# $x\sim p(x\mid z)$, where a network, the decoder, computes $p(x\mid z)$ from $z$. The likelihood
# $p(x)=\int p(x\mid z)\,p(z)\,dz$ cannot be computed, because almost every $z$ explains almost no part of a given
# image. So a second network, the encoder, says where to look: $q(z\mid x)=\mathcal N(\mu(x),\sigma^2(x))$. For any
# such $q$,
#
# $$
# \log p(x) \;\ge\; \mathbb E_{q(z\mid x)}\big[\log p(x\mid z)\big] - \mathrm{KL}\big(q(z\mid x)\,\|\,p(z)\big) .
# $$
#
# The right-hand side is the evidence lower bound. Training maximises it over both networks. The KL term has a closed
# form. The first term is the difficulty: it is an expectation over a distribution that itself depends on the encoder.
#
# ## Two ways to differentiate an expectation
#
# Take the gradient with respect to $\mu$ of $\mathbb E_{z\sim\mathcal N(\mu,\sigma^2)}[L(z)]$. A sampled number no
# longer depends on $\mu$, so one cannot sample first and differentiate afterwards. There are two ways out.
#
# The **score function** moves the derivative to the density, $\nabla_\mu q = q\,\nabla_\mu\log q$:
#
# $$ \nabla_\mu\,\mathbb E[L(z)] = \mathbb E\Big[L(z)\,\frac{z-\mu}{\sigma^2}\Big] . $$
#
# The **reparameterisation** moves the noise outside, $z=\mu+\sigma\varepsilon$ with $\varepsilon\sim\mathcal N(0,1)$:
#
# $$ \nabla_\mu\,\mathbb E[L(\mu+\sigma\varepsilon)] = \mathbb E\big[L'(\mu+\sigma\varepsilon)\big] . $$
#
# Both are unbiased. The first needs only values of $L$, so it works for anything; the second needs the derivative of
# $L$. What the derivative buys is measured next.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import zeuxis
from zeuxis.figures.style import STYLE

plt.rcParams.update(STYLE)

# %% [markdown]
# ## The variance, measured
#
# Let $L(z)=\sum_j (z_j-3)^2$ in $D$ dimensions, at $\mu=1$. The exact gradient with respect to $\mu_1$ is
# $2(\mu_1-3)=-4$.


# %%
def estimates(dimensions: int, sigma: float, baseline: bool = False, count: int = 50_000) -> dict[str, np.ndarray]:
    """Single-sample estimates of the gradient with respect to the first mean."""
    noise = np.random.default_rng(0).normal(size=(count, dimensions))
    z = 1 + sigma * noise
    loss = np.square(z - 3).sum(axis=1)
    if baseline:
        loss = loss - loss.mean()
    return {"score function": loss * noise[:, 0] / sigma, "reparameterised": 2 * (z[:, 0] - 3)}


for dimensions, sigma in ((1, 1.0), (1, 0.1), (50, 1.0)):
    for name, values in estimates(dimensions, sigma).items():
        error = values.std() / len(values) ** 0.5
        print(
            f"D = {dimensions:2}, sigma = {sigma:3}, {name:15}: {values.mean():6.2f} ± {error:.2f}, "
            f"variance of one sample {values.var():10,.2f}"
        )

# %% [markdown]
# All means agree with $-4$ within a few standard errors. The variances do not agree at all. The next picture shows why:
# the score function divides the whole loss by $\sigma$, so its variance grows as the posterior narrows. And it cannot
# tell which dimension was responsible for the loss, so its variance grows with the dimensions that have nothing to do
# with $\mu_1$. A baseline, the mean loss subtracted from $L$, changes no expectation and helps, but only in part.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
sigmas, sizes = np.geomspace(0.03, 2, 12), np.array([1, 2, 4, 8, 16, 32, 64, 128])
for axes, places, settings in (
    (left, sigmas, [{"dimensions": 1, "sigma": sigma} for sigma in sigmas]),
    (right, sizes, [{"dimensions": size, "sigma": 1.0, "count": 10_000} for size in sizes]),
):
    plain = [estimates(**setting) for setting in settings]
    based = [estimates(**setting, baseline=True) for setting in settings]
    axes.loglog(places, [values["score function"].var() for values in plain], "o-", label="score function")
    axes.loglog(places, [values["score function"].var() for values in based], "o--", label="with a baseline")
    axes.loglog(places, [values["reparameterised"].var() for values in plain], "s-", label="reparameterised")
left.set(title="By the width of the posterior, D = 1", xlabel=r"$\sigma$", ylabel="variance of one sample")
right.set(title=r"By the dimensions, $\sigma$ = 1", xlabel="D")
right.legend()
plt.show()

# %% [markdown]
# ## A VAE on handwriting
#
# The recipe `digits-vae` has two latents, so that the whole latent space fits on one map. `reduction = "sum"` in its
# recipe means that the loss is the negative bound in nats per image.

# %%
run = zeuxis.train("digits-vae", epochs=20, progress=False)
steps, kl = run.series("vae/kl")
print(f"{run.step} steps; at the end an image costs {kl[-10:].mean():.1f} nats of KL divergence")
print(f"The KL divergence first exceeded half a nat at step {steps[np.argmax(kl > 0.5)]}.")
run.figure("losses")

# %% [markdown]
# At first the latents say nothing: the decoder learns the average image before it can use them, and until then every
# nat is wasted. The next notebook is about trainings that never leave this state.
#
# ### The same comparison inside the trained model
#
# Now $L(z)=-\log p(x\mid z)$ is the decoder's own loss for one held-out image, and $\mu,\sigma$ are what the encoder
# says about it.

# %%
image = run.test_images(1)[0]
posterior = run.posterior(image)
mean, sigma = posterior.mean[0], (posterior.logvar[0] / 2).exp()
noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
z = (mean + sigma * noise).requires_grad_()
pixels = torch.from_numpy(image).permute(0, 3, 1, 2).expand(len(z), -1, -1, -1)
loss = -run.model.log_likelihood(pixels, z, None)
(reparameterised,) = torch.autograd.grad(loss.sum(), z)
value = loss.detach()[:, None]
by_score = value * noise / sigma
with_baseline = (value - value.mean()) * noise / sigma
for name, gradient in (
    ("score function", by_score), ("with a baseline", with_baseline), ("reparameterised", reparameterised),
):  # fmt: skip
    print(f"{name:15}: mean {gradient.mean(dim=0).numpy().round(1)}, variance {gradient.var(dim=0).numpy().round(0)}")
ratio = float(by_score.var(dim=0).mean() / reparameterised.var(dim=0).mean())
print(f"The score function would need a batch {ratio:,.0f} times as large for the same noise in the gradient.")

# %% [markdown]
# ### The map
#
# Each point is a held-out image at the mean of its posterior. Classes were never shown to the model: what order there
# is comes from the pixels.

# %%
run.figure("latents")

# %% [markdown]
# ### The manifold
#
# The decoder turns every point of the plane into an image. The plane is walked in equal steps of probability under the
# prior. Where two classes meet, images are in between: every point of the plane is decoded to something.

# %%
run.figure("manifold")

# %%
run.figure("reconstructions")

# %% [markdown]
# ### Beyond: is the prior filled?
#
# The KL term draws each posterior towards $\mathcal N(0,1)$, one image at a time. Samples come from the prior, so what
# counts is whether all posteriors *together*, the aggregate posterior $q(z)=\frac1N\sum_i q(z\mid x_i)$, fill it.

# %%
images, _ = run.test_images()
posterior = run.posterior(images)
widths = (posterior.logvar / 2).exp().numpy()
aggregate = posterior.mean.numpy() + widths * np.random.default_rng(0).normal(size=widths.shape)
print(f"width of one posterior: {widths.mean(axis=0).round(2)}")
print(f"aggregate posterior: mean {aggregate.mean(axis=0).round(2)}, deviation {aggregate.std(axis=0).round(2)}")
run.figure("prior")

# %% [markdown]
# Single posteriors are far narrower than the prior: that is the information which a latent keeps about its image. The
# aggregate comes near the prior in mean and deviation, so most samples of the prior are decoded from places that the
# decoder has seen. It is not the prior: the title of the last panel has a test that compares the two, and the map above
# has gaps and clusters that a normal distribution has not.
#
# ## Exercises
#
# 1. Derive both estimators for the gradient with respect to $\sigma$, and add them to the first experiment. Which of
#    the two suffers more from a small $\sigma$?
# 2. Train with `settings={"model.latent": 8}`, and repeat the comparison inside the trained model. Does the gap between
#    the estimators grow with the latents, as the toy predicts?
# 3. The latent of a GAN is noise as well, and a GAN has no encoder. Why does it need neither estimator?
#
# <details>
# <summary>Hints</summary>
#
# 1. $\nabla_\sigma\log q = \big((z-\mu)^2/\sigma^2-1\big)/\sigma$, and $z$ depends on $\sigma$ through $\varepsilon$
#    alone: $\partial z/\partial\sigma=\varepsilon$. Each score has one more factor $1/\sigma$ than the
#    reparameterised gradient.
# 2. `noise` must have eight columns. The score function multiplies the loss of the whole image with the noise of a
#    single latent; look at the number of nats in `value`, not only at the dimensions.
# 3. Ask which distribution the expectation is over, and whether it has a parameter that is being learned.
#
# </details>
