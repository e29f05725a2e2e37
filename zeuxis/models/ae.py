r"""Autoencoder.

Encoder and decoder minimise the reconstruction error alone,

    L = E_x[-log p(x | e(x))].

Nothing constrains where images lie in latent space: they fill some region, with gaps. Latents in the gaps, and many
samples of N(0, 1), are inputs on which the decoder was never trained. So an autoencoder compresses but does not
generate. Its good reconstructions and poor samples show what the VAE's KL divergence is for; the figure "Latents
against the prior" shows both.

Source: G. E. Hinton and R. R. Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, Science
313, 2006.
"""

from __future__ import annotations

from zeuxis.models.autoencoder import Autoencoder, AutoencoderOptions
from zeuxis.models.base import Iteration, Terms, phase
from zeuxis.models.registry import register

__all__ = ["AE"]


class AEOptions(AutoencoderOptions):
    """Options of the autoencoder."""


@register("ae")
class AE(Autoencoder):
    """An encoder and a decoder without a prior."""

    Options = AEOptions
    options: AEOptions
    stochastic = False

    @phase("autoencoder", updates="encoder decoder")
    def reconstruct(self, iteration: Iteration) -> Terms:
        latents = self.encode(iteration.images).mean
        return {"reconstruction": self.reconstruction(iteration.images, latents, None)}
