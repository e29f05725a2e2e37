r"""Conditional generative adversarial network.

Generator and discriminator are both told the class c of an image: G(z, c) and D(x, c). The class enters the
generator as a one-hot vector beside the noise, and the discriminator as one more plane per class, filled with
ones for the image's own. Everything else is the GAN of `zeuxis.models.gan`. As c is a vector of weights, a
mixture of two classes can be asked for as well, which is how one class is turned into another.

Source: M. Mirza and S. Osindero, Conditional Generative Adversarial Nets, 2014, section 3.2.
"""

from __future__ import annotations

from zeuxis.models.base import ConditionalOptions
from zeuxis.models.gan import GAN, GANOptions
from zeuxis.models.registry import register

__all__ = ["CGAN"]


class CGANOptions(GANOptions, ConditionalOptions):
    """Options of the conditional game."""


@register("cgan")
class CGAN(GAN):
    """A GAN that draws the class it is asked for."""

    Options = CGANOptions
    options: CGANOptions
    conditional = True
