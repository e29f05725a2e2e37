r"""What adversarial models share: losses by name, penalties, and what keeps the discriminator from winning.

D gives a score of "this is real": for real samples r = D(x), for fakes f = D(G(z)). What the two minimise is said by
the losses of `zeuxis.models.losses`.

Penalties on the discriminator's gradient with respect to its input:

- R1: gamma/2 E_x|grad D(x)|^2 and R2: gamma/2 E_z|grad D(G(z))|^2 make the game converge. As they change slowly, they
  may be taken every k-th iteration alone, k times as strong (`lazy_penalties`).
- gradient penalty: lambda E(|grad D(y)| - 1)^2 at points y between a real and a fake sample makes D 1-Lipschitz,
  as the Wasserstein loss needs.

Against a discriminator that wins:

- ``merged_batches``: real and fake images pass through D as one batch, so that batch statistics cannot give
  either away; L_D is then the mean over the merged batch.
- ``label_smoothing``: real images are labelled 1 - s, fakes still 0 (one-sided), which punishes overconfidence.
- ``instance_noise``: normal noise on all that D sees, fading out, makes the two distributions overlap.
- ``augmentation``: see `zeuxis.models.augmentation`.
- ``discriminator_updates`` : ``generator_updates``, an iteration.
- spectral normalisation and dropout belong to a network: ``networks.discriminator.spectral_norm``, ``dropout``.

Sources: L. Mescheder et al., Which Training Methods for GANs do actually Converge?, ICML 2018 (R1, R2); T. Karras et
al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, appendix B (lazy penalties); I. Gulrajani et al.,
Improved Training of Wasserstein GANs, NeurIPS 2017 (gradient penalty); T. Salimans et al., Improved Techniques
for Training GANs, NeurIPS 2016, section 3.4 (label smoothing); C. K. Sonderby et al., Amortised MAP Inference,
ICLR 2017 (instance noise).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from zeuxis.errors import UserError, one_of
from zeuxis.models.augmentation import AUGMENTATIONS, augment
from zeuxis.models.base import Iteration, Model, ModelOptions, Terms, Weighted, configured, phase
from zeuxis.models.losses import LOSSES
from zeuxis.recipe import Choice, Named, Recipe

__all__ = ["Adversarial", "AdversarialOptions", "Scores", "squared_gradient"]

# What a discriminator says of a batch, by head: `real` is the score, `(B, 1)`.
Scores = dict[str, Tensor]


class AdversarialOptions(ModelOptions):
    """Options of an adversarial game."""

    loss: Named = Field(
        Choice(name="non-saturating"),
        description="see `zeuxis.models.losses`: a name, or a table of name and options",
    )
    merged_batches: bool = Field(False, description="discriminate real and fake samples as one batch")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="real samples are labelled 1 minus this")
    r1_penalty: float = Field(0.0, ge=0, le=1e6, description="gamma of the penalty on the gradient at real samples")
    r2_penalty: float = Field(0.0, ge=0, le=1e6, description="gamma of the penalty on the gradient at fake samples")
    gradient_penalty: float = Field(0.0, ge=0, le=1e6, description="lambda of WGAN-GP's penalty, between real and fake")
    lazy_penalties: int = Field(
        0,
        ge=0,
        le=1000,
        description="take R1 and R2 every so many iterations, as many times stronger; 0: in every update",
    )
    instance_noise: float = Field(0.0, ge=0, le=1e6, description="deviation of noise on what the discriminator sees")
    instance_noise_epochs: float = Field(0.0, ge=0, le=1e6, description="epochs over which it fades; 0: it stays")
    augmentation: list[Named] = Field(
        [], max_length=20, description="differentiable augmentation, where images are few: color, translation, cutout"
    )
    discriminator_updates: int = Field(1, ge=1, le=1000, description="discriminator updates an iteration")
    generator_updates: int = Field(1, ge=1, le=1000, description="generator updates an iteration")

    @field_validator("loss")
    @classmethod
    def _is_a_loss(cls, choice: Choice) -> Choice:
        if choice.name not in LOSSES:
            raise ValueError(str(one_of("loss", choice.name, LOSSES)))
        return choice

    @field_validator("augmentation")
    @classmethod
    def _are_augmentations(cls, choices: list[Choice]) -> list[Choice]:
        for choice in choices:
            if choice.name not in AUGMENTATIONS:
                raise ValueError(str(one_of("augmentation", choice.name, AUGMENTATIONS)))
        return choices

    @model_validator(mode="after")
    def _fits(self) -> AdversarialOptions:
        if self.label_smoothing and not LOSSES[self.loss.name].labels:
            raise ValueError(f"label_smoothing needs a loss with labels, and '{self.loss.name}' has none; set it to 0")
        if self.lazy_penalties and not (self.r1_penalty or self.r2_penalty):
            raise ValueError("lazy_penalties is of R1 and R2, and both are 0; give r1_penalty or r2_penalty")
        return self


class Adversarial(Model):
    """Base of models with a discriminator, the network that scores how real a sample is."""

    options: AdversarialOptions

    def __init__(self, recipe: Recipe, classes: tuple[str, ...] | None = None) -> None:
        super().__init__(recipe, classes)
        self.loss = configured(LOSSES, self.options.loss, recipe, "model.loss")
        self.augmentations = [
            configured(AUGMENTATIONS, choice, recipe, f"model.augmentation.{i}")
            for i, choice in enumerate(self.options.augmentation)
        ]

    def check(self) -> None:
        discriminator = self.net("discriminator")
        if not discriminator.head_shapes:
            discriminator.require_output((1,), "real or fake")
        elif discriminator.head_shapes.get("real") != (1,):
            raise UserError(f"In {discriminator.where}, a head 'real' with one value is needed: real or fake.")
        if self.options.augmentation and len(discriminator.input_shape) != 3:
            raise UserError(
                f"Recipe {self.recipe.name}: model.augmentation is for images, and here latents are judged."
            )

    def pair(self, iteration: Iteration) -> tuple[Tensor, Tensor, Tensor | None]:
        """As many real as fake samples for the discriminator, and the condition of both."""
        raise NotImplementedError

    def score(self, samples: Tensor, condition: Tensor | None) -> Scores:
        """What the discriminator says of samples, before any sigmoid or softmax.

        Args:
            samples: `(B, *)`, as the discriminator takes them.
            condition: `(B, K)` class weights, if the discriminator takes a condition.
        """
        discriminator = self.net("discriminator")
        scored = discriminator(samples, condition=condition)
        if discriminator.head_shapes:
            return {name: head.logits for name, head in scored.heads.items()}
        return {"real": scored.logits}

    def discriminator_loss(
        self, iteration: Iteration, real: Tensor, fake: Tensor, condition: Tensor | None
    ) -> tuple[dict[str, Tensor | Weighted], Scores, Scores]:
        """The discriminator's loss terms for as many real as fake samples of the same condition, and its scores."""
        options = self.options
        in_this_update = not options.lazy_penalties
        real = real.detach().requires_grad_(options.r1_penalty > 0 and in_this_update)
        fake = fake.detach().requires_grad_(options.r2_penalty > 0 and in_this_update)
        if options.merged_batches:
            both = None if condition is None else torch.cat([condition, condition])
            scores = self.score(self.seen(iteration, torch.cat([real, fake])), both)
            halves = {name: score.chunk(2) for name, score in scores.items()}
            on_real, on_fake = ({name: half[i] for name, half in halves.items()} for i in (0, 1))
        else:
            on_real = self.score(self.seen(iteration, real), condition)
            on_fake = self.score(self.seen(iteration, fake), condition)
        self._log_scores(iteration, on_real["real"].detach(), on_fake["real"].detach())
        losses = self.loss.discriminator(on_real["real"], on_fake["real"], options.label_smoothing)
        share = 0.5 if options.merged_batches else 1.0
        terms: dict[str, Tensor | Weighted] = {name: Weighted(loss, share) for name, loss in losses.items()}
        if in_this_update:
            terms |= self._penalties(on_real["real"], real, on_fake["real"], fake)
        if options.gradient_penalty:
            t = torch.rand(len(real), *[1] * (real.dim() - 1), generator=iteration.generator, device=real.device)
            between = torch.lerp(real.detach(), fake.detach(), t).requires_grad_(True)
            slope = squared_gradient(self.score(between, condition)["real"], between)
            # A square root has no slope at 0, where a gradient may well be at the start.
            terms["gradient_penalty"] = Weighted(((slope + 1e-12).sqrt() - 1).square().mean(), options.gradient_penalty)
        return terms, on_real, on_fake

    @phase("penalty", updates="discriminator", interval="lazy_penalties", optimizer="discriminator")
    def penalty_terms(self, iteration: Iteration) -> Terms:
        """R1 and R2 in iterations of their own, as much stronger as they are rarer."""
        real, fake, condition = self.pair(iteration)
        real = real.detach().requires_grad_(self.options.r1_penalty > 0)
        fake = fake.detach().requires_grad_(self.options.r2_penalty > 0)
        on_real = self.score(self.seen(iteration, real), condition)["real"]
        on_fake = self.score(self.seen(iteration, fake), condition)["real"]
        rarer = self.options.lazy_penalties
        penalties = self._penalties(on_real, real, on_fake, fake)
        return {name: Weighted(term.value, rarer * term.weight) for name, term in penalties.items()}

    def _penalties(self, on_real: Tensor, real: Tensor, on_fake: Tensor, fake: Tensor) -> dict[str, Weighted]:
        """R1 and R2, where the options have them, from scores and the samples that were scored."""
        options, penalties = self.options, {}
        if options.r1_penalty:
            penalties["r1"] = Weighted(squared_gradient(on_real, real).mean(), options.r1_penalty / 2)
        if options.r2_penalty:
            penalties["r2"] = Weighted(squared_gradient(on_fake, fake).mean(), options.r2_penalty / 2)
        return penalties

    def generator_loss(
        self, iteration: Iteration, fake: Tensor, real: Callable[[], Tensor], condition: Tensor | None
    ) -> tuple[Tensor, Scores]:
        """The generator's loss for its samples, and the scores they get; `real` gives what pairs are made with."""
        scores = self.score(self.seen(iteration, fake), condition)
        opposite = None
        if self.loss.paired:
            with torch.no_grad():
                opposite = self.score(self.seen(iteration, real()), condition)["real"]
        return self.loss.generator(scores["real"], opposite), scores

    def seen(self, iteration: Iteration, samples: Tensor) -> Tensor:
        """Samples as the discriminator sees them: augmented and noisy, if the options say so."""
        options = self.options
        if self.augmentations:
            low = -1.0 if self.recipe.data.range == "-1..1" else 0.0
            samples = augment(samples, self.augmentations, iteration.generator, low)
        if options.instance_noise:
            over = options.instance_noise_epochs
            fading = (1 - iteration.epoch / over).clamp(min=0) if over else 1
            samples = samples + options.instance_noise * fading * iteration.randn(*samples.shape)
        return samples

    def _log_scores(self, iteration: Iteration, real: Tensor, fake: Tensor) -> None:
        """Logs how well the discriminator separates real samples from fakes."""
        loss = self.loss
        if loss.paired:  # only the difference of a pair has a meaning
            iteration.log("accuracy_pairs", (real > fake).float().mean(), "accuracy")
        elif loss.threshold is None:
            iteration.log("wasserstein_estimate", real.mean() - fake.mean(), "distance")
        else:
            iteration.log("accuracy_real", (real > loss.threshold).float().mean(), "accuracy")
            iteration.log("accuracy_fake", (fake < loss.threshold).float().mean(), "accuracy")


def squared_gradient(scores: Tensor, samples: Tensor) -> Tensor:
    """Squared norm, `(B,)`, of the gradient of each sample's score with respect to the sample."""
    (slope,) = torch.autograd.grad(scores.sum(), samples, create_graph=True)
    return slope.square().flatten(1).sum(1)
