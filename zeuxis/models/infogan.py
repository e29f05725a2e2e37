r"""InfoGAN.

The latent vector holds noise z and codes c: categorical codes, uniform over their values, and continuous codes,
uniform in -1..1. A network Q, which shares the discriminator's trunk, predicts the codes of an image, Q(c|x). As

    I(c; G(z, c)) >= H(c) + E[log Q(c | G(z, c))],

generator and Q are trained to raise the right side, a lower bound on the mutual information of image and codes:

    L_Q = -E[sum_k log Q(c_k | G(z, c))],

with a softmax for each categorical code and a normal distribution of learned mean and variance for each
continuous one. H(c) is a constant of the codes; the bound itself is logged, in nats.

There are three phases, each with its own optimiser: the discriminator's, the generator's, and that of the information,
which updates the generator, Q, and the trunk that Q shares.

Source: X. Chen, Y. Duan, R. Houthooft, J. Schulman, I. Sutskever and P. Abbeel, InfoGAN, NeurIPS 2016,
sections 4 to 6.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from zeuxis.models.base import Code, Inputs, Iteration, Terms, Weighted, phase
from zeuxis.models.gan import GAN, GANOptions
from zeuxis.models.registry import register
from zeuxis.recipe import NetworkOptions

__all__ = ["InfoGAN"]


class InfoGANOptions(GANOptions):
    """Options of InfoGAN."""

    latent: int = Field(62, ge=1, le=100_000, description="dimensions of the noise, without the codes")
    categorical: list[int] = Field([10], max_length=100, description="number of values of each categorical code")
    continuous: int = Field(2, ge=0, le=1000, description="number of continuous codes")
    categorical_weight: float = Field(1.0, gt=0, le=1e6, description="of the categorical codes in the information loss")
    continuous_weight: float = Field(0.1, gt=0, le=1e6, description="of the continuous codes, as published")

    @model_validator(mode="after")
    def _has_codes(self) -> InfoGANOptions:
        if not self.categorical and not self.continuous:
            raise ValueError("InfoGAN needs a code: give categorical, such as [10], or continuous, such as 2")
        for size in self.categorical:
            if not 2 <= size <= 10_000:
                raise ValueError(f"a categorical code takes 2 to 10,000 values, not {size}")
        return self


@register("infogan")
class InfoGAN(GAN):
    """A GAN that learns the factors of its data without labels."""

    Options = InfoGANOptions
    options: InfoGANOptions

    def codes(self) -> tuple[Code, ...]:
        codes, start = [], self.options.latent
        for i, size in enumerate(self.options.categorical, 1):
            codes.append(Code(f"categorical {i}", start, size))
            start += size
        codes += [Code(f"continuous {i + 1}", start + i, 1) for i in range(self.options.continuous)]
        return tuple(codes)

    @property
    def latent_size(self) -> int:
        """Length of the whole latent vector, `(Z,)`: noise, categorical codes, continuous codes."""
        return self.options.latent + sum(code.size for code in self.codes())

    def inputs(self) -> Inputs:
        return {
            **super().inputs(),
            "generator": (self.latent_size,),
            "q": lambda: self.net("discriminator").feature_shape or self.net("discriminator").output_shape,
        }

    def layers(self, name: str) -> NetworkOptions:
        options = super().layers(name)
        if name != "q":
            return options
        # One head for each categorical code, and one for all continuous ones.
        heads = {f"categorical_{i}": [f"dense {n}", "softmax"] for i, n in enumerate(self.options.categorical, 1)}
        if self.options.continuous:
            heads["continuous"] = [f"dense {2 * self.options.continuous}"]
        return options.model_copy(update={"heads": heads})

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        parts = [torch.randn(count, self.options.latent, generator=generator, device=device)]
        for size in self.options.categorical:
            values = torch.randint(size, (count,), generator=generator, device=device)
            parts.append(F.one_hot(values, size).float())
        parts.append(2 * torch.rand(count, self.options.continuous, generator=generator, device=device) - 1)
        return torch.cat(parts, dim=1)

    def guessed(self, images: Tensor) -> dict[str, Tensor]:
        """Returns Q's predictions of the codes of images, before any softmax, by head."""
        heads = self.net("q")(self.net("discriminator")(images).features).heads
        return {name: head.logits for name, head in heads.items()}

    def read_codes(self, images: Tensor) -> Tensor:
        guessed = self.guessed(images)
        values = [
            guessed[f"categorical_{i}"].argmax(1, keepdim=True) for i in range(1, len(self.options.categorical) + 1)
        ]
        numbers = [guessed["continuous"][:, : self.options.continuous]] if self.options.continuous else []
        return torch.cat([*(value.float() for value in values), *numbers], dim=1)

    @phase("information", updates="generator q discriminator")
    def information_terms(self, iteration: Iteration) -> Terms:
        latents = self.sample_latents(iteration.batch_size, iteration.generator)
        guessed = self.guessed(self.seen(iteration, self.generate(latents)))
        terms: dict[str, Tensor | Weighted] = {}
        categorical = [code for code in self.codes() if code.categorical]
        if categorical:
            targets = [latents[:, code.start : code.start + code.size].argmax(dim=1) for code in categorical]
            losses = [F.cross_entropy(guessed[f"categorical_{i}"], target) for i, target in enumerate(targets, 1)]
            loss = torch.stack(losses).sum()
            terms["categorical"] = Weighted(loss, self.options.categorical_weight)
            bound = sum(math.log(code.size) for code in categorical) - loss
            iteration.log("mutual_information", bound, "information")
        if self.options.continuous:
            numbers = latents[:, -self.options.continuous :]
            mean, logvar = guessed["continuous"].chunk(2, dim=1)
            # A soft lower limit of -4, a deviation of 0.14: for an exact prediction, the density would be unbounded.
            logvar = -4 + F.softplus(logvar + 4)
            loss = 0.5 * (logvar + (numbers - mean).square() * torch.exp(-logvar)).sum(1).mean()
            terms["continuous"] = Weighted(loss, self.options.continuous_weight)
        return terms
