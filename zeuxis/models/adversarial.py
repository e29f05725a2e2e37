r"""What adversarial models share: losses by name, penalties, and what keeps the discriminator from winning.

D gives a score of "this is real": for real samples r = D(x), for fakes f = D(G(z)). With
softplus(t) = log(1 + exp(t)), and s the label smoothing,

| loss | the discriminator minimises | the generator minimises |
|---|---|---|
| non-saturating | (1 - s) softplus(-r) + s softplus(r), + softplus(f) | softplus(-f) |
| least-squares | 1/2 (r - (1 - s))^2 + 1/2 f^2 | 1/2 (f - 1)^2 |
| hinge | max(0, 1 - r) + max(0, 1 + f) | -f |
| wasserstein | f - r | -f |
| relativistic | softplus(-(r - f)), real and fake in pairs | softplus(-(f - r)) |

Penalties on the discriminator's gradient with respect to its input:

- R1: gamma/2 E_x|grad D(x)|^2 and R2: gamma/2 E_z|grad D(G(z))|^2 make the game converge.
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

Sources: I. Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014, section 3 (non-saturating); X. Mao et
al., Least Squares GANs, ICCV 2017, equation 9; J. H. Lim and J. C. Ye, Geometric GAN, 2017 (hinge); M. Arjovsky
et al., Wasserstein GAN, ICML 2017; A. Jolicoeur-Martineau, The relativistic discriminator, ICLR 2019, and Y.
Huang et al., The GAN is dead; long live the GAN!, NeurIPS 2024 (relativistic pairing with R1 and R2); L.
Mescheder et al., Which Training Methods for GANs do actually Converge?, ICML 2018 (R1, R2); I. Gulrajani et al.,
Improved Training of Wasserstein GANs, NeurIPS 2017 (gradient penalty); T. Salimans et al., Improved Techniques
for Training GANs, NeurIPS 2016, section 3.4 (label smoothing); C. K. Sonderby et al., Amortised MAP Inference,
ICLR 2017 (instance noise).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from zeuxis.errors import UserError
from zeuxis.models.augmentation import augment
from zeuxis.models.base import Model, ModelOptions, Step, Weighted, join

__all__ = ["Adversarial", "AdversarialOptions", "Scores", "discriminator_loss", "generator_loss", "squared_gradient"]

Loss = Literal["non-saturating", "least-squares", "hinge", "wasserstein", "relativistic"]
# What a discriminator says of a batch, by head: `real` is the score, `(B, 1)`.
Scores = dict[str, Tensor]


class AdversarialOptions(ModelOptions):
    """Options of an adversarial game."""

    loss: Loss = Field("non-saturating", description="of both players, see the model's page")
    merged_batches: bool = Field(False, description="discriminate real and fake samples as one batch")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="real samples are labelled 1 minus this")
    r1_penalty: float = Field(0.0, ge=0, le=1e6, description="gamma of the penalty on the gradient at real samples")
    r2_penalty: float = Field(0.0, ge=0, le=1e6, description="gamma of the penalty on the gradient at fake samples")
    gradient_penalty: float = Field(0.0, ge=0, le=1e6, description="lambda of WGAN-GP's penalty, between real and fake")
    instance_noise: float = Field(0.0, ge=0, le=1e6, description="deviation of noise on what the discriminator sees")
    instance_noise_epochs: float = Field(0.0, ge=0, le=1e6, description="epochs over which it fades; 0: it stays")
    augmentation: list[Literal["color", "translation", "cutout"]] = Field(
        [], description="differentiable augmentation, where images are few"
    )
    discriminator_updates: int = Field(1, ge=1, le=1000, description="discriminator updates an iteration")
    generator_updates: int = Field(1, ge=1, le=1000, description="generator updates an iteration")

    @model_validator(mode="after")
    def _labels_exist(self) -> AdversarialOptions:
        if self.label_smoothing and self.loss not in ("non-saturating", "least-squares"):
            raise ValueError(f"label_smoothing needs a loss with labels, and '{self.loss}' has none; set it to 0")
        return self


class Adversarial(Model):
    """Base of models with a discriminator, the network that tells what is real."""

    options: AdversarialOptions

    def check(self) -> None:
        discriminator = self.net("discriminator")
        if not discriminator.heads:
            discriminator.require_output((1,), "real or fake")
        elif discriminator.head_shapes.get("real") != (1,):
            raise UserError(f"In {discriminator.where}, a head 'real' with one value is needed: real or fake.")
        if self.options.augmentation and len(discriminator.input_shape) != 3:
            raise UserError(
                f"Recipe {self.recipe.name}: model.augmentation is for images, and here latents are judged."
            )

    def score(self, samples: Tensor, condition: Tensor | None) -> Scores:
        """What the discriminator says of samples, before any sigmoid or softmax.

        Args:
            samples: `(B, *)`, as the discriminator takes them.
            condition: `(B, K)` class weights, if it is told the class.
        """
        discriminator, x = self.net("discriminator"), join(samples, condition)
        if discriminator.heads:
            scores: Scores = discriminator(x, heads=True, logits=True)
            return scores
        return {"real": discriminator(x, logits=True)}

    def judged(
        self, step: Step, real: Tensor, fake: Tensor, condition: Tensor | None
    ) -> tuple[dict[str, Tensor | Weighted], Scores, Scores]:
        """The discriminator's loss terms for as many real as fake samples of the same condition, and its scores."""
        options = self.options
        real = real.detach().requires_grad_(options.r1_penalty > 0)
        fake = fake.detach().requires_grad_(options.r2_penalty > 0)
        if options.merged_batches:
            both = None if condition is None else torch.cat([condition, condition])
            scores = self.score(self.seen(step, torch.cat([real, fake])), both)
            halves = {name: score.chunk(2) for name, score in scores.items()}
            on_real, on_fake = ({name: half[i] for name, half in halves.items()} for i in (0, 1))
        else:
            on_real = self.score(self.seen(step, real), condition)
            on_fake = self.score(self.seen(step, fake), condition)
        self._record(step, on_real["real"].detach(), on_fake["real"].detach())
        share = 0.5 if options.merged_batches else 1.0
        losses = discriminator_loss(options.loss, on_real["real"], on_fake["real"], options.label_smoothing)
        terms: dict[str, Tensor | Weighted] = {name: share * loss for name, loss in losses.items()}
        if options.r1_penalty:
            terms["r1"] = Weighted(squared_gradient(on_real["real"], real).mean(), options.r1_penalty / 2)
        if options.r2_penalty:
            terms["r2"] = Weighted(squared_gradient(on_fake["real"], fake).mean(), options.r2_penalty / 2)
        if options.gradient_penalty:
            t = torch.rand(len(real), *[1] * (real.dim() - 1), generator=step.generator, device=real.device)
            between = torch.lerp(real.detach(), fake.detach(), t).requires_grad_(True)
            slope = squared_gradient(self.score(between, condition)["real"], between)
            # A square root has no slope at 0, where a gradient may well be at the start.
            terms["gradient_penalty"] = Weighted(((slope + 1e-12).sqrt() - 1).square().mean(), options.gradient_penalty)
        return terms, on_real, on_fake

    def fooled(
        self, step: Step, fake: Tensor, real: Callable[[], Tensor], condition: Tensor | None
    ) -> tuple[Tensor, Scores]:
        """The generator's loss for its samples, and the scores they get; `real` gives what pairs are made with."""
        scores = self.score(self.seen(step, fake), condition)
        opposite = None
        if self.options.loss == "relativistic":
            with torch.no_grad():
                opposite = self.score(self.seen(step, real()), condition)["real"]
        return generator_loss(self.options.loss, scores["real"], opposite), scores

    def seen(self, step: Step, samples: Tensor) -> Tensor:
        """Samples as the discriminator sees them: augmented and noisy, if the options say so."""
        options = self.options
        if options.augmentation:
            low = -1.0 if self.recipe.data.range == "-1..1" else 0.0
            samples = augment(samples, options.augmentation, step.generator, low)
        if options.instance_noise:
            over = options.instance_noise_epochs
            fading = (1 - step.epoch / over).clamp(min=0) if over else 1
            samples = samples + options.instance_noise * fading * step.randn(*samples.shape)
        return samples

    def _record(self, step: Step, real: Tensor, fake: Tensor) -> None:
        """Journals how well real and fake are told apart."""
        kind = self.options.loss
        if kind == "wasserstein":
            step.record("wasserstein_estimate", real.mean() - fake.mean())
        elif kind == "relativistic":  # only the difference of a pair has a meaning
            step.record("accuracy_pairs", (real > fake).float().mean())
        else:
            middle = 0.5 if kind == "least-squares" else 0.0
            step.record("accuracy_real", (real > middle).float().mean())
            step.record("accuracy_fake", (fake < middle).float().mean())


