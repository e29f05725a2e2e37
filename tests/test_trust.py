"""Measures that can be trusted: each against a reference on the same arrays, and none that a cheat passes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm, sqrtm
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from scipy.spatial.distance import cdist
from scipy.stats import entropy, mannwhitneyu, multivariate_normal, sem, ttest_ind

import zeuxis
from zeuxis.evaluation.classes import class_entropy, covered, inception_score
from zeuxis.evaluation.control import mutual_information
from zeuxis.evaluation.disentanglement import dci, mutual_information_gap
from zeuxis.evaluation.evaluate import evaluate
from zeuxis.evaluation.frechet import Moments, extrapolated, frechet_between, frechet_distance
from zeuxis.evaluation.kernel import kernel_distance, squared_discrepancy
from zeuxis.evaluation.likelihood import bits, bounds, latents
from zeuxis.evaluation.measure import Material, Value, jackknife, with_error
from zeuxis.evaluation.memorisation import copying, nearer, tails
from zeuxis.evaluation.neighbourhoods import neighbourhoods
from zeuxis.evaluation.ranking import conclusions, mean_ranks, pooled, ranked, unvaried
from zeuxis.evaluation.reconstruction import errors, fidelity
from zeuxis.evaluation.similarity import ms_ssim, ssim
from zeuxis.evaluation.smoothness import path_length
from zeuxis.evaluation.support import different, support
from zeuxis.models import HasLikelihood, build_model
from zeuxis.models.two_stage_vae import TwoStageVAE
from zeuxis.recipe import load_recipe
from zeuxis.run import Run


@pytest.fixture
def numbers() -> np.random.Generator:
    return np.random.default_rng(0)


def test_frechet_is_scipys_and_the_closed_form(numbers: np.random.Generator) -> None:
    x = numbers.normal(size=(800, 12)) @ numbers.normal(size=(12, 12)) + 1
    y = numbers.normal(size=(600, 12)) @ numbers.normal(size=(12, 12))
    one, two = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    scipys = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(one + two - 2 * sqrtm(one @ two)).real
    assert frechet_distance(x, y) == pytest.approx(scipys, rel=1e-8)
    # Of commuting covariances: |m|^2 + sum (s_1 - s_2)^2.
    deviations = numbers.uniform(1, 2, (2, 12))
    closed = 12 * 0.25 + np.square(deviations[0] - deviations[1]).sum()
    found = frechet_between(
        Moments(np.full(12, 0.5), np.diag(deviations[0] ** 2)), Moments(np.zeros(12), np.diag(deviations[1] ** 2))
    )
    assert found == pytest.approx(closed, rel=1e-8)


def test_the_extrapolated_distance_forgets_the_number_of_samples(numbers: np.random.Generator) -> None:
    """Draws of one distribution: the plain distance is well above 0 and falls with N; the line's end is near 0."""
    size, real = 20, Moments(np.zeros(20), np.eye(20))
    plain, limit = [], []
    for _ in range(5):
        x = numbers.normal(size=(1000, size))
        plain.append(frechet_between(Moments.of(x), real))
        limit.append(extrapolated(x, real))
    assert np.mean(plain) > 0.1
    assert abs(np.mean(limit)) < 0.15 * np.mean(plain)


