r"""Conditional variational autoencoder.

Encoder and decoder are both conditional on the class c, so the latents need not encode it and hold only the style:

    log p(x|c) >= E_q(z|x,c)[log p(x|z, c)] - KL(q(z|x, c) || N(0, 1)).

The encoder takes the class as one more plane per class, the decoder as a one-hot vector concatenated to the latents.
Samples of a class are decoded from samples of the prior. An image that is encoded with its own class and decoded with
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
    """A VAE conditional on the class."""

    Options = CVAEOptions
    options: CVAEOptions
    conditional = True
