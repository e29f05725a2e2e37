r"""Generative adversarial network.

A generator G turns noise z ~ N(0, 1) into images; a discriminator D gives the logit of "this image is real".
With targets t (1 for real, 0 for fake) and binary cross-entropy on logits,

    L_D = E_x[BCE(D(x), t_real)] + E_z[BCE(D(G(z)), 0)],
    L_G = E_z[BCE(D(G(z)), 1)]                                 (non-saturating).

Against a discriminator that wins:

- ``merged_batches``: real and fake images pass through D as one batch, so that batch statistics cannot give
  either away; L_D is then the mean over the merged batch.
- ``label_smoothing`` s: the target of real images is 1 - s, of fakes still 0 (one-sided), which punishes an
  overconfident D.
- ``discriminator_updates`` : ``generator_updates``, an iteration.

Sources: I. Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014, section 3; T. Salimans et al.,
Improved Techniques for Training GANs, NeurIPS 2016, section 3.4 (one-sided label smoothing); A. Radford,
L. Metz and S. Chintala, DCGAN, ICLR 2016.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeuxis.models.base import Model, ModelOptions, Step, phase
from zeuxis.models.registry import register

__all__ = ["GAN", "GANOptions"]


class GANOptions(ModelOptions):
    """Options of the adversarial game."""

    latent: int = Field(100, ge=1, description="dimensions of the noise")
    merged_batches: bool = Field(False, description="discriminate real and fake images as one batch")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="real images are labelled 1 minus this")
    discriminator_updates: int = Field(1, ge=1, description="discriminator updates an iteration")
    generator_updates: int = Field(1, ge=1, description="generator updates an iteration")


@register("gan")
class GAN(Model):
    """Generator against discriminator."""

    Options = GANOptions
    options: GANOptions
    generating_network = "generator"

    def inputs(self) -> dict[str, tuple[int, ...]]:
        return {"generator": (self.options.latent,), "discriminator": self.image_shape}

    def check(self) -> None:
        self.net("generator").require_output(self.image_shape, "the recipe's image")
        self.net("discriminator").require_output((1,), "real or fake")

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.options.latent, generator=generator, device=generator.device)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        images: Tensor = self.net("generator")(latents)
        return images

    def condition(self, step: Step) -> Tensor | None:
        """What both networks are told of each image: nothing here; `(B, K)` class weights if conditional."""
        return None

    def fakes(self, step: Step) -> Tensor:
        """Generated images of this step; both phases share one pass through the generator."""

        def make() -> Tensor:
            return self.generate(step.randn(step.batch_size, self.options.latent), self.condition(step))

        return step.once("fake", make, through="generator")  # type: ignore[no-any-return]

    def score(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """Logits `(B, 1)` that images are real."""
        logits: Tensor = self.net("discriminator")(images, logits=True)
        return logits

    @phase("discriminator", updates="discriminator", repeat="discriminator_updates")
    def judge(self, step: Step) -> dict[str, Tensor]:
        condition, fakes = self.condition(step), self.fakes(step).detach()
        if self.options.merged_batches:
            both = None if condition is None else torch.cat([condition, condition])
            real, fake = self.score(torch.cat([step.images, fakes]), both).chunk(2)
        else:
            real, fake = self.score(step.images, condition), self.score(fakes, condition)
        step.record("accuracy_real", (real > 0).float().mean())
        step.record("accuracy_fake", (fake < 0).float().mean())
        share = 0.5 if self.options.merged_batches else 1.0
        target = torch.full_like(real, 1 - self.options.label_smoothing)
        return {
            "real": share * F.binary_cross_entropy_with_logits(real, target),
            "fake": share * F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake)),
        }

    @phase("generator", updates="generator", repeat="generator_updates")
    def fool(self, step: Step) -> dict[str, Tensor]:
        fake = self.score(self.fakes(step), self.condition(step))
        return {"adversarial": F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))}
