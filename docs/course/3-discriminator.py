# %% [markdown]
# # 3. Why the discriminator wins, and what helps
#
# *Telling digits from noise is easier than drawing them. What happens when the discriminator is always right, and which
# of the known remedies helps?*
#
# With $D(x)$ the logit of "real", the two networks of a GAN minimise
#
# $$
# L_D = \mathbb E_x[\mathrm{softplus}(-D(x))] + \mathbb E_z[\mathrm{softplus}(D(G(z)))], \qquad
# L_G = \mathbb E_z[\mathrm{softplus}(-D(G(z)))] .
# $$
#
# The best discriminator is $D^*(x)=\log\frac{p_\text{data}(x)}{p_G(x)}$. Images lie on thin sets in the space of
# pixels, and early in training the two sets hardly meet: $D^*$ is then infinite on both, and a discriminator that
# comes near it says nothing about *which way* a sample should move. The loss $L_G$ keeps its slope with respect to
# the logit there, $\partial L_G/\partial D = -\mathrm{sigmoid}(-D)\to-1$, but what matters is $\nabla_x D$ at the
# sample, and this need not point to any image.
#
# The remedies compared here:
#
# | remedy | idea |
# |---|---|
# | label smoothing | real images are labelled $1-s$, so a logit beyond $\log\frac{1-s}{s}$ costs |
# | separate batches | real and fake images pass through $D$ in batches of their own, not merged into one |
# | R1 | $\frac\gamma2\,\mathbb E_x\lvert\nabla D(x)\rvert^2$ keeps $D$ flat at the images |
# | spectral norm | each layer is divided by its largest singular value, so $D$ cannot be steep |
# | instance noise | noise on all inputs of $D$ makes the two sets overlap |

# %%
import copy

import matplotlib.pyplot as plt
import numpy as np
import torch

import zeuxis
from zeuxis.figures.style import STYLE, show_tiles
from zeuxis.run import Run

plt.rcParams.update(STYLE)

# %% [markdown]
# ## A discriminator that wins
#
# The recipe `digits-gan`, with batch norm in the discriminator and a learning rate for it that is four times the
# generator's. Batch norm takes its mean and deviation from the batch. So that these cannot give a batch away, real and
# fake images are merged into one batch, which is itself often named as a remedy.

# %%
BASE = {
    "model.merged_batches": True,
    "training.log_every": 5,
    "training.ema": 0.98,
    "training.test_every": "never",
    "training.snapshot_every": "never",
    "training.checkpoint_every": "never",
    "training.optimizers.discriminator.learning_rate": 2.4e-3,
    "networks.discriminator.layers": [
        "conv 32 k4 s2", "lrelu 0.2", "conv 64 k4 s2 nobias", "bn", "lrelu 0.2", "flatten", "dense 1",
    ],
}  # fmt: skip
STEPS, SEEDS = 240, (1, 2)


def trained(name: str, seed: int, **options: object) -> Run:
    """A GAN after a few steps, with options of the model or, with their full key, of anything else."""
    own = {key if "." in key else f"model.{key}": value for key, value in options.items()}
    return zeuxis.train(
        "digits-gan", steps=STEPS, seed=seed, settings=BASE | own, name=f"{name} {seed}".replace(" ", "-"),
        progress=False,
    )  # fmt: skip


plain = trained("plain", 1)
print("\n".join(plain.warnings) or "The monitors found nothing.")
plain.figure("accuracy")

# %%
plain.figure("losses")

# %% [markdown]
# The shaded band of the first figure is where both networks learn. A monitor looks at the last thirty lines of the
# journal and warns if the accuracy stayed above 97 %; it advises, among others, what is already done here.
#
# The second figure does not fit. If samples are refused with certainty, the generator's loss should be high, and it
# goes to zero, as the discriminator's does. Both networks win at once, which in a game for two cannot be. Keep this
# in mind.
#
# ## The remedies, each by itself
#
# Six variants, two seeds each. A remedy is judged by two numbers: the accuracy over the last third of the training, and
# the Frechet distance of the samples in the features of a classifier of digits.

# %%
VARIANTS = {
    "plain": {},
    "label smoothing": {"label_smoothing": 0.1},
    "separate batches": {"merged_batches": False},
    "R1": {"r1_penalty": 1.0},
    "spectral norm": {"networks.discriminator.spectral_norm": True},
    "instance noise": {"instance_noise": 0.5},
}


