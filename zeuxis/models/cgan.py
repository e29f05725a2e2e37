r"""Conditional generative adversarial network.

Generator and discriminator are both told the class c of an image: G(z, c) and D(x, c). The class enters the
generator as a one-hot vector beside the noise, and the discriminator as one more plane per class, filled with
ones for the image's own. Everything else is the GAN of `zeuxis.models.gan`. As c is a vector of weights, a
mixture of two classes can be asked for as well, which is how one class is turned into another.

Source: M. Mirza and S. Osindero, Conditional Generative Adversarial Nets, 2014, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeuxis.models.base import Step
from zeuxis.models.gan import GAN, GANOptions
from zeuxis.models.registry import register

__all__ = ["CGAN"]


class CGANOptions(GANOptions):
    """Options of the conditional game."""

    classes: int = Field(10, ge=2, description="assumed where no data is at hand; the data's own count rules")


@register("cgan")
class CGAN(GAN):
    """A GAN that draws the class it is asked for."""

    Options = CGANOptions
    options: CGANOptions
    conditional = True

    def default_classes(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.options.classes)))

    def inputs(self) -> dict[str, tuple[int, ...]]:
        channels, *sides = self.image_shape
        classes = len(self.class_names)
        return {"generator": (self.options.latent + classes,), "discriminator": (channels + classes, *sides)}

    def condition(self, step: Step) -> Tensor:
        return step.once("condition", lambda: F.one_hot(step.labels, len(self.class_names)).float())  # type: ignore[no-any-return]

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None, "a conditional model is asked with a condition"
        return super().generate(torch.cat([latents, condition], dim=1))

    def score(self, images: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None, "a conditional model is asked with a condition"
        planes = condition[:, :, None, None].expand(-1, -1, *images.shape[2:])
        return super().score(torch.cat([images, planes], dim=1), None)
