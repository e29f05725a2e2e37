# %% [markdown]
# # 6. Flows beside both
#
# *A flow has neither an encoder nor an opponent. What does it learn instead, and what does it pay?*
#
# A flow carries noise $x_0\sim\mathcal N(0,1)$ to an image along a velocity field, $\dot x = v(x,t)$ from $t=0$ to
# $t=1$. Flow matching learns the field by regression. Draw a straight line from noise to an image, and ask for its
# direction:
#
# $$
# x_t=(1-t)\,x_0+t\,x_1, \qquad
# L=\mathbb E_{t,x_0,x_1}\big\lVert v(x_t,t)-(x_1-x_0)\big\rVert^2 .
# $$
#
# Many lines cross at a point, and the network can give one answer only. The best is their mean,
# $v^*(x,t)=\mathbb E[x_1-x_0\mid x_t=x]$, and the flow of these means carries $\mathcal N(0,1)$ to the distribution
# of the images. Two things follow. The loss never reaches zero, because a line cannot be told from one of its points.
# And the flow's own paths are curved, though every line that it learned from was straight. A solver follows curves in
# steps: here a flow pays.
#
# | | learns by | an image costs | density of an image |
# |---|---|---|---|
# | VAE | a bound on the likelihood | one pass | a bound |
# | GAN | a game | one pass | none |
# | flow | a regression | one or two passes in each solver step | by the change of variables |

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import torch

import zeuxis
from zeuxis.evaluation.frechet import distance_value
from zeuxis.evaluation.judge import find_or_train_judge
from zeuxis.evaluation.measure import Material
from zeuxis.figures.style import STYLE, show_tiles
from zeuxis.run import Run

plt.rcParams.update(STYLE)

# %% [markdown]
# ## A short training
#
# A regression has a loss that means something, and it falls.

# %%
quiet = {"training.ema": 0.98, "training.snapshot_every": "never", "training.checkpoint_every": "never"}
run = zeuxis.train("digits-flow", steps=250, settings=quiet, progress=False)
steps, loss = run.series("flow/flow")
print(f"loss over the first ten lines {loss[:10].mean():.3f}, over the last ten {loss[-10:].mean():.3f}")
run.show(40, columns=20)

# %% [markdown]
# The rest looks at the flow that comes with the package: the same recipe, trained to its end.

# %%
full = zeuxis.load("pretrained/digits-flow")
print(f"{full.step} steps")
full.show(40, columns=20)

# %% [markdown]
# ## The path, drawn
#
# Ten digits on their way from noise. Euler's method, the simplest solver: $x \leftarrow x + h\,v(x,t)$.


# %%
def path(run: Run, count: int, steps: int, seed: int = 1) -> torch.Tensor:
    """Positions `(steps + 1, count, C, H, W)` of the classes in turn on their way from noise to an image."""
    x = torch.from_numpy(run.latents(count, seed)).reshape(count, *run.recipe.data.shape)
    follow = run.model.guided(torch.as_tensor(run.in_turn(count)))
    places = [x]
    with torch.no_grad():
        for i in range(steps):
            x = x + follow(x, torch.full((count, 1), i / steps)) / steps
            places.append(x)
    return torch.stack(places)