def accuracy(run: Run) -> float:
    """Share of real and fake images that were classified correctly in the last third of the training."""
    names = run.names_of("accuracy")
    return float(np.mean([run.series(name)[1][-STEPS // 15 :].mean() for name in names]))


runs = {name: [trained(name, seed, **options) for seed in SEEDS if name != "plain" or seed != 1]
        for name, options in VARIANTS.items()}  # fmt: skip
runs["plain"].insert(0, plain)

# %%
fid, right = {}, {}
for name, group in runs.items():
    few = [zeuxis.evaluate(run, samples=500, only=["fid"], progress=False)["measures"]["fid"]["value"] for run in group]
    fid[name], right[name] = np.array(few), np.array([accuracy(run) for run in group])


def with_error(values: np.ndarray) -> str:
    return f"{values.mean():6.3g} ± {values.std(ddof=1) / len(values) ** 0.5:.2g}"


print("                   accuracy          Frechet distance")
for name in VARIANTS:
    print(f"{name:16}   {with_error(right[name]):16}  {with_error(fid[name])}")

# %% [markdown]
# The error is the standard error over two seeds, so it is itself hardly known. Seeds are drawn as single points
# below, so that no mean hides them.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
names = list(VARIANTS)[::-1]
for ax, values in zip(axes, (right, fid), strict=True):
    for row, name in enumerate(names):
        mean, error = values[name].mean(), values[name].std(ddof=1) / len(SEEDS) ** 0.5
        ax.plot(values[name], [row] * len(SEEDS), "o", color="#2f6690", alpha=0.5, markeredgewidth=0)
        ax.errorbar(mean, row - 0.2, xerr=error, fmt="|", color="#d1603d", capsize=3)
axes[0].axvspan(0.6, 0.75, color="#4c956c", alpha=0.15, linewidth=0)
axes[0].set_yticks(range(len(names)), names)
axes[0].set(title="Accuracy of the discriminator", xlabel="share, last third of the training")
axes[1].set(title="Distance of the samples", xlabel="Frechet distance, lower is better")
plt.show()

# %%
figure, axes = plt.subplots(3, 2, figsize=(9, 4.2), layout="constrained")
for ax, (name, group) in zip(axes.flat, runs.items(), strict=True):
    show_tiles(ax, group[0].sample(24), 12)
    ax.set_title(f"{name}, {fid[name][0]:.0f}")
plt.show()

# %% [markdown]
# ## What the numbers allow to say
#
# The next cell draws the conclusion from the numbers, not from the names of the remedies. With two seeds each, a
# remedy is said to help if both of its runs are better than both plain ones. If nothing but chance were at work, this
# would happen once in six times: a hint, and no proof.

# %%
for name in list(VARIANTS)[1:]:
    better, worse = fid[name].max() < fid["plain"].min(), fid[name].min() > fid["plain"].max()
    ratio = fid["plain"].mean() / fid[name].mean()
    print(f"{name:16} {'helps' if better else 'harms' if worse else 'leaves it open'}: distance divided by {ratio:.1f}")
all_right, all_fid = np.concatenate(list(right.values())), np.concatenate(list(fid.values()))
print(f"Over all {len(all_fid)} runs, accuracy and distance correlate by {np.corrcoef(all_right, all_fid)[0, 1]:.2f}.")

# %% [markdown]
# ### Beyond: what merging does to batch norm
#
# The discriminator learns on merged batches. The generator's loss, though, is computed on a batch of fakes alone, and
# to batch norm that is another input: its mean and deviation are now those of the fakes. Score the same fakes in both
# ways:

# %%
from_run = runs["plain"][0]
twin = copy.deepcopy(from_run.model).train()  # in training, batch norm uses the batch


def pixels(images: np.ndarray) -> torch.Tensor:
    """Images as the networks take them, `(N, C, H, W)` in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1


real, fake = pixels(from_run.test_images(32)[0]), pixels(from_run.sample(32))
with torch.no_grad():
    merged, alone = twin.realness(torch.cat([real, fake]))[32:], twin.realness(fake)
print(f"mean logit of the fakes in a merged batch {merged.mean():6.1f}, alone {alone.mean():6.1f}")

# %% [markdown]
# The same fakes are surely fake to the discriminator that trains on merged batches, and surely real to the one that the
# generator asks. The generator has long won its own game, which is the riddle of the two losses: its slope leads to
# images that look real in a batch of fakes, and nowhere else. No penalty on the discriminator mends this, because
# nothing is wrong with the discriminator. Passing real and fake images in batches of their own does: the generator is
# then judged as the discriminator learned to judge.
#
# ### Beyond: a remedy can work and not help
#
# R1 and label smoothing promise a discriminator that is less steep. Is it, at the samples of the generator?

# %%
for name, group in runs.items():
    slopes = []
    for run in group:
        x = pixels(run.sample(200)).requires_grad_()
        (slope,) = torch.autograd.grad(run.model.realness(x).sum(), x)
        slopes.append(float(slope.flatten(1).norm(dim=1).median()))
    print(f"{name:16} median length of the gradient at a sample: {with_error(np.array(slopes))}")

# %% [markdown]
# Both do what they promise: the slope is smaller than in the plain runs. The samples are no better for it, since the
# cause was another one. So look for the cause before you choose a remedy, and change one thing at a time. With
# another cause, such as a discriminator without batch norm that learns too fast, the order of the remedies is another
# as well.
#
# ## Exercises
#
# 1. Train twice as long. Does `plain` recover, or does the gap grow?
# 2. Take the batch norm out of the discriminator (`bn` in `BASE`). Does merging still harm? Which remedies help now?
# 3. Give the generator two updates for each of the discriminator (`"generator_updates": 2`). Is this the same as
#    halving the discriminator's learning rate? Which of the two numbers above tells them apart?
#
# <details>
# <summary>Hints</summary>
#
# 1. Change `STEPS`, and move the folder `runs` away first: a run is never overwritten, and these have names. Compare at
#    equal steps and at equal time.
# 2. Without batch norm, the score of an image does not depend on its batch. What merging then changes is only the scale
#    of the loss, which Adam divides out.
# 3. A smaller rate makes the discriminator slower but lets it see as many samples; two generator updates let the
#    generator exploit a discriminator that stands still.
#
# </details>
