r"""Conditional variational autoencoder.

Encoder and decoder are both told the class c, so that the latents need not carry it and hold the style alone:

    log p(x|c) >= E_q(z|x,c)[log p(x|z, c)] - KL(q(z|x, c) || N(0, 1)).

The class enters the encoder as one more plane for each class and the decoder as a one-hot vector beside the
latents. Samples of a class are decoded from prior draws; an image encoded with its own class and decoded with
another keeps its style.

Source: K. Sohn, H. Lee and X. Yan, Learning Structured Output Representation using Deep Conditional Generative
Models, NeurIPS 2015, section 4.1.
"""

from __future__ import annotations

from zeuxis.models.base import ConditionalOptions
from zeuxis.models.registry import register
from zeuxis.models.vae import VAE, VAEOptions

__all__ = ["CVAE"]


class CVAEOptions(VAEOptions, ConditionalOptions):
    """Options of the conditional variational autoencoder."""


@register("cvae")
class CVAE(VAE):
    """A VAE that draws the class it is asked for."""

    Options = CVAEOptions
    options: CVAEOptions
    conditional = True