def pictures(x: torch.Tensor) -> np.ndarray:
    """Images `(N, H, W, C)` in 0..1 of points on a path, whose range is -1..1."""
    return (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


STEPS = 48
places = path(full, 10, STEPS)
shown = range(0, STEPS + 1, 6)
figure, ax = plt.subplots(figsize=(6, 5.2), layout="constrained")
show_tiles(ax, pictures(torch.cat([places[i] for i in shown])), 10, rows=[f"t = {i / STEPS:.2f}" for i in shown])
plt.show()

# %% [markdown]
# ### Where the flow is going
#
# At every time the velocity points to a guess of the end, $\hat x_1 = x_t + (1-t)\,v(x_t,t)$. On a straight path the
# guess would never change. It starts as an average of all images of the class, and becomes one image.

# %%
moves = places[1:] - places[:-1]
guesses = [pictures(places[i] + (STEPS - i) * moves[i]) for i in shown[:-1]]
figure, ax = plt.subplots(figsize=(6, 4.7), layout="constrained")
show_tiles(ax, np.concatenate(guesses), 10, rows=[f"t = {i / STEPS:.2f}" for i in shown[:-1]])
plt.show()


def curvature(places: torch.Tensor) -> torch.Tensor:
    """Length of each path over the distance of its ends, `(count,)`: 1 if it is straight."""
    lengths = (places[1:] - places[:-1]).flatten(2).norm(dim=2).sum(dim=0)
    return lengths / (places[-1] - places[0]).flatten(1).norm(dim=1)


ratio = curvature(path(full, 100, 24))
print(f"Paths are {ratio.mean():.4f} ± {ratio.std() / 10:.4f} times as long as the lines between their ends.")

# %% [markdown]
# ## Solvers and steps against quality and time
#
# So the paths are nearly straight, and yet the first direction leads to an average. How many steps does it take to get
# from there to one image?
#
# The solver belongs to the sampling, so a trained run can change it. What counts as its cost is how often it asks the
# network: once a step for `euler`, twice for `midpoint` and `heun`. The error is a jackknife's, over the samples.

# %%
judge = find_or_train_judge(full)
found = {}
for solver, calls in (("euler", 1), ("midpoint", 2), ("heun", 2)):
    for steps in {1: (1, 2, 4, 8, 16), 2: (1, 2, 4, 8)}[calls]:
        full.configure(solver=solver, solver_steps=steps)
        material, start = Material(full, samples=300, judge=judge), time.perf_counter()
        count = len(material.samples)
        seconds = time.perf_counter() - start
        found[solver, steps * calls] = distance_value(material), 1000 * seconds / count

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for solver in ("euler", "midpoint", "heun"):
    calls = [number for name, number in found if name == solver]
    values = [found[solver, number][0] for number in calls]
    left.errorbar(calls, [value.value for value in values], [value.stderr for value in values], fmt="o-", label=solver)
    right.plot(calls, [found[solver, number][1] for number in calls], "o-", label=solver)
for ax, word in ((left, "Frechet distance"), (right, "ms a sample")):
    ax.set(xlabel="calls of the network", xscale="log", ylabel=word)
    ax.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    ax.minorticks_off()
left.set_yscale("log")
left.set_title("Quality")
right.set_title("Time")
left.legend()
plt.show()
for calls in (2, 4, 8, 16):
    solver = min(("euler", "midpoint", "heun"), key=lambda name: found[name, calls][0].value)
    value, milliseconds = found[solver, calls]
    print(f"{calls:2} calls: best {solver:8} {value.value:6.1f} ± {value.stderr:.1f}, {milliseconds:.1f} ms a sample")

# %% [markdown]
# ### The same noise, more steps
#
# The noise of a column is the same in all rows, so all rows are the same image, approximated better and better. One
# step of Euler is the first guess from above: the average image.

# %%
rows = [("euler", 1), ("euler", 2), ("euler", 4), ("euler", 16), ("midpoint", 1), ("midpoint", 2), ("midpoint", 8)]
images = []
for solver, steps in rows:
    full.configure(solver=solver, solver_steps=steps)
    images.append(full.sample(20))
figure, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
show_tiles(ax, np.concatenate(images), 20, rows=[f"{solver}, {steps}" for solver, steps in rows])
plt.show()

# %% [markdown]
# ### Beyond: can training straighten the paths?
#
# Lines cross because noise and images are paired at random. Within a batch, the pairing with the shortest lines
# (optimal transport) crosses less. Two trainings that differ in nothing else:

# %%
other = zeuxis.train(
    "digits-flow", steps=250, settings=quiet | {"model.coupling": "optimal-transport"}, progress=False
)  # fmt: skip
for name, trained in (("independent", run), ("optimal transport", other)):
    ratio = curvature(path(trained, 100, 24))
    texts = [f"paths {ratio.mean():.4f} ± {ratio.std() / 10:.4f} times the straight line"]
    for steps in (1, 6):
        trained.configure(solver="midpoint", solver_steps=steps)
        value = distance_value(Material(trained, samples=300, judge=judge))
        texts.append(f"distance after {steps} midpoint steps {value.value:.1f} ± {value.stderr:.1f}")
    print(f"{name:17}: {', '.join(texts)}")

# %% [markdown]
# The first number says whether the coupling straightened the paths. The others say whether it was worth it, for few
# steps and for many. With batches of 32 in ten classes, an image finds only about three partners to choose among.
#
# ## Exercises
#
# 1. Is `x_1` a deterministic function of `x_0`? Sample the same seed twice, and with `heun` and `midpoint` at 16 steps.
# 2. Run the solver backwards, from an image to its noise, and forwards again. How does the error of the round trip fall
#    with the number of steps? A VAE's encoder cannot do this; why?
# 3. `full.configure(guidance=3.0)` follows the condition further than it was learned. Measure `label_agreement` and
#    `recall` at guidance 1, 2 and 4. What is bought, and with what?
#
# <details>
# <summary>Hints</summary>
#
# 1. The noise is the latent, and nothing else is drawn: a flow is a bijection, as far as the solver is exact.
# 2. Follow $-v(x,1-t)$ from the image. A VAE's latent has fewer dimensions than the image, so most of it is lost.
# 3. Use `Material` as above, with `label_agreement` from `zeuxis.evaluation`; samples come nearer to the typical
#    image of their class.
#
# </details>
