r"""Solvers of dx/dt = v(x, t) from t = 0 to t = 1, with which flows sample.

With N steps of h = 1 / N, at t = i h:

| sampler | update in a step | error | calls of v per step |
|---|---|---|---|
| euler | x + h v(x, t) | of order h | 1 |
| midpoint | x + h v(x + h/2 v(x, t), t + h/2) | of order h^2 | 2 |
| heun | x + h/2 (v(x, t) + v(x + h v(x, t), t + h)) | of order h^2 | 2 |

Source: E. Hairer, S. P. Norsett and G. Wanner, Solving Ordinary Differential Equations I, 1993, sections II.1 and II.2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zeuxis.registry import Registry

__all__ = ["SAMPLERS", "Sampler", "Velocity", "euler", "heun", "midpoint"]

# Maps positions `(B, *)` and times `(B, 1)` in 0..1 to velocities `(B, *)`.
Velocity = Callable[[Tensor, Tensor], Tensor]
# Maps a velocity, positions at time 0 and a number of steps to positions at time 1.
Sampler = Callable[[Velocity, Tensor, int], Tensor]

SAMPLERS: Registry[Sampler] = Registry("sampler", "zeuxis.models.samplers")


def _times(x: Tensor, time: float) -> Tensor:
    return torch.full((x.shape[0], 1), time, device=x.device)


@SAMPLERS.add("euler")
def euler(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """Euler's method."""
    step = 1 / steps
    for i in range(steps):
        x = x + step * velocity(x, _times(x, i * step))
    return x


@SAMPLERS.add("midpoint")
def midpoint(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """The midpoint method."""
    step = 1 / steps
    for i in range(steps):
        t = _times(x, i * step)
        halfway = x + step / 2 * velocity(x, t)
        x = x + step * velocity(halfway, t + step / 2)
    return x


@SAMPLERS.add("heun")
def heun(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """Heun's method."""
    step = 1 / steps
    for i in range(steps):
        t = _times(x, i * step)
        first = velocity(x, t)
        x = x + step / 2 * (first + velocity(x + step * first, t + step))
    return x
