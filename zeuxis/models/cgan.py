r"""Conditional generative adversarial network.

Generator and discriminator are both conditional on the class c of an image: G(z, c) and D(x, c). The generator takes
the class as a one-hot vector concatenated to the noise. The discriminator takes one more plane per class, filled with
ones for the image's class and zeros for the others. Everything else is the GAN of `zeuxis.models.gan`. As c is a
vector of weights, it may also be a mixture of two classes, by which one class is turned into another.

Source: M. Mirza and S. Osindero, Conditional Generative Adversarial Nets, 2014, section 3.2.
"""

from __future__ import annotations

from zeuxis.models.base import ConditionalOptions
from zeuxis.models.gan import GAN, GANOptions
from zeuxis.models.registry import register

__all__ = ["CGAN"]


class CGANOptions(GANOptions, ConditionalOptions):
    """Options of the conditional GAN."""


@register("cgan")
class CGAN(GAN):
    """A GAN conditional on the class."""

    Options = CGANOptions
    options: CGANOptions
    conditional = True
