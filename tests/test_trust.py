"""Measures that can be trusted: each against a reference on the same arrays, and none that a cheat passes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, multivariate_normal

import zeuxis
from zeuxis.evaluation.classes import class_entropy, inception_score
from zeuxis.evaluation.control import mutual_information
from zeuxis.evaluation.disentanglement import dci, mutual_information_gap
from zeuxis.evaluation.frechet import Moments, extrapolated, frechet_between, frechet_distance
from zeuxis.evaluation.kernel import kernel_distance, squared_discrepancy
from zeuxis.evaluation.likelihood import bounds
from zeuxis.evaluation.measure import jackknife
from zeuxis.evaluation.memorisation import copying, nearer, tails
from zeuxis.evaluation.neighbourhoods import neighbourhoods
from zeuxis.evaluation.ranking import mean_ranks, pooled, ranked
from zeuxis.evaluation.similarity import WEIGHTS, ms_ssim, ssim
from zeuxis.evaluation.support import different, support


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
    # A grey image beside one that is brighter: alike but for the luminance, which the coarsest scale alone tells. At 24
    # pixels two scales fit, whose weights are scaled to sum to 1.
    luminance = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    grey = [np.full((1, 24, 24, 1), shade) for shade in (0.2, 0.8)]
    assert ms_ssim(*grey)[0] == pytest.approx(luminance ** (WEIGHTS[1] / sum(WEIGHTS[:2])), rel=1e-6)


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


def test_the_importance_bound_reaches_the_exact_likelihood_of_a_linear_vae(tmp_path: Path) -> None:
    """p(x) of x = W z + b + noise is normal with covariance W W^T + s^2, whatever the encoder says."""
    settings = {
        "model.latent": 2, "model.reconstruction": "gaussian",
        "networks.encoder.layers": ["flatten", "dense 4"], "networks.encoder.heads": {},
        "networks.decoder.layers": ["dense 256", "reshape 1x16x16"],
    }  # fmt: skip
    run = zeuxis.train("digits-vae", steps=300, settings=settings, runs=tmp_path, progress=False)
    images = run.test_images(40)[0]
    found = bounds(run, images, None, draws=2000)
    dense = run.model.net("decoder").trunk[0]
    weight, bias = dense.weight.detach().double().numpy(), dense.bias.detach().double().numpy()
    free = run.model.net("decoder").log_variance.detach()
    variance = float(torch.exp(-6 + torch.nn.functional.softplus(free + 6)))
    exact = multivariate_normal(bias, weight @ weight.T + variance * np.eye(256)).logpdf(images.reshape(40, 256))
    assert found[:, 1].mean() == pytest.approx(exact.mean(), abs=0.2)
    assert (found[:, 0] < exact + 0.5).all() and found[:, 0].mean() < found[:, 1].mean()


def test_only_what_is_surely_best_is_marked() -> None:
    def found(fid: tuple[float, float], features: str = "mnist-cnn") -> dict[str, object]:
        each = {"value": fid[0], "stderr": fid[1], "n": 100, "features": features}
        return {"measures": {"fid": each, "precision": {**each, "value": 1 - fid[0] / 100}}}

    rows = {row.name: row for row in ranked([found((9, 0.5)), found((12, 0.5)), found((30, 2)), None])}
    assert [cell.rank for cell in rows["fid"].cells] == [1, 2, 3, None]
    assert [cell.best for cell in rows["fid"].cells] == [True, False, False, False]
    assert [cell.rank for cell in rows["precision"].cells] == [1, 2, 3, None]
    rows = {row.name: row for row in ranked([found((9, 1)), found((12, 1))])}
    assert not any(cell.best for cell in rows["fid"].cells), "the intervals of 95 % overlap"
    assert mean_ranks(list(rows.values())) == [1.0, 2.0]
    other = ranked([found((9, 0.1)), found((12, 0.1), "digits-cnn")])
    assert [(row.name, row.features) for row in other] == [
        (name, features) for name in ("fid", "precision") for features in ("mnist-cnn", "digits-cnn")
    ]
    assert not any(cell.best or cell.rank for row in other for cell in row.cells), "nothing to compare with"


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
    assert not ranked([one, other])[0].cells[0].best, "by Student's width for three, 4.3, their intervals overlap"
    assert ranked([one, pooled([found(19.0), found(20.0), found(21.0)])])[0].cells[0].best
    alike = pooled([found(9.0, 0.6), found(9.0, 0.6)])
    assert alike is not None and alike["measures"]["fid"]["stderr"] == pytest.approx(0.6 / np.sqrt(2))
    assert pooled([found(9.0), None]) is None and pooled([found(9.0)]) == found(9.0)
    same = pooled([found(9.0, 0.0), found(9.0, 0.0)])
    assert same is not None and same["measures"]["fid"]["stderr"] is None