def discriminator_loss(kind: Loss, real: Tensor, fake: Tensor, smoothing: float = 0.0) -> dict[str, Tensor]:
    """Terms that the discriminator minimises.

    Args:
        kind: see the module's head.
        real: scores of real samples, `(B, 1)`.
        fake: scores of fakes, `(B, 1)`.
        smoothing: real samples are labelled 1 minus this.
    """
    if kind == "non-saturating":
        labels = torch.full_like(real, 1 - smoothing)
        return {"real": F.binary_cross_entropy_with_logits(real, labels), "fake": F.softplus(fake).mean()}
    if kind == "least-squares":
        return {"real": (real - (1 - smoothing)).square().mean() / 2, "fake": fake.square().mean() / 2}
    if kind == "hinge":
        return {"real": F.relu(1 - real).mean(), "fake": F.relu(1 + fake).mean()}
    if kind == "wasserstein":
        return {"real": -real.mean(), "fake": fake.mean()}
    return {"pairs": F.softplus(fake - real).mean()}


def generator_loss(kind: Loss, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """What the generator minimises; `fake` and, for the relativistic loss, `real` are scores `(B, 1)`."""
    if kind == "non-saturating":
        return F.softplus(-fake).mean()
    if kind == "least-squares":
        return (fake - 1).square().mean() / 2
    if kind == "relativistic":
        assert real is not None, "a pair has a real sample"
        return F.softplus(real - fake).mean()
    return -fake.mean()


def squared_gradient(scores: Tensor, samples: Tensor) -> Tensor:
    """Squared norm, `(B,)`, of the gradient of each sample's score with respect to the sample."""
    (slope,) = torch.autograd.grad(scores.sum(), samples, create_graph=True)
    return slope.square().flatten(1).sum(1)
