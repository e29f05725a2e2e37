r"""Adversarial losses, by name.

The discriminator's scores are r = D(x) for real samples and f = D(G(z)) for fakes; softplus(t) = log(1 + exp(t)), and s
is the label smoothing.

| loss | the discriminator minimises | the generator minimises |
|---|---|---|
| non-saturating | (1 - s) softplus(-r) + s softplus(r), + softplus(f) | softplus(-f) |
| least-squares | 1/2 (r - (1 - s))^2 + 1/2 f^2 | 1/2 (f - 1)^2 |
| hinge | max(0, m - r) + max(0, m + f), of margin m = 1 | -f |
| wasserstein | f - r | -f |
| relativistic | softplus(-(r - f)), real and fake in pairs | softplus(-(f - r)) |

Sources: I. Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014, section 3 (non-saturating); X. Mao et
al., Least Squares GANs, ICCV 2017, equation 9; J. H. Lim and J. C. Ye, Geometric GAN, 2017 (hinge); M. Arjovsky
et al., Wasserstein GAN, ICML 2017; A. Jolicoeur-Martineau, The relativistic discriminator, ICLR 2019, and Y.
Huang et al., The GAN is dead; long live the GAN!, NeurIPS 2024 (relativistic pairing with R1 and R2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeuxis.recipe import Section
from zeuxis.registry import Registry

__all__ = ["LOSSES", "AdversarialLoss"]


class AdversarialLoss(ABC):
    """The loss terms of discriminator and generator, and the meaning of the scores.

    Args:
        options: values for fields of `Options`, from the recipe.

    Attributes:
        Options: the options that a recipe may set.
        threshold: a score above it means "real"; None if a single score has no such meaning.
        paired: whether only the difference between the scores of a real and a fake sample has a meaning.
        labels: whether real samples have a label, which can be smoothed.
    """

    Options: ClassVar[type[Section]] = Section
    threshold: ClassVar[float | None] = 0.0
    paired: ClassVar[bool] = False
    labels: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:
        self.options = self.Options.model_validate(options)

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor, smoothing: float = 0.0) -> dict[str, Tensor]:
        """Returns the terms that the discriminator minimises, by name.

        Args:
            real: scores of real samples, `(B, K)`; K is 1 for most discriminators.
            fake: scores of fakes, `(B, K)`.
            smoothing: real samples are labelled 1 minus this.
        """

    @abstractmethod
    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Returns what the generator minimises.

        Args:
            fake: scores of its samples, `(B, K)`.
            real: scores of real samples, `(B, K)`, for a loss of pairs; else None.
        """


LOSSES: Registry[type[AdversarialLoss]] = Registry("loss", "zeuxis.models.losses")


@LOSSES.add("non-saturating")
class NonSaturating(AdversarialLoss):
    """Cross-entropy; the generator maximises the log-probability that its samples are real."""

    labels = True

    def discriminator(self, real: Tensor, fake: Tensor, smoothing: float = 0.0) -> dict[str, Tensor]:
        labels = torch.full_like(real, 1 - smoothing)
        return {"real": F.binary_cross_entropy_with_logits(real, labels), "fake": F.softplus(fake).mean()}

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return F.softplus(-fake).mean()


@LOSSES.add("least-squares")
class LeastSquares(AdversarialLoss):
    """Squared distance of the scores to the labels, 1 and 0."""

    threshold = 0.5
    labels = True

    def discriminator(self, real: Tensor, fake: Tensor, smoothing: float = 0.0) -> dict[str, Tensor]:
        return {"real": (real - (1 - smoothing)).square().mean() / 2, "fake": fake.square().mean() / 2}

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return (fake - 1).square().mean() / 2


class HingeOptions(Section):
    """Options of the hinge loss."""

    margin: float = Field(1.0, gt=0, le=1e6, description="scores beyond it add nothing to the loss")


@LOSSES.add("hinge")
class Hinge(AdversarialLoss):
    """Hinge loss: scores beyond a margin add nothing to the discriminator's loss."""

    Options = HingeOptions
    options: HingeOptions

    def discriminator(self, real: Tensor, fake: Tensor, smoothing: float = 0.0) -> dict[str, Tensor]:
        margin = self.options.margin
        return {"real": F.relu(margin - real).mean(), "fake": F.relu(margin + fake).mean()}

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -fake.mean()


@LOSSES.add("wasserstein")
class Wasserstein(AdversarialLoss):
    """Difference of the mean scores, an estimate of the Wasserstein-1 distance."""

    threshold = None

    def discriminator(self, real: Tensor, fake: Tensor, smoothing: float = 0.0) -> dict[str, Tensor]:
        return {"real": -real.mean(), "fake": fake.mean()}

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -fake.mean()


@LOSSES.add("relativistic")
class Relativistic(AdversarialLoss):
    """Cross-entropy of "this real sample is more real than this fake"."""

    threshold = None
    paired = True

    def discriminator(self, real: Tensor, fake: Tensor, smoothing: float = 0.0) -> dict[str, Tensor]:
        return {"pairs": F.softplus(fake - real).mean()}

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        assert real is not None, "a pair has a real sample"
        return F.softplus(real - fake).mean()
