r"""The conditioning of a network, and the outputs that its layers store for later layers.

A network may take a time t in 0..1 and a condition: weights of classes, or other numbers. Its layers decide which of
two ways it uses them:

- A modulated layer (``film``) takes an embedding e of width E, the sum of the embeddings of time and condition:
  e = W2 silu(W1 waves(t)) + V c. The width is ``networks.NAME.embedding``.
- If no layer takes the embedding, time and condition are concatenated to the input: as further values of a vector, or
  as further planes of an image.

A time enters as t together with waves, sin(2^k pi t) and cos(2^k pi t), because a network makes little of one number.

Sources: A. Vaswani et al., Attention Is All You Need, NeurIPS 2017, section 3.5 (waves); E. Perez et al., FiLM, AAAI
2018 (modulation by scale and shift).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

__all__ = ["TIME_SIZE", "Conditioning", "Context", "Embedding", "as_vectors", "beside", "waves"]

WAVES = 4
TIME_SIZE = 1 + 2 * WAVES
# Waves of the finer time embedding, for networks whose layers take one.
FINE = 16


@dataclass(frozen=True)
class Conditioning:
    """Which conditioning a network takes.

    Attributes:
        condition: K of the condition, `(B, K)`; 0 for none.
        time: whether it takes a time, `(B, 1)` in 0..1.
    """

    condition: int = 0
    time: bool = False

    @property
    def size(self) -> int:
        """How many numbers are concatenated to the input where no layer takes an embedding."""
        return self.condition + TIME_SIZE * self.time


@dataclass
class Context:
    """What layers receive in addition to their input.

    Attributes:
        embedding: of the conditioning, `(B, E)`; None where no layer takes it.
        kept: outputs of earlier layers, by the name given to `keep`.
    """

    embedding: Tensor | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)


def waves(time: Tensor, count: int = WAVES) -> Tensor:
    """Returns a time, `(B, 1)`, with its sines and cosines, `(B, 1 + 2 count)`."""
    angles = math.pi * time * 2.0 ** torch.arange(count, device=time.device)
    return torch.cat([time, angles.sin(), angles.cos()], dim=1)


def as_vectors(conditioning: Mapping[str, Tensor | None]) -> list[Tensor]:
    """Returns time and condition as vectors to concatenate to an input, `(B, N)` each."""
    time, condition = conditioning.get("time"), conditioning.get("condition")
    return [*([] if time is None else [waves(time)]), *([] if condition is None else [condition])]


def beside(x: Tensor, conditioning: list[Tensor]) -> Tensor:
    """Concatenates the conditioning to an input: as further values of a vector, or one plane each of an image.

    Args:
        x: `(B, N)` or `(B, C, H, W)`.
        conditioning: `(B, K)` each.

    Returns:
        `(B, N + K)` or `(B, C + K, H, W)`.
    """
    if x.dim() == 4:
        conditioning = [part[:, :, None, None].expand(-1, -1, *x.shape[2:]) for part in conditioning]
    return torch.cat([x, *conditioning], dim=1) if conditioning else x


class Embedding(nn.Module):
    """Embeds the conditioning: `(B, 1)` time and `(B, K)` condition to `(B, E)`.

    Args:
        conditioning: whether there is a time, and the size of the condition.
        width: E.
    """

    def __init__(self, conditioning: Conditioning, width: int) -> None:
        super().__init__()
        self.time = (
            nn.Sequential(nn.Linear(1 + 2 * FINE, width), nn.SiLU(), nn.Linear(width, width))
            if conditioning.time
            else None
        )
        self.condition = nn.Linear(conditioning.condition, width) if conditioning.condition else None

    def forward(self, time: Tensor | None, condition: Tensor | None) -> Tensor:
        parts: list[Tensor] = []
        if self.time is not None and time is not None:
            # Frequencies up to 2^7 resolve differences in time of 0.01.
            steps = 2.0 ** torch.linspace(0, 7, FINE, device=time.device)
            angles = math.pi * time * steps
            parts.append(self.time(torch.cat([time, angles.sin(), angles.cos()], dim=1)))
        if self.condition is not None and condition is not None:
            parts.append(self.condition(condition))
        return torch.stack(parts).sum(dim=0)