def test_kernel_distance_is_its_definition(numbers: np.random.Generator) -> None:
    x, y = numbers.normal(size=(30, 4)), numbers.normal(0.5, 1, (40, 4))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 4 + 1) ** 3)

    xx = np.mean([k(x[i], x[j]) for i in range(30) for j in range(30) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(40) for j in range(40) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert squared_discrepancy(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-9)
    value, stderr = kernel_distance(numbers.normal(size=(4000, 4)), numbers.normal(size=(4000, 4)))
    assert abs(value) < 4 * stderr, "two draws of one distribution do not differ"
    value, stderr = kernel_distance(numbers.normal(size=(4000, 4)), numbers.normal(0.3, 1, (4000, 4)))
    assert value > 10 * stderr


def test_neighbourhoods_are_those_of_brute_force(numbers: np.random.Generator) -> None:
    samples, images, k = numbers.normal(0.5, 1, (1300, 3)), numbers.normal(size=(1100, 3)), 5
    between = cdist(samples, images)
    around_images = np.sort(cdist(images, images), axis=1)[:, k]
    around_samples = np.sort(cdist(samples, samples), axis=1)[:, k]
    expected = {
        "precision": (between <= around_images).any(axis=1).mean(),
        "recall": (around_samples >= between.T).any(axis=1).mean(),
        "density": (between <= around_images).sum(axis=1).mean() / k,
        "coverage": (between.min(axis=0) <= around_images).mean(),
    }
    found = neighbourhoods(samples, images, k)
    for name, value in expected.items():
        # Single precision may place a point on the rim of a ball on its other side.
        assert found[name].mean() == pytest.approx(value, abs=2e-3), name


def test_the_inception_score_ends_at_one_and_at_the_number_of_classes() -> None:
    assert inception_score(np.eye(10)[np.arange(1000) % 10]) == pytest.approx(10, rel=1e-6)
    assert inception_score(np.eye(10)[np.zeros(1000, int)]) == pytest.approx(1, rel=1e-6)
    assert inception_score(np.full((1000, 10), 0.1)) == pytest.approx(1, rel=1e-6)
    assert class_entropy(np.arange(1000) % 10, 10) == pytest.approx(1)
    assert class_entropy(np.zeros(1000, int), 10) == 0


def test_structural_similarity_is_its_definition(numbers: np.random.Generator) -> None:
    x, y = numbers.uniform(size=(2, 24, 24, 3)), numbers.uniform(size=(2, 24, 24, 3))
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    terms = []
    for i in range(14):
        for j in range(14):
            for c in range(3):
                a, b = x[0, i : i + 11, j : j + 11, c], y[0, i : i + 11, j : j + 11, c]
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * a * a).sum() - ma**2, (window * b * b).sum() - mb**2
                cov = (window * a * b).sum() - ma * mb
                terms.append((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    assert ssim(x, y)[0] == pytest.approx(np.mean(terms), rel=1e-9)
    assert ssim(x, x) == pytest.approx(1) and ms_ssim(x, x) == pytest.approx(1)


@pytest.mark.parametrize(("side", "channels", "scales"), [(24, 3, 2), (50, 1, 3), (176, 1, 5)])
def test_structural_similarity_at_several_scales_is_its_definition(
    side: int, channels: int, scales: int, numbers: np.random.Generator
) -> None:
    """Equation 7 of Wang, Simoncelli and Bovik: contrast and structure at every scale, luminance at the coarsest."""
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    weights /= weights.sum()
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    x = gaussian_filter(numbers.uniform(size=(side, side, channels)), (2, 2, 0)) * 4 - 1.5
    y = 0.5 * x + 0.5 * numbers.uniform(size=x.shape)

    def mean(z: np.ndarray) -> np.ndarray:
        return np.stack([convolve2d(z[:, :, c], window, "valid") for c in range(channels)], axis=2)

    expected, a, b = 1.0, x, y
    for scale, weight in enumerate(weights, 1):
        ma, mb = mean(a), mean(b)
        structure = (2 * (mean(a * b) - ma * mb) + 9e-4) / (mean(a * a) - ma**2 + mean(b * b) - mb**2 + 9e-4)
        luminance = (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
        expected *= (structure * luminance if scale == scales else structure).mean() ** weight
        even = len(a) // 2 * 2
        a, b = (z[:even, :even].reshape(even // 2, 2, even // 2, 2, channels).mean(axis=(1, 3)) for z in (a, b))
    assert 0.2 < expected < 0.95
    assert ms_ssim(x[None], y[None])[0] == pytest.approx(expected, rel=1e-9)


def test_the_path_length_is_that_of_a_straight_line_and_of_an_arc(numbers: np.random.Generator) -> None:
    """Of a linear generator between latents a and b, |W (b - a)|^2; of the identity on the unit sphere, the angle's."""
    widen = numbers.normal(size=(3, 5))

    def material(ends: dict[int, np.ndarray], matrix: np.ndarray) -> Any:
        run = SimpleNamespace(
            latents=lambda n, seed: ends[seed][:n], in_turn=lambda n: None, decode=lambda z, condition: z @ matrix
        )
        return SimpleNamespace(run=run, n=400, seed=0, features=lambda images: images, space="numbers", judge=None)

    ends = {seed: numbers.normal(size=(400, 3)) for seed in (1, 2)}
    found = path_length(material(ends, widen))["path_length"]
    each = np.square((ends[2] - ends[1]) @ widen).sum(axis=1)
    assert isinstance(found, Value) and found.value == pytest.approx(each.mean(), rel=1e-3)
    assert found.stderr == pytest.approx(sem(each), rel=1e-3)
    ends = {seed: z / np.linalg.norm(z, axis=1, keepdims=True) for seed, z in
            ((seed, numbers.normal(size=(400, 6))) for seed in (1, 2))}  # fmt: skip
    found = path_length(material(ends, np.eye(6)))["path_length"]
    angles = np.arccos((ends[1] * ends[2]).sum(axis=1))
    assert isinstance(found, Value) and found.value == pytest.approx(np.square(angles).mean(), rel=1e-3)


def test_the_signal_to_noise_of_a_known_error_is_its_logarithm(numbers: np.random.Generator) -> None:
    images = numbers.uniform(0.2, 0.8, (5, 16, 16, 1))
    off = np.array([0.1, 0.01, 0.2, 0.05, 0.001])
    sign = np.where(numbers.random(images.shape) < 0.5, -1, 1)
    run = SimpleNamespace(
        choose_images=lambda part, n: np.arange(5), images=lambda chosen: images[chosen], labels=lambda chosen: None,
        condition_of_labels=lambda labels: None, reconstruct=lambda x, condition: x + sign * off[:, None, None, None],
    )  # fmt: skip
    material: Any = SimpleNamespace(run=run, n=100, once=lambda name, make: make())
    found = {**fidelity(material), **errors(material)}
    signal, squared = found["psnr"], found["test_mse"]
    assert isinstance(signal, Value) and isinstance(squared, Value)
    assert signal.value == pytest.approx((-20 * np.log10(off)).mean()) == pytest.approx(30.0, abs=3)
    assert signal.stderr == pytest.approx(sem(-20 * np.log10(off)))
    assert squared.value == pytest.approx(np.square(off).mean())


def test_a_class_that_is_hardly_drawn_is_not_covered() -> None:
    said = np.repeat(np.arange(4), [700, 270, 25, 5])
    material: Any = SimpleNamespace(probabilities=np.eye(4)[said], space="numbers")
    found = covered(material)
    # A tenth of an even draw of 250.
    assert isinstance(found["classes_covered"], Value) and found["classes_covered"].value == 3
    shares = np.array([0.7, 0.27, 0.025, 0.005])
    assert isinstance(found["class_entropy"], Value)
    assert found["class_entropy"].value == pytest.approx(entropy(shares, base=4))


def test_the_test_of_copying_is_that_of_mann_and_whitney(numbers: np.random.Generator) -> None:
    a, b = numbers.normal(size=60), numbers.normal(0.3, 1, 80)
    statistic = mannwhitneyu(a, b).statistic
    value, stderr = nearer(a, b)
    assert value == pytest.approx(1 - statistic / (60 * 80))
    assert abs(nearer(numbers.normal(size=4000), numbers.normal(size=4000))[0] - 0.5) < 4 * stderr


def test_the_jackknife_of_a_mean_is_its_standard_error(numbers: np.random.Generator) -> None:
    x = numbers.normal(size=5000)
    found = jackknife(50, len(x), lambda chosen: float(x[chosen].mean()))
    assert found == pytest.approx(x.std() / np.sqrt(len(x)), rel=0.25)


def test_mutual_information_of_equals_and_of_strangers(numbers: np.random.Generator) -> None:
    a = np.arange(10_000) % 10
    assert mutual_information(a, a) == pytest.approx(np.log(10))
    assert mutual_information(a, (a * 7) % 10) == pytest.approx(np.log(10))
    assert mutual_information(a, numbers.integers(0, 10, 10_000)) < 0.01


def test_equal_sets_are_at_no_distance(numbers: np.random.Generator) -> None:
    x = numbers.normal(size=(1000, 8))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert squared_discrepancy(x, x) < 0, "the unbiased estimate leaves out pairs of equals within, not between"
    found = neighbourhoods(x, x)
    assert found["precision"].all() and found["recall"].all() and found["coverage"].all()


def test_a_generator_that_repeats_ten_images_is_caught(numbers: np.random.Generator) -> None:
    images = numbers.normal(size=(2000, 8))
    honest = numbers.normal(size=(2000, 8))
    repeated = images[np.arange(2000) % 10] + numbers.normal(0, 1e-4, (2000, 8))
    good, bad = neighbourhoods(honest, images), neighbourhoods(repeated, images)
    assert good["recall"].mean() > 0.9 > 0.1 > bad["recall"].mean()
    assert good["coverage"].mean() > 0.9 > 0.1 > bad["coverage"].mean()
    assert bad["precision"].mean() == 1, "precision alone does not see it"
    assert support(honest, images) > 300_000
    assert support(repeated, images) == pytest.approx(10, rel=0.2)
    for samples, bound in ((honest, True), (repeated, False)):
        material: Any = SimpleNamespace(sample_features=samples, reference_features=images, space="numbers")
        assert different(material)["support"].at_least is bound
    assert frechet_distance(repeated, images) > 20 * frechet_distance(honest, images)
    assert kernel_distance(repeated, images)[0] > 10 * kernel_distance(honest, images)[1]
    # In pixels: pairs of samples of one class are as good as equal.
    shapes = numbers.uniform(size=(10, 16, 16, 1))
    drawn = shapes[np.arange(40) % 10]
    assert ms_ssim(drawn[:30], drawn[10:]).min() > 0.99 > 0.5 > ms_ssim(shapes[:5], shapes[5:]).max()


def test_a_generator_that_returns_training_images_is_caught(numbers: np.random.Generator) -> None:
    train, held_out = numbers.normal(size=(3000, 6)), numbers.normal(size=(1000, 6))
    honest, _ = nearer(*copying(numbers.normal(size=(1000, 6)), held_out, train))
    value, stderr = nearer(*copying(train[:1000] + numbers.normal(0, 0.01, (1000, 6)), held_out, train))
    assert abs(honest - 0.5) < 4 * stderr
    assert value > 0.99


def test_copies_and_very_bad_images_are_counted(numbers: np.random.Generator) -> None:
    """Of 1,000 samples a tenth are copies and a fifth are like no image; of the honest ones 1 % lie in either tail."""
    train, held_out = numbers.normal(size=(3000, 6)), numbers.normal(size=(1000, 6))
    samples = numbers.normal(size=(1000, 6))
    samples[:100], samples[100:300] = train[:100], 10
    suspects, outliers = tails(*copying(samples, held_out, train))
    assert suspects[:100].all() and outliers[100:300].all()
    assert max(suspects[100:].mean(), outliers[300:].mean()) < 0.03
    held_out[:50] = train[:50]  # so that nothing is nearer than new images may be
    suspects, _ = tails(*copying(samples, held_out, train))
    assert suspects[:100].all() and not suspects[100:].any()


@pytest.mark.slow
def test_the_importance_bound_reaches_the_exact_likelihood_of_a_linear_vae(tmp_path: Path) -> None:
    """p(x) of x = W z + b + noise is normal with covariance W W^T + s^2, whatever the encoder says."""
    settings = {
        "model.latent": 2, "model.reconstruction": "gaussian",
        "networks.encoder.layers": ["flatten", "dense 4"], "networks.encoder.heads": {},
        "networks.decoder.layers": ["dense 256", "reshape 1x16x16"],
    }  # fmt: skip
    run = zeuxis.train("digits-vae", steps=300, settings=settings, runs=tmp_path, progress=False)
    images = run.test_images(40)[0]
    found = bounds(run, images, None, samples=2000)
    exact = linear_likelihood(run, images, np.zeros(2), np.eye(2))
    assert found[:, 1].mean() == pytest.approx(exact.mean(), abs=0.2)
    assert (found[:, 0] < exact + 0.5).all() and found[:, 0].mean() < found[:, 1].mean()
    # Bits per dimension: of bytes, in 256 steps.
    material = Material(run, samples=100)
    exact = linear_likelihood(run, run.images(run.choose_images("test", 100)), np.zeros(2), np.eye(2))
    value = bits(material)["bits_per_dimension"]
    assert isinstance(value, Value) and value.value == pytest.approx(8 - exact.mean() / 256 / np.log(2), abs=0.02)
    # In -1..1 pixels are twice as far apart, so their density is 2^-256 of that in 0..1, and the bytes are as likely.
    recipe = run.recipe.updated({"data.range": "-1..1"})
    found = material.once("bounds", lambda: np.zeros(0)) - 256 * np.log(2)
    wide: Any = SimpleNamespace(run=SimpleNamespace(model=run.model, recipe=recipe), once=lambda name, make: found)
    assert bits(wide)["bits_per_dimension"] == pytest.approx(value)
    # Active latents: of two, one whose mean hardly moves.
    with torch.no_grad():
        encoder = run.model.net("encoder").trunk[1]
        encoder.weight[0] *= 1e-4
        encoder.weight[1] *= 10
    chosen = run.images(run.choose_images("test", 100))
    spread = run.encode(chosen).var(axis=0, ddof=1)
    assert spread[0] < 0.01 < spread[1]
    active = latents(Material(run, samples=100))["active_latents"]
    assert isinstance(active, Value) and active.value == 1


def two_stage(latent: int, layers: list[str]) -> TwoStageVAE:
    """A two-stage VAE with a prior of these layers, whose weights are as they were drawn."""
    recipe = load_recipe("modern-vae-28", {"model.latent": latent, "networks.prior.layers": layers})
    model = build_model(recipe, None).eval()
    assert isinstance(model, TwoStageVAE)
    return model


def linear_prior(model: TwoStageVAE, numbers: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sets the velocity to A z + b; returns the mean and the covariance of the latents that it carries N(0, 1) to."""
    size = model.options.latent
    a, b = numbers.normal(0, 0.5, (size, size)), numbers.normal(size=size)
    with torch.no_grad():
        dense = model.net("prior").trunk[0]
        dense.weight.zero_()[:, :size] = torch.from_numpy(a)
        dense.bias.copy_(torch.from_numpy(b))
    moved = expm(a)
    return np.linalg.solve(a, (moved - np.eye(size)) @ b), moved @ moved.T


def test_the_density_of_a_learned_prior_is_the_closed_form_of_a_linear_flow(numbers: np.random.Generator) -> None:
    model = two_stage(3, ["dense latent"])
    exact = multivariate_normal(*linear_prior(model, numbers))
    z = model.sample_latents(500, torch.Generator().manual_seed(0))
    found = model.log_prior(z, torch.Generator()).numpy()
    # 32 midpoint steps: an error of the order of their square.
    assert found == pytest.approx(exact.logpdf(z.numpy()), abs=5e-3)
    assert -found.mean() == pytest.approx(exact.entropy(), abs=0.2), "samples are draws from that density"
    assert not z.requires_grad and all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("latent", [1, 2])
def test_the_density_of_a_learned_prior_integrates_to_one(latent: int) -> None:
    model = two_stage(latent, ["dense 32", "silu", "dense 32", "silu", "dense latent"])
    with torch.no_grad():
        model.net("prior").trunk[0].weight.mul_(3)
        model.net("prior").trunk[-1].weight.mul_(3)
    place = torch.linspace(-9, 9, 91)
    z = torch.cartesian_prod(*[place] * latent).view(-1, latent)
    density = model.log_prior(z, torch.Generator()).exp()
    assert density.sum().item() * 0.2**latent == pytest.approx(1, abs=5e-3)
    normal = multivariate_normal(np.zeros(latent)).pdf(z.numpy())
    assert np.abs(density.numpy() - normal).max() > 0.02, "and it is not N(0, 1)"


def test_the_density_of_many_latents_is_estimated_without_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    model = two_stage(4, ["dense 32", "silu", "dense latent"])
    z = model.sample_latents(3, torch.Generator().manual_seed(0))
    exact = model.log_prior(z, torch.Generator())
    monkeypatch.setattr("zeuxis.models.two_stage_vae.EXACT", 3)
    assert model.prior_density == "estimated"
    found = model.log_prior(z.repeat(2000, 1), torch.Generator().manual_seed(0)).view(2000, 3)
    error = found.std(dim=0) / 2000**0.5
    assert (error > 0).all() and ((found.mean(dim=0) - exact).abs() < 4 * error).all()


@pytest.mark.slow
def test_the_likelihood_of_a_two_stage_vae_is_of_the_prior_it_samples_from(
    tmp_path: Path, numbers: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With z normal and x = W z + b + noise, x is normal too; with N(0, 1) in place of the prior it is another one."""
    settings = {
        "data.source": "digits", "data.size": 16, "model.latent": 2,
        "networks.encoder.layers": ["flatten", "dense 4"], "networks.encoder.heads": {},
        "networks.decoder.layers": ["dense 256", "reshape 1x16x16"], "networks.prior.layers": ["dense latent"],
    }  # fmt: skip
    run = zeuxis.train("modern-vae-28", steps=100, settings=settings, runs=tmp_path, progress=False)
    model = run.model
    assert isinstance(model, TwoStageVAE) and isinstance(model, HasLikelihood)
    mean, covariance = linear_prior(model, numbers)
    images = run.test_images(40)[0]
    found = bounds(run, images, None, samples=2000)
    exact, wrong = (linear_likelihood(run, images, m, c) for m, c in ((mean, covariance), (np.zeros(2), np.eye(2))))
    assert abs(exact.mean() - wrong.mean()) > 1
    assert found[:, 1].mean() == pytest.approx(exact.mean(), abs=0.2)
    assert (found[:, 0] < exact + 0.5).all()
    # The divergence of posterior and prior, both normal.
    chosen = run.choose_images("test", 300)
    posterior = run.posterior(run.images(chosen))
    spread = np.exp(posterior.logvar.numpy())
    inverse, away = np.linalg.inv(covariance), posterior.mean.numpy() - mean
    each = 0.5 * (
        spread @ np.diag(inverse) + np.einsum("ni,ij,nj->n", away, inverse, away) - 2
        + np.linalg.slogdet(covariance)[1] - np.log(spread).sum(axis=1)
    )  # fmt: skip
    kl = latents(Material(run, samples=300))["kl"]
    assert isinstance(kl, Value) and kl.stderr is not None
    assert kl.value == pytest.approx(each.mean(), abs=4 * kl.stderr)
    # An estimated density gives the ELBO and no bound.
    monkeypatch.setattr("zeuxis.models.two_stage_vae.EXACT", 1)
    written = evaluate(run, samples=100, only=["elbo", "bits_per_dimension"], progress=False)
    assert "elbo" in written["measures"] and set(written["left_out"]) == {"importance_bound", "bits_per_dimension"}


def linear_likelihood(run: Run, images: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log p(x) `(N,)` of a run with one dense layer for a decoder, for a normal prior."""
    decoder = run.model.net("decoder")
    weight, bias = (each.detach().double().numpy() for each in (decoder.trunk[0].weight, decoder.trunk[0].bias))
    variance = float(torch.exp(-6 + torch.nn.functional.softplus(decoder.log_variance.detach() + 6)))
    spread = weight @ covariance @ weight.T + variance * np.eye(len(bias))
    log_density: np.ndarray = multivariate_normal(weight @ mean + bias, spread).logpdf(images.reshape(len(images), -1))
    return log_density


def test_only_what_is_better_than_all_others_is_marked() -> None:
    def found(fid: tuple[float, float], features: str = "mnist-cnn") -> dict[str, object]:
        each = {"value": fid[0], "stderr": fid[1], "n": 100, "features": features}
        return {"measures": {"fid": each, "precision": {**each, "value": 1 - fid[0] / 100}}}

    rows = {row.name: row for row in ranked([found((9, 0.5)), found((12, 0.5)), found((30, 2)), None])}
    assert [cell.rank for cell in rows["fid"].cells] == [1, 2, 3, None]
    assert [cell.best for cell in rows["fid"].cells] == [True, False, False, False]
    assert [cell.rank for cell in rows["precision"].cells] == [1, 2, 3, None]
    rows = {row.name: row for row in ranked([found((9, 1)), found((11.5, 1))])}
    assert not any(cell.best for cell in rows["fid"].cells), "2.5 is not twice their error of 1.41"
    assert mean_ranks(list(rows.values())) == [1.0, 2.0]
    assert marks([Value(9, 1, 100), Value(12, 1, 100)]) == [True, False]
    assert not any(marks([Value(9, 1, 100), Value(12, 1, 100), Value(12, 1, 100)])), "of two, one must be below 0.025"
    assert not any(marks([Value(9, 1, 100, groups=3), Value(12, 1, 100, groups=3)])), "errors that three parts gave"
    assert not any(marks([Value(9, None, 100), Value(12, 1, 100)])), "an error that is not known"
    assert not any(marks([Value(9, 1, 100), Value(12, 1, 1)])) and not any(marks([Value(9, 0, 9), Value(9, 0, 9)]))
    told = conclusions(ranked([found((12, 0.5)), found((9, 0.5)), found((9.2, 0.5)), found((30, 2))]), "abcd")
    assert told == ["Nearest to the images: b (9.00 ± 0.50), not distinguishable from c (9.20 ± 0.50); "
                    "then a (12.00 ± 0.50)."]  # fmt: skip
    assert conclusions(ranked([found((9, 0.5)), found((12, 0.5)), None]), "abc") == [
        "Nearest to the images: a (9.00 ± 0.50); then b (12.00 ± 0.50)."
    ]
    other = ranked([found((9, 0.1)), found((12, 0.1), "digits-cnn")])
    assert conclusions(other, "ab") == []
    assert [(row.name, row.features) for row in other] == [
        (name, features) for name in ("fid", "precision") for features in ("mnist-cnn", "digits-cnn")
    ]
    assert not any(cell.best or cell.rank for row in other for cell in row.cells), "nothing to compare with"


def marks(values: list[Value]) -> list[bool]:
    """Which of several runs is marked, as of their values of one measure, the lower the better."""
    rows = ranked([{"measures": {"fid": value._asdict()}} for value in values])
    return [cell.best for cell in rows[0].cells]


@pytest.mark.parametrize(("runs", "repeats"), [(2, 0), (2, 5), (4, 0), (4, 5), (8, 3)])
def test_runs_that_do_not_differ_are_seldom_marked_and_those_that_do_are(
    runs: int, repeats: int, numbers: np.random.Generator
) -> None:
    """Of 400 rows, with errors that come from 1,000 samples, or from repeats that differ in their spread."""
    tables = 400
    spread = numbers.uniform(0.5, 2, runs)

    def share(middles: np.ndarray) -> float:
        marked = 0
        for _ in range(tables):
            if repeats:
                drawn = numbers.normal(middles, spread, (repeats, runs))
                errors, n = drawn.std(axis=0, ddof=1) / repeats**0.5, repeats
                means = drawn.mean(axis=0)
            else:
                means, errors, n = numbers.normal(middles, spread), spread, 1000
            found = marks([Value(mean, error, n) for mean, error in zip(means.tolist(), errors.tolist(), strict=True)])
            marked += any(found)
        return marked / tables

    # Twice the standard error of a share of 400 above 5 in 100.
    assert share(np.zeros(runs)) <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5
    assert share(np.array([-25.0, *np.zeros(runs - 1)])) > 0.95


def test_latents_that_are_the_factors_are_disentangled_and_noise_is_not(numbers: np.random.Generator) -> None:
    factors = np.stack([numbers.integers(0, k, 2000) for k in (3, 4, 5)], axis=1)
    latents = np.column_stack([factors[:, 2] * -0.5, numbers.normal(size=2000) * 1e-9, factors[:, :2] + 0.25])
    assert mutual_information_gap(latents, factors) == pytest.approx(1, abs=0.02)
    found = dci(latents, factors)
    assert found == pytest.approx((1, 1, 1), abs=0.02)
    noise = numbers.normal(size=(2000, 4))
    assert mutual_information_gap(noise, factors) < 0.02
    found = dci(noise, factors)
    assert found.disentanglement < 0.02 and found.completeness < 0.02
    assert found.informativeness == pytest.approx(np.mean([1 / 3, 1 / 4, 1 / 5]), abs=0.05)
    turned = latents[:, [0, 2, 3]] @ np.linalg.qr(numbers.normal(size=(3, 3)))[0]
    assert mutual_information_gap(turned, factors) < 0.5 and dci(turned, factors).disentanglement < 0.7
    assert mutual_information_gap(np.repeat(latents, 2, axis=1), factors) == pytest.approx(0, abs=0.01), "held twice"


def test_errors_do_not_hang_on_the_order_of_samples(numbers: np.random.Generator) -> None:
    """A conditional model is asked for its classes in turn: to leave out every tenth would be to leave out a class."""
    middles = numbers.normal(size=(10, 6)) * 3

    def drawn(n: int) -> np.ndarray:
        return middles[np.arange(n) % 10] + numbers.normal(size=(n, 6))

    real = Moments.of(drawn(20_000))
    spread = np.std([frechet_between(Moments.of(drawn(1000)), real) for _ in range(30)])
    x = drawn(1000)
    # Not as small as the spread, which classes drawn evenly make less; but nothing like 400 times as large.
    assert spread < jackknife(10, len(x), lambda chosen: frechet_between(Moments.of(x[chosen]), real)) < 8 * spread


def test_repeats_are_pooled_with_the_spread_between_them() -> None:
    def found(value: float, stderr: float = 0.1) -> dict[str, object]:
        return {"measures": {"fid": {"value": value, "stderr": stderr, "n": 100, "features": "mnist-cnn"}}}

    one, other = pooled([found(9.0), found(10.0), found(11.0)]), pooled([found(12.0), found(13.0), found(14.0)])
    assert one is not None and other is not None
    assert one["measures"]["fid"]["value"] == 10.0
    assert one["measures"]["fid"]["stderr"] == pytest.approx(1 / np.sqrt(3))
    close = pooled([found(11.0), found(12.0), found(13.0)])
    assert ttest_ind([9, 10, 11], [12, 13, 14], equal_var=False).pvalue < 0.05
    assert ttest_ind([9, 10, 11], [11, 12, 13], equal_var=False).pvalue > 0.05
    assert ranked([one, other])[0].cells[0].best and not ranked([one, close])[0].cells[0].best
    alike = pooled([found(9.0, 0.6), found(9.0, 0.6)])
    assert alike is not None and alike["measures"]["fid"]["stderr"] == pytest.approx(0.6 / np.sqrt(2))
    assert pooled([found(9.0), None]) is None and pooled([found(9.0)]) == found(9.0)
    same = pooled([found(9.0, 0.0), found(9.0, 0.0)])
    assert same is not None and same["measures"]["fid"]["stderr"] == 0
    rounded = pooled([found(0.2, 0.0), found(0.2 + 3e-17, 1e-18)])
    assert rounded is not None and with_error(Value(**rounded["measures"]["fid"])) == "0.2 ± 0"
    assert not ranked([same, pooled([found(10.0, 0.0), found(10.0, 0.0)])])[0].cells[0].best


def test_one_image_for_all_latents_is_never_the_best() -> None:
    def found(length: float, support: float) -> dict[str, object]:
        return {"measures": {"path_length": Value(length, 0.1, 100)._asdict(), "support": Value(support)._asdict()}}

    rows = {row.name: row for row in ranked([found(2.0, 1.00004), found(20.0, 40.0), found(30.0, 40.0)])}
    assert not any(cell.best for cell in rows["path_length"].cells)
    assert unvaried(list(rows.values()), ["a", "b", "c"]) == ["a"]
    rows = {row.name: row for row in ranked([found(2.0, 2.5), found(20.0, 40.0)])}
    assert rows["path_length"].cells[0].best and not unvaried(list(rows.values()), ["a", "b"])


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (82.31, 15.2, "82 ± 15"), (1.2345, 0.1, "1.23 ± 0.10"), (12345.6, 1234.0, "12,300 ± 1,200"),
        (-1e-7, 0.5, "0.00 ± 0.50"), (9.413e-7, 6.3e-8, "9.413e-07 ± 6.3e-08"), (5.0, 0.0996, "5.00 ± 0.10"),
        (8.5, None, "8.5"), (0.98, 0.0, "0.98 ± 0"),
    ],
)  # fmt: skip
def test_a_value_has_the_digits_of_its_error(value: float, stderr: float | None, text: str) -> None:
    assert with_error(Value(value, stderr)) == text
