r"""Autoencoder.

Encoder and decoder minimise the reconstruction error alone,

    L = E_x[-log p(x | e(x))].

Nothing says where in latent space images are to lie: they fill some region, with gaps, and a decoder fed with
latents that no image has, such as draws from N(0, 1), has never learned what to make of them. So an autoencoder
compresses and does not generate; that its samples are poor while its reconstructions are good shows what the
VAE's KL divergence is for. Its figure "Latents against the prior" shows both.

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
    """Encoder and decoder without a prior."""

    Options = AEOptions
    options: AEOptions
    stochastic = False

    @phase("autoencoder", updates="encoder decoder")
    def reconstruct(self, iteration: Iteration) -> Terms:
        latents = self.encode(iteration.images).mean
        return {"reconstruction": self.reconstruction(iteration.images, latents, None)}
