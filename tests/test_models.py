"""The losses against their definitions, and the gradients of the reparameterisation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from zeuxis.data import Batch
from zeuxis.errors import UserError
from zeuxis.models import Classifies, Encodes, Generates, HasCodes, Iteration, Model, Posterior, build_model
from zeuxis.models.adversarial import squared_gradient
from zeuxis.models.augmentation import AUGMENTATIONS, augment
from zeuxis.models.autoencoder import CEILING
from zeuxis.models.base import Weighted
from zeuxis.models.losses import LOSSES
from zeuxis.recipe import load_recipe

DIGITS = tuple("0123456789")


def make(name: str, **options: object) -> Model:
    return build_model(load_recipe(name, {key.replace("__", "."): value for key, value in options.items()}), DIGITS)


def iteration_for(model: Model, count: int = 6, seed: int = 0, black_and_white: bool = False) -> Iteration:
    source = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *model.image_shape, generator=source)
    batch = Batch(images.round() if black_and_white else images, torch.arange(count) % len(DIGITS))
    return Iteration(torch.zeros(()), torch.Generator().manual_seed(seed), torch.device("cpu"), count, lambda: batch)


def total(terms: dict[str, torch.Tensor | Weighted]) -> torch.Tensor:
    return sum(t.value * t.weight if isinstance(t, Weighted) else t for t in terms.values())


# -- the reparameterisation (specification F6) --------------------------------------------------------


def latent_loss(z: torch.Tensor) -> torch.Tensor:
    """Any smooth function of the latents will do."""
    return (torch.sin(z) + 0.3 * z**3).sum()


def test_reparameterisation_gradients_match_autograd() -> None:
    mean = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    logvar = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    z = Posterior(mean, logvar).sample(torch.Generator().manual_seed(1))
    z.retain_grad()
    latent_loss(z).backward()
    sigma = torch.exp(logvar / 2).detach()
    eps = ((z - mean) / sigma).detach()
    # dL/dmu = dL/dz and dL/dsigma = dL/dz * eps; by the chain rule dL/dlogvar = dL/dsigma * sigma / 2.
    torch.testing.assert_close(mean.grad, z.grad)
    torch.testing.assert_close(logvar.grad, z.grad * eps * sigma / 2)


def test_no_latent_is_much_wider_than_the_prior() -> None:
    """An encoder that a first step has thrown far off gives samples of a sane size, and is still told the way back."""
    model = make("digits-vae")
    last = model.net("encoder").heads["logvar"][-1]
    torch.nn.init.constant_(last.bias, 75.0)
    posterior = model.encode(torch.rand(4, *model.image_shape), None)
    assert posterior.logvar.max() == CEILING
    posterior.kl().sum().backward()
    assert (last.bias.grad > 0).all()
    torch.nn.init.constant_(last.bias, -3.0)
    torch.testing.assert_close(
        model.encode(torch.zeros(4, *model.image_shape), None).logvar,
        model.net("encoder")(torch.zeros(4, *model.image_shape)).heads["logvar"].value,
        rtol=0,
        atol=0,
    )


def test_reparameterisation_gradients_match_finite_differences() -> None:
    def loss(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return latent_loss(Posterior(mean, logvar).sample(torch.Generator().manual_seed(0)))  # the same noise each time

    mean, logvar = (torch.randn(4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(loss, (mean, logvar))


def test_a_posterior_sample_has_the_posteriors_moments() -> None:
    mean, logvar = torch.tensor([[1.5, -2.0]]), torch.tensor([[0.0, 2 * np.log(3.0)]]).float()
    many = Posterior(mean.expand(40_000, 2), logvar.expand(40_000, 2)).sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(many.mean(0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(many.std(0), torch.tensor([1.0, 3.0]), atol=0.05, rtol=0)


def test_kl_is_the_kl_of_two_normals() -> None:
    mean, logvar = torch.randn(9, 4), torch.randn(9, 4)
    expected = kl_divergence(Normal(mean, torch.exp(logvar / 2)), Normal(0.0, 1.0))
    torch.testing.assert_close(Posterior(mean, logvar).kl(), expected)


# -- the variational autoencoder ----------------------------------------------------------------------


def test_summed_bce_is_the_evidence_lower_bound() -> None:
    model = make("mnist-vae-z2")
    iteration = iteration_for(model)
    terms = model.phases[0].loss(iteration)
    posterior = model.encode(iteration.images)
    z = posterior.sample(torch.Generator().manual_seed(0))
    likelihood = -F.binary_cross_entropy(model.generate(z), iteration.images, reduction="none").sum((1, 2, 3)).mean()
    prior = kl_divergence(Normal(posterior.mean, torch.exp(posterior.logvar / 2)), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(total(terms), prior - likelihood)


def test_on_black_and_white_images_it_is_the_bound_of_the_bernoulli_likelihood() -> None:
    model = make("mnist-vae-z2")
    iteration = iteration_for(model, black_and_white=True)
    terms = model.phases[0].loss(iteration)
    z = model.encode(iteration.images).sample(torch.Generator().manual_seed(0))
    likelihood = Bernoulli(model.generate(z)).log_prob(iteration.images).sum((1, 2, 3)).mean()
    torch.testing.assert_close(terms["reconstruction"], -likelihood)


def test_mean_reduction_averages_over_pixels_and_latents() -> None:
    model = make("mnist-vae-z2", model__reconstruction="mse", model__reduction="mean", model__kl_weight=0.01)
    iteration = iteration_for(model)
    terms = model.phases[0].loss(iteration)
    posterior = model.encode(iteration.images)
    z = posterior.sample(torch.Generator().manual_seed(0))
    expected = F.mse_loss(model.generate(z), iteration.images) + 0.01 * posterior.kl().mean()
    torch.testing.assert_close(total(terms), expected)


def test_learned_variance_finds_the_error_it_explains() -> None:
    model = make("mnist-vae-z2", model__reconstruction="gaussian")
    decoder = model.net("decoder")
    assert decoder.log_variance.requires_grad
    iteration = iteration_for(model)
    optimizer = torch.optim.Adam([decoder.log_variance], lr=0.05)
    for _ in range(300):
        iteration.generator.manual_seed(0)
        optimizer.zero_grad()
        total(model.phases[0].loss(iteration)).backward()
        optimizer.step()
    z = model.encode(iteration.images).sample(torch.Generator().manual_seed(0))
    error = F.mse_loss(model.generate(z), iteration.images).item()
    learned = (-6 + F.softplus(decoder.log_variance + 6)).exp().item()
    assert learned == pytest.approx(error, rel=0.02), "the best variance is the mean squared error"


def test_kl_warmup_rises_to_the_weight() -> None:
    model = make("mnist-vae-z2", model__kl_weight=2.0, model__kl_warmup=4.0)
    weights = []
    for epoch in (0.0, 1.0, 4.0, 9.0):
        iteration = iteration_for(model)
        iteration.epoch = torch.tensor(epoch)
        weights.append(model.phases[0].loss(iteration)["kl"].weight)
    assert weights == [0.0, 0.5, 2.0, 2.0]


def test_an_encoder_may_end_in_one_dense_layer() -> None:
    layers = ["flatten", "dense 4"]
    model = make("mnist-vae-z2", networks__encoder={"layers": layers})
    assert model.encode(torch.rand(3, 1, 28, 28)).logvar.shape == (3, 2)


# -- adversarial models -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist-gan", "mnist-cgan"])
@pytest.mark.parametrize("merged", [True, False])
def test_adversarial_losses_are_binary_cross_entropies(name: str, merged: bool) -> None:
    options = {"model__label_smoothing": 0.1, "model__merged_batches": merged}
    model = make(name, **options).eval()  # without dropout and batch statistics both ways give the same scores
    iteration = iteration_for(model)
    judged, fooled = (phase.loss(iteration) for phase in model.phases)
    fakes, condition = model.fakes(iteration), model.condition(iteration)
    real = torch.sigmoid(model.score(iteration.images, condition)["real"]).double()
    fake = torch.sigmoid(model.score(fakes, condition)["real"]).double()
    on_real = -(0.9 * real.log() + 0.1 * (1 - real).log()).mean()
    on_fake = -(1 - fake).log().mean()
    expected = (on_real + on_fake) * (0.5 if merged else 1.0)
    assert total(judged).item() == pytest.approx(expected.item(), rel=1e-4)
    assert total(fooled).item() == pytest.approx(-fake.log().mean().item(), rel=1e-4)
    assert iteration.logged["accuracy_real"][0].item() == pytest.approx((real > 0.5).double().mean().item())
    assert iteration.logged["accuracy_fake"][0].item() == pytest.approx((fake < 0.5).double().mean().item())


def test_merged_batches_share_batch_statistics() -> None:
    layers = ["flatten", "dense 4", "bn", "lrelu 0.2", "dense 1"]
    runs = {}
    for merged in (True, False):
        model = make("mnist-gan", model__merged_batches=merged, networks__discriminator={"layers": layers})
        runs[merged] = total(model.phases[0].loss(iteration_for(model))).item() * (2 if merged else 1)
    assert runs[True] != pytest.approx(runs[False], rel=1e-3)


def test_phases_share_one_pass_through_the_generator() -> None:
    model = make("mnist-gan")
    iteration = iteration_for(model)
    calls = []
    model.net("generator").register_forward_hook(lambda *args: calls.append(1))
    for phase in model.phases:
        phase.loss(iteration)
    assert len(calls) == 1
    iteration.forget(("generator",))
    model.phases[1].loss(iteration)
    assert len(calls) == 2, "an updated generator makes new images"


def test_the_discriminator_update_leaves_no_graph_to_the_generator() -> None:
    model = make("mnist-gan")
    total(model.phases[0].loss(iteration_for(model))).backward()
    assert all(p.grad is None for p in model.net("generator").parameters())


def test_the_condition_reaches_both_networks() -> None:
    model = make("mnist-cgan").eval()
    z = torch.randn(1, 128).expand(2, -1)
    weights = torch.eye(10)[:2]
    images = model.generate(z, weights)
    assert not torch.allclose(images[0], images[1])
    same = images[:1].expand(2, -1, -1, -1)
    assert not torch.allclose(*model.score(same, weights)["real"])


# Real and fake scores, and what each loss is by its definition: the discriminator's, then the generator's.
REAL, FAKE = torch.tensor([[2.0], [-0.3], [0.4]]), torch.tensor([[0.7], [-1.5], [1.2]])
SIGMOID = (torch.sigmoid(REAL).double(), torch.sigmoid(FAKE).double())
DEFINED = {
    "non-saturating": (-(SIGMOID[0].log() + (1 - SIGMOID[1]).log()).mean(), -SIGMOID[1].log().mean()),
    "least-squares": (((REAL - 1) ** 2 + FAKE**2).mean() / 2, ((FAKE - 1) ** 2).mean() / 2),
    "hinge": ((1 - REAL).clamp(min=0).mean() + (1 + FAKE).clamp(min=0).mean(), -FAKE.mean()),
    "wasserstein": (FAKE.mean() - REAL.mean(), -FAKE.mean()),
    "relativistic": (
        -torch.sigmoid(REAL - FAKE).double().log().mean(), -torch.sigmoid(FAKE - REAL).double().log().mean(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(DEFINED))
def test_adversarial_losses_are_their_definitions(kind: str) -> None:
    judged, fooled = DEFINED[kind]
    assert sum(LOSSES[kind]().discriminator(REAL, FAKE).values()).item() == pytest.approx(judged.item(), rel=1e-5)
    assert LOSSES[kind]().generator(FAKE, REAL).item() == pytest.approx(fooled.item(), rel=1e-5)


@pytest.mark.parametrize("kind", list(DEFINED))
def test_every_loss_pulls_both_ways(kind: str) -> None:
    """The discriminator raises real scores above fake ones, the generator raises fake ones."""
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    sum(LOSSES[kind]().discriminator(real, fake).values()).backward()
    assert (real.grad[real < 1] < 0).all()
    assert (fake.grad[fake > 0] > 0).all()
    (slope,) = torch.autograd.grad(LOSSES[kind]().generator(fake, REAL), fake)
    assert (slope[fake < 1] < 0).all()


def test_label_smoothing_moves_the_best_real_score() -> None:
    scores = torch.zeros(1, 1, requires_grad=True)
    optimizer = torch.optim.SGD([scores], lr=2.0)
    for _ in range(300):
        optimizer.zero_grad()
        LOSSES["non-saturating"]().discriminator(scores, FAKE, 0.1)["real"].backward()
        optimizer.step()
    assert torch.sigmoid(scores).item() == pytest.approx(0.9, abs=1e-3)


def test_smoothed_labels_need_a_loss_with_labels() -> None:
    with pytest.raises(UserError, match="label_smoothing needs a loss with labels, and 'hinge' has none"):
        make("mnist-gan", model__loss="hinge", model__label_smoothing=0.1)


LINEAR = {"layers": ["flatten", "dense 1"], "init": "he"}


def test_penalties_are_the_gradients_of_a_linear_discriminator() -> None:
    """D(x) = w x + b has the gradient w everywhere."""
    model = make(
        "mnist-gan", networks__discriminator=LINEAR, model__r1_penalty=3.0, model__r2_penalty=5.0,
        model__gradient_penalty=7.0,
    )  # fmt: skip
    terms = model.phases[0].loss(iteration_for(model))
    norm = model.net("discriminator").trunk[1].weight.detach().norm().item()
    assert (terms["r1"].value.item(), terms["r1"].weight) == (pytest.approx(norm**2, rel=1e-4), 1.5)
    assert (terms["r2"].value.item(), terms["r2"].weight) == (pytest.approx(norm**2, rel=1e-4), 2.5)
    assert terms["gradient_penalty"].value.item() == pytest.approx((norm - 1) ** 2, rel=1e-3)
    assert terms["gradient_penalty"].weight == 7.0
    total(terms).backward()
    assert model.net("discriminator").trunk[1].weight.grad is not None
    assert all(p.grad is None for p in model.net("generator").parameters())


def test_squared_gradients_match_finite_differences() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    h, slopes = 1e-5, []
    for i in range(3):
        nudge = torch.zeros(3, dtype=torch.float64)
        nudge[i] = h
        slopes.append((network(x + nudge) - network(x - nudge))[:, 0].detach() / (2 * h))
    expected = torch.stack(slopes).square().sum(0)
    torch.testing.assert_close(squared_gradient(network(x), x).detach(), expected, rtol=1e-6, atol=1e-9)


def test_relativistic_pairs_need_no_absolute_score() -> None:
    """Moving every score by the same amount changes nothing."""
    for shift in (0.0, 4.0):
        moved = LOSSES["relativistic"]().discriminator(REAL + shift, FAKE + shift)["pairs"]
        torch.testing.assert_close(moved, LOSSES["relativistic"]().discriminator(REAL, FAKE)["pairs"])


@pytest.mark.parametrize("loss", list(DEFINED))
def test_accuracy_is_journalled_as_fits_the_loss(loss: str) -> None:
    model = make("mnist-gan", model__loss=loss)
    iteration = iteration_for(model)
    model.phases[0].loss(iteration)
    names = {
        "wasserstein": {"wasserstein_estimate"},
        "relativistic": {"accuracy_pairs"},
    }.get(loss, {"accuracy_real", "accuracy_fake"})
    assert set(iteration.logged) == names


def test_instance_noise_fades() -> None:
    model = make("mnist-gan", model__instance_noise=0.5, model__instance_noise_epochs=10.0)
    images = torch.zeros(64, 1, 28, 28)
    for epoch, deviation in ((0.0, 0.5), (5.0, 0.25), (10.0, 0.0), (20.0, 0.0)):
        iteration = iteration_for(model)
        iteration.epoch = torch.tensor(epoch)
        assert model.seen(iteration, images).std().item() == pytest.approx(deviation, abs=0.01)
    constant = make("mnist-gan", model__instance_noise=0.3)
    iteration = iteration_for(constant)
    iteration.epoch = torch.tensor(99.0)
    assert constant.seen(iteration, images).std().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("low", [-1.0, 0.0])
@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_augmentations_keep_shape_layout_and_gradient(name: str, low: float) -> None:
    images = (low + (1 - low) * torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))).requires_grad_()
    made = augment(images, [AUGMENTATIONS[name]()], torch.Generator().manual_seed(1), low)
    assert made.shape == images.shape
    assert not torch.allclose(made, images)
    made.sum().backward()
    assert torch.isfinite(images.grad).all()
    assert images.grad.abs().sum() > 0
    again = augment(images, [AUGMENTATIONS[name]()], torch.Generator().manual_seed(1), low)
    torch.testing.assert_close(made, again)


def test_translation_moves_and_cutout_masks() -> None:
    middle = 0.5
    images = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = augment(images, [AUGMENTATIONS["translation"]()], torch.Generator().manual_seed(1), 0.0)
    for image, result in zip(images, moved, strict=True):
        candidates = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                shifted = torch.full((16, 16), middle)
                rows, columns = (slice(max(-d, 0), 16 - max(d, 0)) for d in (down, right))
                taken = image[0][max(down, 0) : 16 + min(down, 0), max(right, 0) : 16 + min(right, 0)]
                shifted[rows, columns] = taken
                candidates.append(torch.allclose(shifted, result[0], atol=1e-6))
        assert any(candidates), "one of the 25 shifts, the border filled with the middle of the range"
    masked = augment(images, [AUGMENTATIONS["cutout"]()], torch.Generator().manual_seed(1), 0.0)
    changed = (masked - images).abs() > 1e-6
    assert torch.allclose(masked[changed], torch.tensor(middle))
    assert 0 < changed.float().mean() <= 0.25
    assert changed.sum(dim=(1, 2, 3)).max() == 8 * 8, "half of each side"


@pytest.mark.parametrize("size", [(8, 32), (32, 8)])
def test_cutout_comes_everywhere_in_an_image_that_is_not_square(size: tuple[int, int]) -> None:
    covered = AUGMENTATIONS["cutout"]().transform(torch.ones(4000, 1, *size), torch.Generator().manual_seed(0)) == 0
    assert covered.any(dim=(1, 2, 3)).float().mean() > 0.95, "nearly every image loses something"
    shares = covered.float().mean(dim=(0, 1))
    assert shares.min() > 0.25 * shares.max(), "in a corner, where a quarter of the places reach, too"


def test_grey_images_stay_grey_in_colour() -> None:
    images = torch.rand(6, 1, 8, 8).expand(-1, 3, -1, -1)
    made = augment(images, [AUGMENTATIONS["color"]()], torch.Generator().manual_seed(1), 0.0)
    torch.testing.assert_close(made[:, 0], made[:, 1])


def test_spectral_norm_and_dropout_are_said_of_a_network_at_once() -> None:
    model = make(
        "mnist-gan", networks__discriminator__spectral_norm=True, networks__discriminator__dropout=0.2,
    )  # fmt: skip
    written = [row.layer for row in model.net("discriminator").rows]
    assert written[:3] == ["conv 64 k5 s2 sn", "lrelu 0.3", "dropout 0.2"]
    assert written[-1] == "dense 1 sn"
    network = model.net("discriminator").train()
    for _ in range(30):
        network(torch.rand(2, 1, 28, 28))
    assert torch.linalg.matrix_norm(network.trunk[-1].weight, 2).item() == pytest.approx(1.0, rel=1e-2)


# -- models that build on these -----------------------------------------------------------------------


def test_an_auxiliary_classifier_is_told_and_names_the_class() -> None:
    model = make("mnist-acgan", model__classify_fakes=True).eval()
    iteration = iteration_for(model)
    judged, fooled = (phase.loss(iteration) for phase in model.phases)
    fakes = model.fakes(iteration)
    on_real, on_fake = model.score(iteration.images, None), model.score(fakes, None)
    expected = (
        F.cross_entropy(on_real["class"], iteration.labels) + F.cross_entropy(on_fake["class"], iteration.labels)
    ) / 2
    torch.testing.assert_close(judged["class"].value, expected)
    torch.testing.assert_close(fooled["class"].value, F.cross_entropy(on_fake["class"], iteration.labels))
    assert "accuracy_class" in iteration.logged
    real_alone = make("mnist-acgan", model__classify_fakes=False).eval()
    named = real_alone.phases[0].loss(iteration_for(real_alone))["class"].value
    torch.testing.assert_close(named, F.cross_entropy(on_real["class"], iteration.labels))


def test_an_attribute_is_one_number() -> None:
    recipe = load_recipe("faces-acgan-64-z100")
    model = build_model(recipe, ("not Smiling", "Smiling")).eval()
    assert model.class_names == build_model(recipe).class_names
    assert model.net("generator").input_shape == (101,)
    z = torch.randn(1, 100)
    told = model.generate(z, model.condition_of_labels([1]))
    torch.testing.assert_close(told, model.net("generator")(z, condition=torch.ones(1, 1)).value)
    batch = Batch(torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 1, 0]))
    iteration = Iteration(torch.zeros(()), torch.Generator().manual_seed(0), torch.device("cpu"), 4, lambda: batch)
    judged = model.phases[0].loss(iteration)
    scores = (
        model.score(iteration.images, None)["class"][:, 0],
        model.score(model.fakes(iteration), None)["class"][:, 0],
    )
    expected = sum(F.binary_cross_entropy_with_logits(s, iteration.labels.float()) for s in scores) / 2
    torch.testing.assert_close(judged["class"].value, expected)


def test_codes_are_drawn_from_their_distributions() -> None:
    model = make("infogan-62-10-2", model__categorical=[10, 3], model__continuous=2)
    latents = model.sample_latents(6000, torch.Generator().manual_seed(0))
    assert latents.shape == (6000, 62 + 13 + 2)
    one, two, *numbers = model.codes()
    for code in (one, two):
        part = latents[:, code.start : code.start + code.size]
        assert torch.equal(part.sum(1), torch.ones(6000))
        torch.testing.assert_close(part.mean(0), torch.full((code.size,), 1 / code.size), atol=0.02, rtol=0)
    for code in numbers:
        part = latents[:, code.start]
        assert -1 <= part.min() < -0.99 < 0.99 < part.max() <= 1
        assert part.var().item() == pytest.approx(1 / 3, abs=0.02)
    assert latents[:, :62].std().item() == pytest.approx(1, abs=0.02)


def test_codes_are_read_as_the_information_phase_guesses_them() -> None:
    model = build_model(load_recipe("infogan-62-10-2", {"model.categorical": [10, 3], "model.continuous": 2})).eval()
    images = torch.rand(6, 1, 28, 28) * 2 - 1
    guessed = model.guessed(images)
    read = model.read_codes(images)
    assert read.shape == (6, 4)
    assert torch.equal(read[:, 0], guessed["categorical_1"].argmax(1).float())
    assert torch.equal(read[:, 1], guessed["categorical_2"].argmax(1).float())
    assert torch.equal(read[:, 2:], guessed["continuous"][:, :2]), "means, not their variances"


def test_information_is_the_bound_of_the_codes() -> None:
    model = make("infogan-62-10-2").eval()
    assert [(p.name, p.updates) for p in model.phases] == [
        ("discriminator", ("discriminator",)),
        ("generator", ("generator",)),
        ("information", ("generator", "q", "discriminator")),
    ]
    iteration = iteration_for(model, 32)
    terms = model.phases[2].loss(iteration)
    latents = model.sample_latents(32, torch.Generator().manual_seed(0))
    guessed = model.guessed(model.generate(latents))
    categorical = F.cross_entropy(guessed["categorical_1"], latents[:, 62:72].argmax(1))
    torch.testing.assert_close(terms["categorical"].value, categorical)
    assert iteration.logged["mutual_information"][0].item() == pytest.approx(np.log(10) - categorical.item(), abs=1e-6)
    mean, logvar = guessed["continuous"].chunk(2, 1)
    normal = Normal(mean, torch.exp((-4 + F.softplus(logvar + 4)) / 2))
    constant = np.log(2 * np.pi) / 2 * 2
    density = -normal.log_prob(latents[:, 72:]).sum(1).mean() - constant
    torch.testing.assert_close(terms["continuous"].value, density, rtol=1e-4, atol=1e-4)


def test_infogan_takes_any_mixture_of_codes() -> None:
    for categorical, continuous in (([2], 0), ([], 3), ([5, 4, 3], 1)):
        model = make("infogan-62-10-2", model__categorical=categorical, model__continuous=continuous)
        terms = model.phases[2].loss(iteration_for(model))
        assert set(terms) == {
            name for name, there in (("categorical", categorical), ("continuous", continuous)) if there
        }
        total(terms).backward()
    with pytest.raises(UserError, match="InfoGAN needs a code"):
        make("infogan-62-10-2", model__categorical=[], model__continuous=0)
    with pytest.raises(UserError, match="takes 2 to 10,000 values, not 1"):
        make("infogan-62-10-2", model__categorical=[1])


def test_a_critic_with_batch_norm_is_refused() -> None:
    with pytest.raises(UserError, match="mixes the images of a batch"):
        make("mnist-wgan-gp", networks__discriminator__layers=["flatten", "dense 8", "bn", "dense 1"])


def test_a_point_is_a_posterior_without_spread() -> None:
    model = make("mnist-ae-z3")
    posterior = model.encode(torch.rand(4, 1, 28, 28))
    assert torch.equal(posterior.sample(torch.Generator().manual_seed(0)), posterior.mean)
    assert posterior.mean.shape == (4, 3)
    with pytest.raises(UserError, match="without heads"):
        make("mnist-ae-z3", networks__encoder__heads={"mean": ["dense 3"], "logvar": ["dense 3"]})


def test_an_autoencoder_minimises_reconstruction_alone() -> None:
    model = make("mnist-ae-z3")
    iteration = iteration_for(model)
    terms = model.phases[0].loss(iteration)
    made = model.generate(model.encode(iteration.images).mean)
    expected = F.binary_cross_entropy(made, iteration.images, reduction="none").sum((1, 2, 3)).mean()
    torch.testing.assert_close(total(terms), expected)


def test_free_bits_cost_nothing_below_their_number() -> None:
    model = make("mnist-vae-z3", model__free_bits=50.0)
    terms = model.phases[0].loss(iteration_for(model))
    assert terms["kl"].value.item() == pytest.approx(150.0)
    free = make("mnist-vae-z3", model__free_bits=1e-6)
    plain = make("mnist-vae-z3")
    torch.testing.assert_close(
        free.phases[0].loss(iteration_for(free))["kl"].value, plain.phases[0].loss(iteration_for(plain))["kl"].value
    )


def test_a_conditional_vae_tells_both_networks() -> None:
    model = make("mnist-cvae").eval()
    assert model.net("encoder").input_shape == (11, 28, 28)
    images, weights = torch.rand(1, 1, 28, 28).expand(2, -1, -1, -1), torch.eye(10)[:2]
    means = model.encode(images, weights).mean
    assert not torch.allclose(means[0], means[1])
    made = model.generate(means[:1].expand(2, -1), weights)
    assert not torch.allclose(made[0], made[1])
    iteration = iteration_for(model)
    condition = model.condition(iteration)
    posterior = model.encode(iteration.images, condition)
    z = posterior.sample(torch.Generator().manual_seed(0))
    error = (
        F.binary_cross_entropy(model.generate(z, condition), iteration.images, reduction="none").sum((1, 2, 3)).mean()
    )
    torch.testing.assert_close(total(model.phases[0].loss(iteration)), error + posterior.kl().sum(1).mean())


def test_an_adversarial_autoencoder_judges_latents() -> None:
    model = make("mnist-aae", model__r1_penalty=0.0)
    assert [(p.name, p.updates) for p in model.phases] == [
        ("autoencoder", ("encoder", "decoder")), ("discriminator", ("discriminator",)), ("encoder", ("encoder",)),
    ]  # fmt: skip
    iteration = iteration_for(model)
    terms = model.phases[1].loss(iteration)
    drawn = model.sample_latents(6, torch.Generator().manual_seed(0))
    encoded = model.encode(iteration.images).mean
    real, fake = (model.score(z, None)["real"] for z in (drawn, encoded))
    torch.testing.assert_close(total(terms), sum(LOSSES["non-saturating"]().discriminator(real, fake).values()))
    total(terms).backward()
    assert all(p.grad is None for p in model.net("encoder").parameters())
    with pytest.raises(UserError, match="augmentation is for images"):
        make("mnist-aae", model__augmentation=["color"])


def face_step(model: Model, count: int = 6) -> Iteration:
    batch = Batch(torch.rand(count, *model.image_shape) * 2 - 1, torch.arange(count) % len(model.class_names))
    return Iteration(torch.zeros(()), torch.Generator().manual_seed(0), torch.device("cpu"), count, lambda: batch)


@pytest.mark.parametrize("name", ["flowers-vae-gan-32", "flowers-cvae-gan-32"])
def test_a_vae_gan_compares_in_the_discriminators_features(name: str) -> None:
    model = build_model(load_recipe(name), tuple("abcde")).eval()
    iteration = face_step(model)
    judge, encode, fool, *rest = model.phases
    assert [(p.name, p.updates) for p in (judge, encode, fool)] == [
        ("discriminator", ("discriminator",)), ("encoder", ("encoder",)), ("decoder", ("decoder",)),
    ]  # fmt: skip
    assert [p.name for p in rest] == (["classifier"] if "cvae" in name else [])
    terms = fool.loss(iteration)
    made = model.reconstructed(iteration)
    networks = ["discriminator", *(["classifier"] if rest else [])]
    expected = sum(F.mse_loss(model.net(n).trunk(made), model.net(n).trunk(iteration.images)) for n in networks)
    torch.testing.assert_close(terms["features"].value, expected)
    torch.testing.assert_close(terms["pixels"].value, F.mse_loss(made, iteration.images))
    assert torch.equal(model.fakes(iteration)[:3], made[:3])
    assert set(terms) == {"features", "pixels", "adversarial", *(["class"] if rest else [])}
    if rest:
        said = model.classify(model.fakes(iteration))
        torch.testing.assert_close(terms["class"].value, F.cross_entropy(said, iteration.labels))
    total(encode.loss(iteration)).backward(inputs=list(model.net("encoder").parameters()), retain_graph=True)
    assert all(p.grad is None for p in model.net("discriminator").parameters())


def test_an_autoencoder_with_a_discriminator_trains_both_its_networks_together() -> None:
    model = build_model(load_recipe("modern-ae-64"), tuple("ab")).eval()
    iteration = face_step(model)
    judge, fit, penalty = sorted(model.phases, key=lambda phase: ["discriminator", "autoencoder"].count(phase.name) < 1)
    assert (judge.updates, fit.updates) == (("discriminator",), ("encoder", "decoder"))
    assert (penalty.name, penalty.interval) == ("penalty", 8)
    assert torch.equal(model.fakes(iteration), model.reconstructed(iteration))
    terms = fit.loss(iteration)
    assert set(terms) == {"features", "pixels", "kl", "adversarial"}
    terms["adversarial"].value.backward(inputs=[p for n in fit.updates for p in model.net(n).parameters()])
    assert all(
        any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.net(n).parameters()) for n in fit.updates
    )
    with pytest.raises(UserError, match="must end in features"):
        make("modern-ae-64", networks__discriminator={"layers": ["flatten", "dense 1"]})


def test_a_vae_gan_needs_features() -> None:
    with pytest.raises(UserError, match="must end in features"):
        make("flowers-vae-gan-32", networks__discriminator={"layers": ["flatten", "dense 1"]})


def test_a_learned_prior_finds_the_latents() -> None:
    """Two narrow clusters, far from the standard normal that the flow begins with."""
    model = make("modern-vae-28", model__latent=2, model__solver_steps=16)
    optimizer = torch.optim.Adam(model.net("prior").parameters(), lr=2e-3)
    iteration = iteration_for(model, 256)
    centres = torch.tensor([[3.0, 3.0], [-3.0, 1.0]])
    which = torch.arange(256) % 2
    model.encode = lambda images, condition=None: Posterior(centres[which], torch.full((256, 2), -4.0))
    assert model.generating_networks == ("decoder", "prior")
    for _ in range(400):
        optimizer.zero_grad()
        total(model.phases[1].loss(iteration)).backward()
        optimizer.step()
    drawn = model.sample_latents(600, torch.Generator().manual_seed(1))
    assert not drawn.requires_grad
    distance = torch.cdist(drawn, centres).min(dim=1).values
    assert (distance < 1.0).float().mean() > 0.9
    share = (torch.cdist(drawn, centres).argmin(1) == 0).float().mean().item()
    assert 0.35 < share < 0.65


def test_capabilities_are_said_by_protocols() -> None:
    generates = {"mnist-vae-z2", "mnist-gan", "mnist-cgan", "mnist-ae-z3", "infogan-62-10-2", "latent-gan"}
    encodes = {"mnist-vae-z2", "mnist-ae-z3", "mnist-cvae", "mnist-aae"}
    for name in generates | encodes | {"mnist-cnn"}:
        model = make(name)
        assert isinstance(model, Generates) == (name != "mnist-cnn")
        assert isinstance(model, Encodes) == (name in encodes)
        assert isinstance(model, HasCodes) == (name == "infogan-62-10-2")
        assert isinstance(model, Classifies) == (name == "mnist-cnn")
    assert (make("mnist-cgan").conditional, make("mnist-gan").conditional) == (True, False)


def test_update_ratios_are_the_phases_repeats() -> None:
    model = make("mnist-gan", model__generator_updates=2, model__discriminator_updates=3)
    assert [(p.name, p.updates, p.repeat) for p in model.phases] == [
        ("discriminator", ("discriminator",), 3),
        ("generator", ("generator",), 2),
    ]


def test_weights_follow_the_seed() -> None:
    same, other = make("mnist-gan"), make("mnist-gan", training__seed=1)
    reference = make("mnist-gan").net("generator").trunk[0].weight
    assert torch.equal(same.net("generator").trunk[0].weight, reference)
    assert not torch.equal(other.net("generator").trunk[0].weight, reference)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "mnist-vae-z2",
            {"model__latent": 3, "networks__encoder": {"layers": ["flatten", "dense 4"]}},
            "is 4.*needs 6",
        ),
        ("mnist-vae-z2", {"data__range": "-1..1"}, "needs data.range = '0..1'"),
        ("mnist-gan", {"networks__critic": {"layers": ["flatten"]}}, "has no network 'critic'"),
        ("mnist-gan", {"networks__discriminator": {"layers": ["flatten"]}}, "is 784, but real or fake needs 1"),
    ],
)
def test_networks_that_do_not_fit_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(name, **options)


class Products(TorchDispatchMode):
    """Types of the matrices and kernels that are multiplied, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.types: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._overloadpacket in flop_registry:
            self.types.update(arg.dtype for arg in args if isinstance(arg, torch.Tensor) and arg.dim() > 1)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["infogan-62-10-2", "flowers-vae-gan-32", "flowers-cvae-gan-32", "mnist-acgan"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_product_of_training_is_in_the_networks_precision(name: str, precision: torch.dtype) -> None:
    """Also of those phases that enter a network by its features."""
    classes = None if "mnist" in name else tuple("abcde")
    model = build_model(load_recipe(name), classes)
    for network in model.networks:
        model.net(network).precision = precision
    iteration = face_step(model, 4)
    for phase in model.phases:
        parameters = [p for network in phase.updates for p in model.networks[network].parameters()]
        with Products() as products:
            total(phase.loss(iteration)).backward(inputs=parameters)
        iteration.forget(phase.updates)
        assert products.types.keys() == {precision}, f"phase {phase.name}"


def test_losses_and_augmentations_take_options(tmp_path: Path) -> None:
    choices = {
        "model.loss": {"name": "hinge", "margin": 2.0},
        "model.augmentation": ["color", {"name": "translation", "reach": 0.5, "probability": 0.5}],
    }
    recipe = load_recipe("digits-gan", choices)
    model = build_model(recipe)
    assert model.loss.discriminator(torch.tensor([[1.5]]), torch.tensor([[-3.0]]))["real"].item() == 0.5
    assert [type(each).__name__ for each in model.augmentations] == ["Color", "Translation"]
    # A recipe is written as it was given, and reads back equal.
    written = tmp_path / "recipe.toml"
    written.write_text(recipe.to_toml(), "utf-8")
    assert load_recipe(written).model == recipe.model
    images = torch.rand(400, 1, 16, 16) * 2 - 1
    moved = augment(images, model.augmentations[1:], torch.Generator().manual_seed(0))
    assert 0.4 < torch.isclose(moved, images).all(dim=(1, 2, 3)).float().mean().item() < 0.62, "half of them move"
    for wrong, words in (
        ({"model.loss": {"name": "hinge", "margn": 2}}, r"no key 'model.loss.margn'. Did you mean 'margin'\?"),
        ({"model.augmentation": [{"name": "cutout", "side": 2}]}, r"model.augmentation.0.side should be .* 1.0, not 2"),
    ):
        with pytest.raises(UserError, match=words):
            build_model(load_recipe("digits-gan", wrong))
