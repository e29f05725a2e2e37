r"""Flow matching: noise becomes an image along paths that are straight while it learns.

Between a sample of noise x0 ~ N(0, 1) and an image x1 lies the path x_t = (1 - t) x0 + t x1, on which the velocity is
x1 - x0. A network learns the mean of these velocities at every place and time,

    L = E |v(x_t, t, c) - (x1 - x0)|^2,

and the flow of dx/dt = v(x, t, c) from t = 0 to 1 carries N(0, 1) to the images (Lipman et al., theorem 2). The noise
is the latent vector of an image: the same noise always gives the same image.

- ``times``: t uniform, or logit-normal, t = sigmoid(n) with n ~ N(0, 1), which looks more often at the middle of the
  path, where the velocity is hardest to tell.
- ``coupling``: which noise goes with which image. At random, paths of a batch cross, and the flow has to bend. Matched
  by optimal transport within the batch (the pairing of least squared distance, among images of one class), they cross
  less, the flow is straighter, and fewer steps follow it.
- ``guidance``: with w > 1 the solver follows v(x, t, none) + w (v(x, t, c) - v(x, t, none)), which draws samples
  towards the class and away from the average. The network learns v(x, t, none) as the condition is left out of a
  share of the images (``drop_condition``).

The density of an image follows from the change of variables along its path, backwards to the noise it comes from,

    log p(x1) = log N(x0; 0, 1) - int_0^1 div v(x_t, t) dt,

where e^T (dv/dx) e, with e of random signs, estimates the divergence without bias (Hutchinson).

Sources: Y. Lipman et al., Flow Matching for Generative Modeling, ICLR 2023; X. Liu, C. Gong and Q. Liu, Flow Straight
and Fast, ICLR 2023; A. Tong et al., Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
Transport, TMLR 2024; P. Esser et al., Scaling Rectified Flow Transformers, ICML 2024, section 3.1 (logit-normal times);
J. Ho and T. Salimans, Classifier-Free Diffusion Guidance, 2022; W. Grathwohl et al., FFJORD, ICLR 2019 (the estimate).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
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
from zeuxis.nets import Conditioning

__all__ = ["ConditionalFlow", "Flow", "FlowOptions"]


class FlowOptions(ModelOptions):
    """Options of flow matching."""

    times: Literal["uniform", "logit-normal"] = Field("logit-normal", description="where on the paths it learns")
    coupling: Literal["independent", "optimal-transport"] = Field(
        "independent", description="which noise goes with which image of a batch"
    )
    solver: str = Field("midpoint", description="see `zeuxis.models.samplers`")
    solver_steps: int = Field(6, ge=1, le=10_000, description="from noise to image when sampling")

    @field_validator("solver")
    @classmethod
    def _is_a_solver(cls, name: str) -> str:
        if name not in SAMPLERS:
            raise ValueError(str(one_of("solver", name, SAMPLERS)))
        return name


@register("flow")
class Flow(Model):
    """Flow matching from noise to images."""

    Options = FlowOptions
    options: FlowOptions
    generating_networks: ClassVar[tuple[str, ...]] = ("velocity",)
    sampling_options: ClassVar[tuple[str, ...]] = ("solver", "solver_steps")

    def inputs(self) -> Inputs:
        return {"velocity": Input(self.image_shape, Conditioning(condition=self.told_size, time=True))}

    def check(self) -> None:
        if self.recipe.data.numbers and self.conditional and self.options.coupling != "independent":
            raise UserError(
                f"Recipe {self.recipe.name}: model.coupling = '{self.options.coupling}' pairs noise and images of one "
                "class, and data.numbers has no classes; set it to 'independent'."
            )
        self.net("velocity").require_output(self.image_shape, "the velocity of the recipe's image")

    @property
    def told_size(self) -> int:
        """Numbers that the network takes of the condition: its vector, and whether there is one."""
        return self.condition_size + 1 if self.conditional else 0

    def velocity(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        """Velocity `(B, C, H, W)` at places `(B, C, H, W)` and times `(B, 1)` in 0..1."""
        return self.net("velocity")(x, time=time, condition=condition).value

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, math.prod(self.image_shape), generator=generator, device=generator.device)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        noise = latents.view(-1, *self.image_shape).contiguous(memory_format=torch.channels_last)
        images = SAMPLERS[self.options.solver](self.guided(condition), noise, self.options.solver_steps)
        return images.clamp(-1 if self.recipe.data.range == "-1..1" else 0, 1)

    def guided(self, condition: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        """The velocity that samples follow, as a function of place and time."""
        return self.velocity

    def pairs(self, iteration: Iteration) -> tuple[Tensor, Tensor]:
        """Noise and images of a batch, `(B, C, H, W)` each, in the order in which they are coupled."""
        images = iteration.images
        noise = iteration.randn(*images.shape).contiguous(memory_format=torch.channels_last)
        if self.options.coupling == "optimal-transport":
            noise = noise[transport(noise, images, iteration.labels if self.conditional else None)]
        return noise, images

    def times(self, iteration: Iteration, count: int) -> Tensor:
        """Times of a batch, `(count, 1)` in 0..1."""
        if self.options.times == "logit-normal":
            return torch.sigmoid(iteration.randn(count, 1))
        return torch.rand(count, 1, generator=iteration.generator, device=iteration.device)

    def dropped(self, iteration: Iteration) -> Tensor | None:
        """The condition as the network takes it while it learns."""
        return None

    def loss(self, iteration: Iteration) -> Tensor:
        """Squared error of the velocity, `(B,)`, a mean over pixels."""
        noise, images = self.pairs(iteration)
        time = self.times(iteration, len(images))
        x = torch.lerp(noise, images, time[:, :, None, None])
        velocity = self.velocity(x, time, self.dropped(iteration))
        return (velocity - (images - noise)).square().mean(dim=(1, 2, 3))

    @phase("flow", updates="velocity")
    def flow_terms(self, iteration: Iteration) -> Terms:
        return {"flow": self.loss(iteration).mean()}

    def test(self, iteration: Iteration) -> dict[str, Tensor]:
        return {"flow": self.loss(iteration).mean()}

    @torch.no_grad()
    def log_density(self, images: Tensor, generator: torch.Generator, condition: Tensor | None = None) -> Tensor:
        """An unbiased estimate of log p(x) `(B,)` of `(B, C, H, W)` images, in nats, by Hutchinson's estimator.

        Args:
            images: in the recipe's range.
            generator: samples the signs, on the CPU.
            condition: `(B, K)`, of a conditional model.
        """
        follow, x, steps = self.guided(condition), images, 4 * self.options.solver_steps
        divergence, step = torch.zeros(len(x), device=x.device), 1 / steps
        signs = (torch.randint(2, x.shape, generator=generator) * 2.0 - 1).to(x.device)
        for i in reversed(range(steps)):
            t = torch.full((len(x), 1), (i + 1) * step, device=x.device)
            halfway = (x - step / 2 * follow(x, t)).requires_grad_()
            with torch.enable_grad():
                velocity = follow(halfway, t - step / 2)
                (slope,) = torch.autograd.grad(velocity, halfway, signs)
            x, divergence = x - step * velocity.detach(), divergence + step * (slope * signs).sum(dim=(1, 2, 3))
        return log_normal(x.flatten(1)) - divergence


class ConditionalFlowOptions(FlowOptions, ConditionalOptions):
    """Options of conditional flow matching."""

    guidance: float = Field(1.0, ge=0, le=100, description="how far samples are drawn towards their class; 1: not")
    drop_condition: float = Field(0.1, ge=0, le=1, description="share of the images whose condition is left out")


@register("conditional-flow")
class ConditionalFlow(Flow):
    """Flow matching given the class, with guidance."""

    Options = ConditionalFlowOptions
    options: ConditionalFlowOptions
    conditional: ClassVar[bool] = True
    sampling_options: ClassVar[tuple[str, ...]] = (*Flow.sampling_options, "guidance")

    def dropped(self, iteration: Iteration) -> Tensor | None:
        condition = self.condition(iteration)
        assert condition is not None
        uniform = torch.rand(len(condition), 1, generator=iteration.generator, device=condition.device)
        return self._marked(condition) * (uniform >= self.options.drop_condition)

    def guided(self, condition: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        assert condition is not None, "a conditional model is asked for something"
        marked, weight = self._marked(condition), self.options.guidance

        def follow(x: Tensor, time: Tensor) -> Tensor:
            asked = self.velocity(x, time, marked)
            if weight == 1:
                return asked
            free = self.velocity(x, time, torch.zeros_like(marked))
            return torch.lerp(free, asked, weight)

        return follow

    @staticmethod
    def _marked(condition: Tensor) -> Tensor:
        """The condition with a mark that there is one, `(B, K + 1)`: without one, all are 0."""
        return torch.cat([condition, torch.ones_like(condition[:, :1])], dim=1)


def transport(noise: Tensor, images: Tensor, labels: Tensor | None) -> Tensor:
    """For each image, the index of the noise it is paired with: the least sum of squared distances, class by class.

    Args:
        noise: `(B, C, H, W)`.
        images: `(B, C, H, W)`.
        labels: class indices `(B,)`; noise is then shared out among the classes by its order in the batch.
    """
    from scipy.optimize import linear_sum_assignment

    costs = torch.cdist(images.flatten(1).float(), noise.flatten(1).float()).square().cpu().numpy()
    indices = np.arange(len(noise))
    classes = np.zeros(len(noise)) if labels is None else labels.cpu().numpy()
    for group in [np.flatnonzero(classes == label) for label in np.unique(classes)]:
        indices[group] = group[linear_sum_assignment(costs[np.ix_(group, group)])[1]]
    return torch.from_numpy(indices).to(noise.device)
