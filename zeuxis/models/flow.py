r"""Flow matching: a velocity field, learned on straight paths, carries noise to images.

The path from a sample of noise x0 ~ N(0, 1) to an image x1 is x_t = (1 - t) x0 + t x1; its velocity is x1 - x0. A
network learns the mean of these velocities at every position and time,

    L = E |v(x_t, t, c) - (x1 - x0)|^2,

and the flow of dx/dt = v(x, t, c) from t = 0 to 1 maps N(0, 1) to the images (Lipman et al., theorem 2). The noise
is the latent vector of an image: the same noise always gives the same image.

- ``times``: t is uniform, or logit-normal, t = sigmoid(n) with n ~ N(0, 1). The latter samples more often from the
  middle of the path, where the velocity is hardest to predict.
- ``coupling``: which noise is paired with which image. With random pairs, the paths of a batch cross, so the flow is
  curved. With optimal transport within the batch (the pairs of least squared distance, among images of one class),
  they cross less, the flow is straighter, and the solver needs fewer steps.
- ``guidance``: for w > 1 the solver follows v(x, t, none) + w (v(x, t, c) - v(x, t, none)), which moves samples
  towards the class and away from the average. The network learns v(x, t, none) from the share of the images
  (``drop_condition``) for which the condition is left out.

The density of an image follows from the change of variables along its path, backwards to its noise x0,

    log p(x1) = log N(x0; 0, 1) - int_0^1 div v(x_t, t) dt,

where e^T (dv/dx) e, for a vector e of random signs, is an unbiased estimate of the divergence (Hutchinson).

Sources: Y. Lipman et al., Flow Matching for Generative Modeling, ICLR 2023; X. Liu, C. Gong and Q. Liu, Flow Straight
and Fast, ICLR 2023; A. Tong et al., Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
Transport, TMLR 2024; P. Esser et al., Scaling Rectified Flow Transformers, ICML 2024, section 3.1 (logit-normal times);
J. Ho and T. Salimans, Classifier-Free Diffusion Guidance, 2022; W. Grathwohl et al., FFJORD, ICLR 2019 (the estimate).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import scipy
import torch
from pydantic import Field, field_validator
from torch import Tensor

from zeuxis.errors import UserError, one_of
from zeuxis.models.base import (
    ConditionalOptions,
    Input,
    Inputs,
    Iteration,
    Model,
    ModelOptions,
    Terms,
    log_normal,
    phase,
)
from zeuxis.models.registry import register
from zeuxis.models.samplers import SAMPLERS
from zeuxis.nets import Conditioning, Shape

__all__ = ["ConditionalFlow", "Flow", "FlowMatching", "FlowOptions", "GuidanceOptions", "Guided"]


# Half as many come within 0.005 bits per dimension of many times as many (`digits-flow`).
DENSITY_STEPS = 48


class FlowOptions(ModelOptions):
    """Options of flow matching."""

    times: Literal["uniform", "logit-normal"] = Field("logit-normal", description="distribution of t in training")
    coupling: Literal["independent", "optimal-transport"] = Field(
        "independent", description="which noise is paired with which image of a batch"
    )
    solver: str = Field("midpoint", description="see `zeuxis.models.samplers`")
    solver_steps: int = Field(6, ge=1, le=10_000, description="from noise to image when sampling")

    @field_validator("solver")
    @classmethod
    def _is_a_solver(cls, name: str) -> str:
        if name not in SAMPLERS:
            raise ValueError(str(one_of("solver", name, SAMPLERS)))
        return name


class FlowMatching(Model):
    """Base of flow matching: from normal noise to what a subclass names, images or latents."""

    options: FlowOptions
    generating_networks: ClassVar[tuple[str, ...]] = ("velocity",)
    sampling_options: tuple[str, ...] = ("solver", "solver_steps")

    @property
    def path_shape(self) -> Shape:
        """Shape of a point on a path, without the batch dimension."""
        return self.image_shape

    def ends(self, iteration: Iteration) -> Tensor:
        """Returns the ends of the paths, `(B, *path_shape)`: what the flow is to make."""
        return iteration.images

    def inputs(self) -> Inputs:
        return {"velocity": Input(self.path_shape, Conditioning(condition=self.conditioning_size, time=True))}

    def check(self) -> None:
        if self.recipe.data.numbers and self.conditional and self.options.coupling != "independent":
            raise UserError(
                f"Recipe {self.recipe.name}: model.coupling = '{self.options.coupling}' pairs noise and images of one "
                "class, but data.numbers has no classes; set it to 'independent'."
            )
        self.net("velocity").require_output(self.path_shape, "the velocity of a point on a path")

    @property
    def conditioning_size(self) -> int:
        """Size of the network's condition: the condition vector, and a mark that there is one."""
        return self.condition_size + 1 if self.conditional else 0

    def velocity(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        """Returns the velocity `(B, *)` at positions `(B, *)` and times `(B, 1)` in 0..1."""
        return self.net("velocity")(x, time=time, condition=condition).value

    def learned(self, condition: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the velocity as it was learned, as a function of position and time."""
        return self.velocity

    def guided(self, condition: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the velocity that samples follow, as a function of position and time."""
        return self.learned(condition)

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, math.prod(self.path_shape), generator=generator, device=generator.device)

    def carried(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        """Returns the ends `(B, *path_shape)` of the paths that begin at latents `(B, Z)`."""
        noise = _laid_out(latents.view(-1, *self.path_shape))
        return SAMPLERS[self.options.solver](self.guided(condition), noise, self.options.solver_steps)

    def pairs(self, iteration: Iteration) -> tuple[Tensor, Tensor]:
        """Returns the beginnings and the ends of a batch's paths, `(B, *path_shape)` each."""
        ends = self.ends(iteration)
        noise = _laid_out(iteration.randn(*ends.shape))
        if self.options.coupling == "optimal-transport":
            noise = noise[transport(noise, ends, iteration.labels if self.conditional else None)]
        return noise, ends

    def times(self, iteration: Iteration, count: int) -> Tensor:
        """Samples the times of a batch, `(count, 1)` in 0..1."""
        if self.options.times == "logit-normal":
            return torch.sigmoid(iteration.randn(count, 1))
        return torch.rand(count, 1, generator=iteration.generator, device=iteration.device)

    def dropped(self, iteration: Iteration) -> Tensor | None:
        """Returns the condition for training, left out for a share of the images; None if there is no condition."""
        return None

    def loss(self, iteration: Iteration) -> Tensor:
        """Returns the squared error of the velocity, `(B,)`, averaged over a point's numbers."""
        noise, ends = self.pairs(iteration)
        time = self.times(iteration, len(ends))
        x = torch.lerp(noise, ends, time.view(-1, *[1] * (ends.dim() - 1)))
        velocity = self.velocity(x, time, self.dropped(iteration))
        return (velocity - (ends - noise)).square().flatten(1).mean(dim=1)

    @phase("flow", updates="velocity")
    def flow_terms(self, iteration: Iteration) -> Terms:
        return {"flow": self.loss(iteration).mean()}

    def test(self, iteration: Iteration) -> dict[str, Tensor]:
        return {"flow": self.loss(iteration).mean()}


@register("flow")
class Flow(FlowMatching):
    """Flow matching from noise to images."""

    Options = FlowOptions

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.carried(latents, condition).clamp(-1 if self.recipe.data.range == "-1..1" else 0, 1)

    @torch.no_grad()
    def log_density(self, images: Tensor, generator: torch.Generator, condition: Tensor | None = None) -> Tensor:
        """Returns an estimate of log p(x), `(B,)` in nats, by Hutchinson's estimator along midpoint steps, unguided.

        The steps are shorter the nearer they are to the image, where flat regions make the flow change fastest.

        Args:
            images: `(B, C, H, W)` in the recipe's range.
            generator: samples the signs, on the CPU.
            condition: `(B, K)`, of a conditional model.
        """
        follow, x = self.learned(condition), images
        divergence = torch.zeros(len(x), device=x.device)
        places = (1 - torch.linspace(1, 0, DENSITY_STEPS + 1) ** 2).tolist()
        signs = (torch.randint(2, x.shape, generator=generator) * 2.0 - 1).to(x.device)
        for before, after in reversed(list(pairwise(places))):
            step = after - before
            t = torch.full((len(x), 1), after, device=x.device)
            halfway = (x - step / 2 * follow(x, t)).requires_grad_()
            with torch.enable_grad():
                velocity = follow(halfway, t - step / 2)
                (slope,) = torch.autograd.grad(velocity, halfway, signs)
            x, divergence = x - step * velocity.detach(), divergence + step * (slope * signs).sum(dim=(1, 2, 3))
        return log_normal(x.flatten(1)) - divergence


class GuidanceOptions(ConditionalOptions):
    """Options of flows conditional on a class."""

    guidance: float = Field(1.0, ge=0, le=100, description="how far samples are moved towards their class; 1: not")
    drop_condition: float = Field(0.1, ge=0, le=1, description="share of the images whose condition is left out")


class Guided(FlowMatching):
    """A flow conditional on the class, with guidance."""

    options: Any
    conditional: ClassVar[bool] = True
    sampling_options = (*FlowMatching.sampling_options, "guidance")

    def dropped(self, iteration: Iteration) -> Tensor | None:
        marked = self._marked(self.condition(iteration))
        uniform = torch.rand(len(marked), 1, generator=iteration.generator, device=marked.device)
        shown: Tensor = uniform >= self.options.drop_condition
        return marked * shown

    def learned(self, condition: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        marked = self._marked(condition)
        return lambda x, time: self.velocity(x, time, marked)

    def guided(self, condition: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        weight = self.options.guidance
        if weight == 1:
            return self.learned(condition)
        marked = self._marked(condition)
        none = torch.zeros_like(marked)  # of its shape, which an exported graph follows
        return lambda x, time: torch.lerp(self.velocity(x, time, none), self.velocity(x, time, marked), weight)

    @staticmethod
    def _marked(condition: Tensor | None) -> Tensor:
        """Appends a 1 to the condition, `(B, K + 1)`, to mark that there is one; no condition is all zeros."""
        assert condition is not None, "a conditional model needs a condition"
        return torch.cat([condition, torch.ones_like(condition[:, :1])], dim=1)


class ConditionalFlowOptions(FlowOptions, GuidanceOptions):
    """Options of conditional flow matching."""


@register("conditional-flow")
class ConditionalFlow(Guided, Flow):
    """Flow matching conditional on the class, with guidance."""

    Options = ConditionalFlowOptions


def _laid_out(points: Tensor) -> Tensor:
    """Returns points in the memory layout that convolutions prefer, if they are images."""
    return points.contiguous(memory_format=torch.channels_last) if points.dim() == 4 else points


def transport(noise: Tensor, images: Tensor, labels: Tensor | None) -> Tensor:
    """Pairs noise and images (or latents) so that the sum of squared distances is least.

    Args:
        noise: `(B, *)`.
        images: `(B, *)`.
        labels: class indices `(B,)`, to pair within each class: an image then gets noise only from the places in the
            batch that images of its class hold; None to pair within the whole batch.

    Returns:
        For each image, the index of its noise, `(B,)`.
    """
    costs = torch.cdist(images.flatten(1).float(), noise.flatten(1).float()).square().cpu().numpy()
    indices = np.arange(len(noise))
    classes = np.zeros(len(noise)) if labels is None else labels.cpu().numpy()
    for group in [np.flatnonzero(classes == label) for label in np.unique(classes)]:
        indices[group] = group[scipy.optimize.linear_sum_assignment(costs[np.ix_(group, group)])[1]]
    return torch.from_numpy(indices).to(noise.device)
