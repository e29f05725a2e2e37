r"""Wasserstein GAN with gradient penalty.

The discriminator is a critic D without a sigmoid. The 1-Lipschitz function that separates real from fake best gives
the Wasserstein-1 distance between their distributions,

    W(p, q) = max_{|D|_L <= 1} E_x[D(x)] - E_z[D(G(z))],

so the critic's estimate measures how far apart they are, and falls as the generator learns. A gradient penalty at
points y on straight lines between real and fake images keeps the norm of the critic's gradient near 1:

    L_D = E_z[D(G(z))] - E_x[D(x)] + lambda E_y[(|grad D(y)| - 1)^2],     L_G = -E_z[D(G(z))].

Several critic updates per iteration keep the estimate good. The critic must treat each image independently of the
others in the batch: no batch norm.

Source: I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin and A. Courville, Improved Training of Wasserstein GANs,
NeurIPS 2017, section 4 and algorithm 1.
"""

from __future__ import annotations

from pydantic import Field
from torch import nn

from zeuxis.errors import UserError
from zeuxis.models.gan import GAN, GANOptions
from zeuxis.models.registry import register
from zeuxis.recipe import Choice, Named

__all__ = ["WGANGP"]


class WGANGPOptions(GANOptions):
    """Options of the Wasserstein GAN; the defaults are as published."""

    loss: Named = Field(Choice(name="wasserstein"), description=GANOptions.model_fields["loss"].description)
    gradient_penalty: float = Field(10.0, ge=0, le=1e6, description="lambda of the penalty, between real and fake")
    discriminator_updates: int = Field(5, ge=1, le=1000, description="critic updates per iteration")


@register("wgan-gp")
class WGANGP(GAN):
    """A GAN whose discriminator estimates a distance."""

    Options = WGANGPOptions
    options: WGANGPOptions

    def check(self) -> None:
        super().check()
        critic = self.net("discriminator")
        if any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in critic.modules()):
            raise UserError(
                f"In {critic.where}, 'bn' mixes the images of a batch, but the gradient penalty is computed for each "
                "image separately; use 'ln' or nothing."
            )
