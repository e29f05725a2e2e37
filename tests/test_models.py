"""The losses against their definitions, and the gradients of the reparameterisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal, kl_divergence

from zeuxis.data import Batch
from zeuxis.errors import UserError
from zeuxis.models import Encodes, Generates, Model, Posterior, Step, build_model
from zeuxis.models.base import Weighted
from zeuxis.recipe import load_recipe

DIGITS = tuple("0123456789")


def make(name: str, **options: object) -> Model:
    return build_model(load_recipe(name, {key.replace("__", "."): value for key, value in options.items()}), DIGITS)


def step_for(model: Model, count: int = 6, seed: int = 0) -> Step:
    source = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *model.image_shape, generator=source)
    batch = Batch(images, torch.arange(count) % len(DIGITS))
    return Step(0.0, torch.Generator().manual_seed(seed), torch.device("cpu"), count, lambda: batch)


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


def test_reparameterisation_gradients_match_finite_differences() -> None:
    generator = np.random.default_rng(0)
    mean, sigma, eps = (generator.normal(size=(4, 2)) for _ in range(3))
    sigma = np.abs(sigma) + 0.5

    def loss(mu: np.ndarray, s: np.ndarray) -> float:
        return float(latent_loss(torch.tensor(mu + s * eps)))

    z = torch.tensor(mean + sigma * eps, requires_grad=True)
    (slope,) = torch.autograd.grad(latent_loss(z), z)
    h = 1e-6
    for index in np.ndindex(mean.shape):
        nudge = np.zeros_like(mean)
        nudge[index] = h
        by_mean = (loss(mean + nudge, sigma) - loss(mean - nudge, sigma)) / (2 * h)
        by_sigma = (loss(mean, sigma + nudge) - loss(mean, sigma - nudge)) / (2 * h)
        assert by_mean == pytest.approx(slope[index].item(), rel=1e-5, abs=1e-7)
        assert by_sigma == pytest.approx(slope[index].item() * eps[index], rel=1e-5, abs=1e-7)


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
    step = step_for(model)
    terms = model.phases[0].loss(step)
    posterior = model.encode(step.images)
    z = posterior.sample(torch.Generator().manual_seed(0))
    likelihood = -F.binary_cross_entropy(model.generate(z), step.images, reduction="none").sum((1, 2, 3)).mean()
    prior = kl_divergence(Normal(posterior.mean, torch.exp(posterior.logvar / 2)), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(total(terms), prior - likelihood)
    # On black and white images cross-entropy is the Bernoulli likelihood itself.
    binary = (step.images > 0.5).float()
    logits = model.net("decoder")(z, logits=True)
    torch.testing.assert_close(
        F.binary_cross_entropy_with_logits(logits, binary, reduction="none"), -Bernoulli(logits=logits).log_prob(binary)
    )


def test_mean_reduction_averages_over_pixels_and_latents() -> None:
    model = make("mnist-vae-z2", model__reconstruction="mse", model__reduction="mean", model__kl_weight=0.01)
    step = step_for(model)
    terms = model.phases[0].loss(step)
    posterior = model.encode(step.images)
    z = posterior.sample(torch.Generator().manual_seed(0))
    expected = F.mse_loss(model.generate(z), step.images) + 0.01 * posterior.kl().mean()
    torch.testing.assert_close(total(terms), expected)


def test_learned_variance_finds_the_error_it_explains() -> None:
    model = make("mnist-vae-z2", model__reconstruction="gaussian")
    decoder = model.net("decoder")
    assert decoder.log_variance.requires_grad
    step = step_for(model)
    optimizer = torch.optim.Adam([decoder.log_variance], lr=0.05)
    for _ in range(300):
        step.generator.manual_seed(0)
        optimizer.zero_grad()
        total(model.phases[0].loss(step)).backward()
        optimizer.step()
    z = model.encode(step.images).sample(torch.Generator().manual_seed(0))
    error = F.mse_loss(model.generate(z), step.images).item()
    learned = (-6 + F.softplus(decoder.log_variance + 6)).exp().item()
    assert learned == pytest.approx(error, rel=0.02), "the best variance is the mean squared error"


def test_kl_warmup_rises_to_the_weight() -> None:
    model = make("mnist-vae-z2", model__kl_weight=2.0, model__kl_warmup=4.0)
    weights = []
    for epoch in (0.0, 1.0, 4.0, 9.0):
        step = step_for(model)
        step.epoch = epoch
        weights.append(model.phases[0].loss(step)["kl"].weight)
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
    step = step_for(model)
    judged, fooled = (phase.loss(step) for phase in model.phases)
    fakes, condition = model.fakes(step), model.condition(step)
    real = torch.sigmoid(model.score(step.images, condition)).double()
    fake = torch.sigmoid(model.score(fakes, condition)).double()
    on_real = -(0.9 * real.log() + 0.1 * (1 - real).log()).mean()
    on_fake = -(1 - fake).log().mean()
    expected = (on_real + on_fake) * (0.5 if merged else 1.0)
    assert total(judged).item() == pytest.approx(expected.item(), rel=1e-4)
    assert total(fooled).item() == pytest.approx(-fake.log().mean().item(), rel=1e-4)
    assert step.recorded["accuracy_real"].item() == pytest.approx((real > 0.5).double().mean().item())
    assert step.recorded["accuracy_fake"].item() == pytest.approx((fake < 0.5).double().mean().item())


def test_merged_batches_share_batch_statistics() -> None:
    layers = ["flatten", "dense 4", "bn", "lrelu 0.2", "dense 1"]
    runs = {}
    for merged in (True, False):
        model = make("mnist-gan", model__merged_batches=merged, networks__discriminator={"layers": layers})
        runs[merged] = total(model.phases[0].loss(step_for(model))).item() * (2 if merged else 1)
    assert runs[True] != pytest.approx(runs[False], rel=1e-3)


def test_phases_share_one_pass_through_the_generator() -> None:
    model = make("mnist-gan")
    step = step_for(model)
    calls = []
    model.net("generator").register_forward_hook(lambda *args: calls.append(1))
    for phase in model.phases:
        phase.loss(step)
    assert len(calls) == 1
    step.forget(("generator",))
    model.phases[1].loss(step)
    assert len(calls) == 2, "an updated generator makes new images"


def test_the_discriminator_update_leaves_no_graph_to_the_generator() -> None:
    model = make("mnist-gan")
    total(model.phases[0].loss(step_for(model))).backward()
    assert all(p.grad is None for p in model.net("generator").parameters())


def test_the_condition_reaches_both_networks() -> None:
    model = make("mnist-cgan").eval()
    z = torch.randn(1, 128).expand(2, -1)
    weights = torch.eye(10)[:2]
    images = model.generate(z, weights)
    assert not torch.allclose(images[0], images[1])
    same = images[:1].expand(2, -1, -1, -1)
    assert not torch.allclose(*model.score(same, weights))


def test_capabilities_are_said_by_protocols() -> None:
    assert isinstance(make("mnist-vae-z2"), Generates)
    assert isinstance(make("mnist-vae-z2"), Encodes)
    assert isinstance(make("mnist-gan"), Generates)
    assert not isinstance(make("mnist-gan"), Encodes)
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
