r"""Base of adversarial models: losses, gradient penalties, and measures against a discriminator that wins.

D scores how real a sample is: r = D(x) for real samples, f = D(G(z)) for fakes. The losses of `zeuxis.models.losses`
define what the two minimise. D may give several `scores` of a sample, one for each patch or scale; losses and penalties
are then means over them.

Penalties on the discriminator's gradient with respect to its input:

- R1: gamma/2 E_x|grad D(x)|^2 and R2: gamma/2 E_z|grad D(G(z))|^2 make training converge. They change slowly, so they
  can be computed only in every k-th iteration, k times as strong (`lazy_penalties`); the optimiser's settings stay.
- gradient penalty: lambda E(|grad D(y)| - 1)^2 at points y between a real and a fake sample, as D sees them, makes D
  1-Lipschitz, as the Wasserstein loss needs.

Against a discriminator that wins:

- ``merged_batches``: real and fake images pass through D as one batch, so that batch statistics cannot give
  either away; L_D is then the mean over the merged batch.
- ``label_smoothing``: real images are labelled 1 - s, fakes still 0 (one-sided), which punishes overconfidence.
- ``instance_noise``: normal noise added to all inputs of D, fading out, makes the two distributions overlap.
- ``augmentation``: see `zeuxis.models.augmentation`.
- the ratio of ``discriminator_updates`` to ``generator_updates`` per iteration.
- spectral normalisation and dropout, set for a network: ``networks.discriminator.spectral_norm``, ``dropout``.

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
from zeuxis.models.losses import LOSSES, AdversarialLoss
from zeuxis.nets.photographs import require_installed
from zeuxis.nets.projected import Projected
from zeuxis.recipe import Choice, Named, Recipe

__all__ = ["Adversarial", "AdversarialOptions", "Scores", "squared_gradient"]

# Outputs of a discriminator for a batch, by head: `real` is the score, `(B, 1)`, or several scores of parts, `(B, K)`.
Scores = dict[str, Tensor]


class AdversarialOptions(ModelOptions):
    """Options of adversarial training."""

    loss: Named = Field(
        Choice(name="non-saturating"),
        description="see `zeuxis.models.losses`: a name, or a table of name and options",
    )
    scores: int = Field(
        1,
        ge=1,
        le=10_000,
        description="scores that the discriminator gives a sample: one, or one for each patch or scale",
    )
    merged_batches: bool = Field(False, description="discriminate real and fake samples as one batch")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="label real samples 1 minus this")
    r1_penalty: float = Field(0.0, ge=0, le=1e6, description="gamma of the penalty on the gradient at real samples")
    r2_penalty: float = Field(0.0, ge=0, le=1e6, description="gamma of the penalty on the gradient at fake samples")
    gradient_penalty: float = Field(0.0, ge=0, le=1e6, description="lambda of WGAN-GP's penalty, between real and fake")
    lazy_penalties: int = Field(
        0,
        ge=0,
        le=1000,
        description="apply R1 and R2 only every so many iterations, as many times stronger; 0: in every update",
    )
    instance_noise: float = Field(0.0, ge=0, le=1e6, description="deviation of the noise on the discriminator's input")
    instance_noise_epochs: float = Field(0.0, ge=0, le=1e6, description="epochs over which the noise fades; 0: never")
    augmentation: list[Named] = Field(
        [], max_length=20, description="differentiable augmentation for small data sets: color, translation, cutout"
    )
    discriminator_updates: int = Field(1, ge=1, le=1000, description="discriminator updates per iteration")
    generator_updates: int = Field(1, ge=1, le=1000, description="generator updates per iteration")

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
            raise ValueError("lazy_penalties applies to R1 and R2, but both are 0; set r1_penalty or r2_penalty")
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
        scores = (self.options.scores,)
        if not discriminator.head_shapes:
            discriminator.require_output(scores, "real or fake" if scores == (1,) else "model.scores")
        elif discriminator.head_shapes.get("real") != scores:
            values = "one value" if scores == (1,) else f"{scores[0]} values, as model.scores says"
            raise UserError(f"In {discriminator.where}, the heads need one called 'real' with {values}.")
        if self.options.augmentation and len(discriminator.input_shape) != 3:
            raise UserError(
                f"Recipe {self.recipe.name}: model.augmentation is for images, but this discriminator judges latents."
            )

    def require_packages(self) -> None:
        if any(isinstance(module, Projected) for module in self.networks.modules()):
            require_installed("The discriminator 'projected'")

    def pair(self, iteration: Iteration) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns equally many real and fake samples for the discriminator, and the condition of both."""
        raise NotImplementedError

    def score(self, samples: Tensor, condition: Tensor | None) -> Scores:
        """Returns the discriminator's outputs for samples, before any sigmoid or softmax.

        Args:
            samples: `(B, *)`, as the discriminator takes them.
            condition: `(B, K)`, if the discriminator takes a condition.
        """
        discriminator = self.net("discriminator")
        output = discriminator(samples, condition=condition)
        if discriminator.head_shapes:
            return {name: head.logits for name, head in output.heads.items()}
        return {"real": output.logits}

    @property
    def discriminates_images(self) -> bool:
        """Whether the discriminator takes images; in some models it takes latents."""
        return len(self.net("discriminator").input_shape) == 3

    def realness(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """Returns the discriminator's scores `(B,)` of `(B, C, H, W)` images; higher ones look more real to it."""
        return self.score(images, condition)["real"].mean(dim=1)

    def discriminator_loss(
        self, iteration: Iteration, real: Tensor, fake: Tensor, condition: Tensor | None
    ) -> tuple[dict[str, Tensor | Weighted], Scores, Scores]:
        """Returns the discriminator's loss terms and its scores of real and fake samples.

        There are equally many real and fake samples, of the same condition.
        """
        options = self.options
        in_this_update = not options.lazy_penalties
        real = real.detach().requires_grad_(options.r1_penalty > 0 and in_this_update)
        fake = fake.detach().requires_grad_(options.r2_penalty > 0 and in_this_update)
        if options.merged_batches:
            both = None if condition is None else torch.cat([condition, condition])
            seen = self.seen(iteration, torch.cat([real, fake]))
            halves = {name: score.chunk(2) for name, score in self.score(seen, both).items()}
            real_seen, fake_seen = seen.chunk(2)
            on_real, on_fake = ({name: half[i] for name, half in halves.items()} for i in (0, 1))
        else:
            real_seen, fake_seen = self.seen(iteration, real), self.seen(iteration, fake)
            on_real, on_fake = self.score(real_seen, condition), self.score(fake_seen, condition)
        self._log_scores(iteration, on_real["real"].detach(), on_fake["real"].detach())
        losses = self.loss.discriminator(on_real["real"], on_fake["real"], options.label_smoothing)
        share = 0.5 if options.merged_batches else 1.0
        terms: dict[str, Tensor | Weighted] = {name: Weighted(loss, share) for name, loss in losses.items()}
        if in_this_update:
            terms |= self._penalties(iteration, on_real["real"], real, on_fake["real"], fake)
        if options.gradient_penalty:
            t = torch.rand(len(real), *[1] * (real.dim() - 1), generator=iteration.generator, device=real.device)
            between = torch.lerp(real_seen.detach(), fake_seen.detach(), t).requires_grad_(True)
            slope = squared_gradient(self.score(between, condition)["real"], between, iteration.loss_scale)
            # The square root has no derivative at 0, where the gradient may well be at first.
            terms["gradient_penalty"] = Weighted(((slope + 1e-12).sqrt() - 1).square().mean(), options.gradient_penalty)
        return terms, on_real, on_fake

    @phase("penalty", updates="discriminator", interval="lazy_penalties", optimizer="discriminator")
    def penalty_terms(self, iteration: Iteration) -> Terms:
        """R1 and R2 as a phase of every `lazy_penalties`-th iteration, and as many times stronger."""
        real, fake, condition = self.pair(iteration)
        real = real.detach().requires_grad_(self.options.r1_penalty > 0)
        fake = fake.detach().requires_grad_(self.options.r2_penalty > 0)
        on_real, on_fake = (
            self.score(self.seen(iteration, x), condition)["real"] if x.requires_grad else x for x in (real, fake)
        )
        interval = self.options.lazy_penalties
        penalties = self._penalties(iteration, on_real, real, on_fake, fake)
        return {name: Weighted(term.value, interval * term.weight) for name, term in penalties.items()}

    def _penalties(
        self, iteration: Iteration, on_real: Tensor, real: Tensor, on_fake: Tensor, fake: Tensor
    ) -> dict[str, Weighted]:
        """Returns R1 and R2, if the options ask for them, from samples and their scores."""
        options, penalties, scale = self.options, {}, iteration.loss_scale
        if options.r1_penalty:
            penalties["r1"] = Weighted(squared_gradient(on_real, real, scale).mean(), options.r1_penalty / 2)
        if options.r2_penalty:
            penalties["r2"] = Weighted(squared_gradient(on_fake, fake, scale).mean(), options.r2_penalty / 2)
        return penalties

    def generator_loss(
        self, iteration: Iteration, fake: Tensor, real: Callable[[], Tensor], condition: Tensor | None
    ) -> tuple[Tensor, Scores]:
        """Returns the generator's loss for its samples, and their scores; `real` gives the other half of pairs."""
        scores = self.score(self.seen(iteration, fake), condition)
        opposite = None
        if self.loss.paired:
            with torch.no_grad():
                opposite = self.score(self.seen(iteration, real()), condition)["real"]
        return self.loss.generator(scores["real"], opposite), scores

    def seen(self, iteration: Iteration, samples: Tensor) -> Tensor:
        """Returns samples as the discriminator sees them: with augmentation and noise, if the options ask for them."""
        options = self.options
        if self.augmentations:
            low = -1.0 if self.recipe.data.range == "-1..1" else 0.0
            samples = augment(samples, self.augmentations, iteration.generator, low)
        if options.instance_noise:
            epochs = options.instance_noise_epochs
            fading = (1 - iteration.epoch / epochs).clamp(min=0) if epochs else 1
            samples = samples + options.instance_noise * fading * iteration.randn(*samples.shape)
        return samples

    def _log_scores(
        self, iteration: Iteration, real: Tensor, fake: Tensor, loss: AdversarialLoss | None = None
    ) -> None:
        """Logs how well the discriminator separates real samples from fakes."""
        loss = self.loss if loss is None else loss
        if loss.paired:  # only the difference of a pair means something
            iteration.log("accuracy_pairs", (real > fake).float().mean(), "accuracy")
        elif loss.threshold is None:
            iteration.log("wasserstein_estimate", real.mean() - fake.mean(), "distance")
        else:
            iteration.log("accuracy_real", (real > loss.threshold).float().mean(), "accuracy")
            iteration.log("accuracy_fake", (fake < loss.threshold).float().mean(), "accuracy")


def squared_gradient(scores: Tensor, samples: Tensor, scale: float = 1.0) -> Tensor:
    """Returns the squared norm, `(B,)`, of the gradient of each sample's score with respect to the sample.

    Args:
        scores: `(B, K)`, of which the mean is taken.
        samples: `(B, *)`.
        scale: that the score is multiplied by for the backward pass, so that float16 can hold its gradient.
    """
    total = scores.mean(dim=1).sum()
    (slope,) = torch.autograd.grad(total if scale == 1 else total * scale, samples, create_graph=True)
    slope = slope if scale == 1 else slope / scale
    return slope.square().flatten(1).sum(1)
