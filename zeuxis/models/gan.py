r"""Generative adversarial network.

A generator G turns noise z ~ N(0, 1) into images; a discriminator D gives the logit of "this image is real".
With targets t (1 for real, 0 for fake) and binary cross-entropy on logits,

    L_D = E_x[BCE(D(x), t_real)] + E_z[BCE(D(G(z)), 0)],
    L_G = E_z[BCE(D(G(z)), 1)]                                 (non-saturating).

A recipe may add a second discriminator S, such as one that knows photographs (`zeuxis.nets.projected`). It has a hinge
loss, whatever the loss of D is, and joins after a share of the training, `second_after`; then, with its weight w,

    L_S = E_x[max(0, 1 - S(x))] + E_z[max(0, 1 + S(G(z)))],
    L_G = E_z[BCE(D(G(z)), 1)] - w E_z[S(G(z))].

D, which starts from nothing, keeps the samples varied; S, which knows what images show, keeps them whole. If S is there
from the first step, G may end with a single image, because D cannot object yet. The means for S may be taken over a
share of the batch, `second_share`, as S can be much slower than D.

With `best_of` = k, a sample is the one of k generated images to which S gives the highest mean score: fewer faults,
less variety, k times the time. D has no say, because the scores of relativistic pairs do not compare images.

Other losses, penalties, and measures against a discriminator that wins are options of all adversarial models:
`zeuxis.models.adversarial`.

Sources: I. Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014, section 3; A. Radford, L. Metz and
S. Chintala, DCGAN, ICLR 2016; N. Kumari, R. Zhang, E. Shechtman and J.-Y. Zhu, Ensembling Off-the-shelf Models for GAN
Training, CVPR 2022 (a second discriminator that knows photographs, added to a GAN that is trained already); S. Azadi,
C. Olsson, T. Darrell, I. Goodfellow and A. Odena, Discriminator Rejection Sampling, ICLR 2019 (samples chosen by a
discriminator; here without its probabilities).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from zeuxis.errors import UserError
from zeuxis.models.adversarial import Adversarial, AdversarialOptions, Scores
from zeuxis.models.base import Inputs, Iteration, Terms, Weighted, phase
from zeuxis.models.losses import Hinge
from zeuxis.models.registry import register
from zeuxis.recipe import Recipe

__all__ = ["GAN", "SECOND", "GANOptions"]

# The network that a recipe may add, and its loss.
SECOND = "second_discriminator"
HINGE = Hinge()


class GANOptions(AdversarialOptions):
    """Options of the generative adversarial network."""

    latent: int = Field(100, ge=1, le=100_000, description="dimensions of the noise")
    second_weight: float = Field(1.0, ge=0, le=1e6, description="weight of a second discriminator in G's loss")
    second_after: float = Field(
        0.0, ge=0, lt=1, description="share of the training after which a second discriminator joins"
    )
    second_share: float = Field(1.0, gt=0, le=1, description="share of each batch that a second discriminator sees")
    best_of: int = Field(
        1, ge=1, le=16, description="images generated for a sample: the second discriminator keeps the most real one"
    )


@register("gan")
class GAN(Adversarial):
    """A generator and a discriminator; in a conditional subclass, both take the class."""

    Options = GANOptions
    options: GANOptions
    generating_networks: ClassVar[tuple[str, ...]] = ("generator",)

    def __init__(self, recipe: Recipe, classes: tuple[str, ...] | None = None) -> None:
        super().__init__(recipe, classes)
        self.sampling_options = ("best_of",) if SECOND in self.networks else ()

    def inputs(self) -> Inputs:
        images = self.conditioned(self.image_shape)
        second = {SECOND: images} if SECOND in self.recipe.networks else {}
        return {"generator": self.conditioned((self.options.latent,)), "discriminator": images, **second}

    def check(self) -> None:
        super().check()
        self.net("generator").require_output(self.image_shape, "the recipe's image")
        self.check_second()

    def check_second(self) -> None:
        """Raises a `UserError` if a second discriminator gives no scores, or if there is none and it has options."""
        if SECOND in self.networks:
            network = self.net(SECOND)
            if len(network.output_shape) != 1 or network.head_shapes:
                raise UserError(f"In {network.where}, the output must be scores, such as 'dense 1', without heads.")
            return
        defaults = GANOptions()
        for name in ("second_weight", "second_after", "second_share", "best_of"):
            if getattr(self.options, name) != getattr(defaults, name):
                raise UserError(f"Recipe {self.recipe.name}: model.{name} is for networks.{SECOND}, which is missing.")

    def sample_latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.options.latent, generator=generator, device=generator.device)

    def generate(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net("generator")(latents, condition=condition).value

    def reals(self, iteration: Iteration) -> Tensor:
        """Returns the real samples: the iteration's images."""
        return iteration.images

    def fakes(self, iteration: Iteration) -> Tensor:
        """Returns generated images; the phases share one pass through the generator until it is updated."""

        def make() -> Tensor:
            return self.generate(
                self.sample_latents(iteration.batch_size, iteration.generator), self.condition(iteration)
            )

        return iteration.once("fake", make, through="generator")

    def pair(self, iteration: Iteration) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.reals(iteration), self.fakes(iteration), self.condition(iteration)

    def extra_discriminator_terms(self, iteration: Iteration, real: Scores, fake: Scores) -> Terms:
        """Returns further terms of the discriminator's loss, from its scores of real and fake images."""
        return {}

    def extra_generator_terms(self, iteration: Iteration, fake: Scores) -> Terms:
        """Returns further terms of the generator's loss, from the discriminator's scores of its images."""
        return {}

    @phase("discriminator", updates="discriminator", repeat="discriminator_updates")
    def discriminator_terms(self, iteration: Iteration) -> Terms:
        terms, real, fake = self.discriminator_loss(iteration, *self.pair(iteration))
        return {**terms, **self.extra_discriminator_terms(iteration, real, fake)}

    @phase(SECOND, updates=SECOND, start="second_after")
    def second_discriminator_terms(self, iteration: Iteration) -> Terms:
        """The hinge loss of the second discriminator, which sees what the first one sees, or a share of it."""
        real, fake, condition = self.pair(iteration)
        on_real = self.second_sees(iteration, real, condition)
        on_fake = self.second_sees(iteration, fake.detach(), condition)
        self._log_scores(iteration, on_real.detach(), on_fake.detach(), HINGE)
        return HINGE.discriminator(on_real, on_fake)

    @phase("generator", updates="generator", repeat="generator_updates")
    def generator_terms(self, iteration: Iteration) -> Terms:
        fake, condition = self.fakes(iteration), self.condition(iteration)
        loss, scores = self.generator_loss(iteration, fake, lambda: self.reals(iteration), condition)
        terms: dict[str, Tensor | Weighted] = {"adversarial": loss}
        if SECOND in self.networks and (iteration.due is None or SECOND in iteration.due):
            on_fake = self.second_sees(iteration, fake, condition)
            terms[SECOND] = Weighted(HINGE.generator(on_fake, None), self.options.second_weight)
        return {**terms, **self.extra_generator_terms(iteration, scores)}

    @property
    def candidates(self) -> int:
        return self.options.best_of

    def preference(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.second_scores(images, condition).mean(dim=1)

    def second_sees(self, iteration: Iteration, samples: Tensor, condition: Tensor | None) -> Tensor:
        """Returns the second discriminator's scores of the share of a batch that it sees, of two samples at least."""
        count = max(2, round(len(samples) * self.options.second_share))
        return self.second_scores(
            self.seen(iteration, samples[:count]), None if condition is None else condition[:count]
        )

    def second_scores(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """Returns the scores `(B, K)` of the second discriminator."""
        return self.net(SECOND)(images, condition=condition).logits
