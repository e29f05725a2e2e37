"""Flow matching: held against a distribution whose flow is known, and what options change."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from typer.testing import CliRunner

import zeuxis
from zeuxis.cli import app
from zeuxis.data import Batch
from zeuxis.errors import UserError
from zeuxis.evaluation.evaluate import evaluate
from zeuxis.models import Iteration, build_model
from zeuxis.models.base import HasDensity
from zeuxis.models.flow import ConditionalFlow, Flow, transport
from zeuxis.recipe import load_recipe

CLASSES = tuple("0123456789")
TRAINED = Path(zeuxis.__file__).parent / "pretrained" / "digits-vae"
MEAN, DEVIATION = 0.2, 0.3


def make(name: str = "modern-flow-28", **settings: object) -> Flow:
    chosen = {"data.source": "digits", "data.size": 16, "data.convert": True, "model.name": name} | settings
    if name == "flow":
        chosen["model.coupling"] = settings.get("model.coupling", "independent")
    recipe = load_recipe("digits-flow", chosen)
    model = build_model(recipe, CLASSES).eval()
    assert isinstance(model, Flow)
    return model


def iteration_on(images: Tensor, labels: Tensor | None = None, seed: int = 0) -> Iteration:
    batch = Batch(images, labels)
    generator = torch.Generator().manual_seed(seed)
    return Iteration(torch.zeros(()), generator, torch.device("cpu"), len(images), lambda: batch)


def normal_velocity(x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
    """The mean of x1 - x0 at x, where every pixel of x1 is normal."""
    t = time[:, :, None, None]
    slope = (t * DEVIATION**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * DEVIATION**2)
    return MEAN + slope * (x - t * MEAN)


@pytest.mark.parametrize("deviation", [0.5, 0.05, 0.02])
def test_the_density_of_flat_regions_is_found(deviation: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "DEVIATION", deviation)
    model = make("flow", **{"model.solver_steps": 1})
    monkeypatch.setattr(model, "velocity", normal_velocity)
    images = MEAN + deviation * torch.randn(20, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    nats = model.log_density(images, torch.Generator()) - Normal(MEAN, deviation).log_prob(images).sum(dim=(1, 2, 3))
    assert (nats / (16 * 16 * math.log(2))).abs().max() < 0.01, "bits per dimension"


def test_the_flow_of_a_normal_distribution_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("flow", **{"model.solver_steps": 100})
    monkeypatch.setattr(model, "velocity", normal_velocity)
    latents = model.sample_latents(20, torch.Generator().manual_seed(0))
    images = model.generate(latents)
    expected = (MEAN + DEVIATION * latents.view(20, 1, 16, 16)).clamp(-1, 1)
    torch.testing.assert_close(images, expected, atol=2e-3, rtol=0)
    # The velocity is a multiple of x, so the estimate of its divergence is exact.
    density = Normal(MEAN, DEVIATION).log_prob(expected).sum(dim=(1, 2, 3))
    torch.testing.assert_close(model.log_density(expected, torch.Generator()), density, atol=0.1, rtol=0)


def test_bits_per_dimension_are_those_of_the_density(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = zeuxis.train("digits-flow", steps=1, runs=tmp_path, progress=False)
    # A density of U(-1, 1) in each pixel gives a byte its 256th part: 8 bits.
    uniform = -16 * 16 * math.log(2)
    seen = []

    def log_density(images: Tensor, generator: torch.Generator, condition: Tensor | None = None) -> Tensor:
        seen.append(images)
        return torch.full((len(images),), uniform)

    monkeypatch.setattr(run.model, "log_density", log_density)
    images = run.images(run.dataset.test)
    found = evaluate(run, samples=100, only=["bits_per_dimension"], progress=False)["measures"]["bits_per_dimension"]
    assert found["value"] == pytest.approx(8.0, abs=1e-6)
    spread = torch.cat(seen)
    bytes_seen = torch.floor((spread + 1) * 128)
    assert bytes_seen.min() >= 0 and bytes_seen.max() <= 255
    assert {*bytes_seen.flatten().tolist()} <= {*np.rint(images * 255).flatten().tolist()}, "no byte leaves its step"


def test_the_mean_velocity_has_the_least_loss() -> None:
    torch.manual_seed(0)
    images = MEAN + DEVIATION * torch.randn(4000, 1, 16, 16)
    model = make("flow")
    losses = []
    for scale in (0.9, 1.0, 1.1):
        model.velocity = lambda x, t, c=None, scale=scale: scale * normal_velocity(x, t)  # type: ignore[method-assign]
        losses.append(model.flow_terms(iteration_on(images, seed=1))["flow"].item())
    assert losses[1] < min(losses[0], losses[2])


def test_transport_finds_the_shortest_pairing_within_each_class() -> None:
    torch.manual_seed(0)
    noise, images = torch.randn(6, 1, 2, 2), torch.randn(6, 1, 2, 2)
    distances = torch.cdist(images.flatten(1), noise.flatten(1)).square()

    def length(order: tuple[int, ...]) -> float:
        return float(sum(distances[i, j] for i, j in enumerate(order)))

    best = min(itertools.permutations(range(6)), key=length)
    assert tuple(transport(noise, images, None).tolist()) == best
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    order = transport(noise, images, labels)
    assert torch.equal(labels[order], labels), "noise stays with its class"
    within = [p for p in itertools.permutations(range(6)) if all((i - j) % 2 == 0 for i, j in enumerate(p))]
    assert tuple(order.tolist()) == min(within, key=length)


def test_coupling_shortens_the_lines() -> None:
    images = torch.rand(64, 1, 16, 16) * 2 - 1
    lengths = []
    for coupling in ("independent", "optimal-transport"):
        noise, paired = make("flow", **{"model.coupling": coupling}).pairs(iteration_on(images))
        assert torch.equal(paired, images)
        lengths.append((paired - noise).square().mean().item())
    assert lengths[1] < lengths[0]


@pytest.mark.parametrize(("times", "quartile"), [("uniform", 0.25), ("logit-normal", 0.3375)])
def test_times_are_sampled_as_the_recipe_says(times: str, quartile: float) -> None:
    model = make("flow", **{"model.times": times})
    sampled = model.times(iteration_on(torch.zeros(1, 1, 16, 16)), 20_000)
    assert sampled.shape == (20_000, 1) and sampled.min() > 0 and sampled.max() < 1
    assert torch.quantile(sampled, 0.25).item() == pytest.approx(quartile, abs=0.01)


def test_the_condition_is_left_out_of_a_share_of_the_images() -> None:
    model = make("conditional-flow", **{"model.drop_condition": 0.25})
    labels = torch.arange(4000) % 10
    dropped = model.dropped(iteration_on(torch.zeros(4000, 1, 16, 16), labels))
    assert dropped is not None and dropped.shape == (4000, 11)
    present = dropped[:, -1] == 1
    assert 0.22 < 1 - present.float().mean().item() < 0.28
    assert torch.equal(dropped[present, :10].argmax(dim=1), labels[present])
    assert not dropped[~present].any(), "nothing is left of the class"


def test_guidance_follows_the_difference_of_the_two_velocities() -> None:
    condition = torch.eye(10)[:3]
    x, time = torch.randn(3, 1, 16, 16), torch.full((3, 1), 0.5)
    model = make("conditional-flow", **{"model.guidance": 3.0})
    assert isinstance(model, ConditionalFlow)
    asked = model.velocity(x, time, torch.cat([condition, torch.ones(3, 1)], dim=1))
    free = model.velocity(x, time, torch.zeros(3, 11))
    torch.testing.assert_close(model.guided(condition)(x, time), free + 3 * (asked - free), atol=1e-4, rtol=1e-4)
    plain = make("conditional-flow")
    torch.testing.assert_close(plain.guided(condition)(x, time), asked, atol=1e-5, rtol=1e-5)
    densities = [m.log_density(x, torch.Generator().manual_seed(0), condition) for m in (model, plain)]
    torch.testing.assert_close(*densities, msg="the density is that of what was learned")


def test_a_trained_run_samples_with_other_options(tmp_path: Path) -> None:
    run = zeuxis.train("digits-flow", steps=1, runs=tmp_path, progress=False)
    before = run.sample(4)
    run.configure(solver="euler", solver_steps=2)
    assert np.abs(run.sample(4) - before).max() > 1e-3
    run.configure(solver="midpoint", solver_steps=6)
    np.testing.assert_allclose(run.sample(4), before, atol=1e-6)
    with pytest.raises(UserError, match=r"no option for sampling 'guidence'. Did you mean 'guidance'\?"):
        run.configure(guidence=2)
    with pytest.raises(UserError, match=r"model.solver_steps should be greater than or equal to 1, not 0"):
        run.configure(solver_steps=0)
    gan = zeuxis.train("digits-gan", steps=1, runs=tmp_path, progress=False)
    with pytest.raises(UserError, match="The model 'gan' has no options for sampling; drop guidance"):
        gan.configure(guidance=2)
    words = ["sample", str(run.path), "-n", "2", "--set", "guidance=2.5", "--set", "solver_steps=1"]
    assert CliRunner().invoke(app, words).exit_code == 0


def test_wrong_solvers_are_named() -> None:
    with pytest.raises(UserError, match=r"There is no solver 'huen'. Did you mean 'heun'\?"):
        make("flow", **{"model.solver": "huen"})


def test_a_trained_flow_draws_what_it_is_asked_for(tmp_path: Path) -> None:
    """Half a minute: classes by their mean images."""
    settings = {"training.threads": 1, "data.size": 8}
    run = zeuxis.train("digits-flow", steps=350, settings=settings, runs=tmp_path, progress=False)
    samples = run.sample(100, seed=3)
    images, labels = run.images(run.dataset.train), run.labels(run.dataset.train)
    means = np.stack([images[labels == i].mean(axis=0) for i in range(10)])
    nearest = np.square(samples[:, None] - means).sum(axis=(2, 3, 4)).argmin(axis=1)
    assert (nearest == np.arange(100) % 10).mean() > 0.5, "chance is 0.1"
    assert math.isfinite(run.last("flow/flow") or math.nan)


def latent_flow(tmp_path: Path, name: str = "latent-flow", steps: int = 1) -> zeuxis.Run:
    """A flow on the two latents of a trained VAE, with a small dense network."""
    velocity = {"layers": ["dense 64", "silu", "dense 64", "silu", "dense latent"]}
    settings = {
        "model.name": name, "model.autoencoder": str(TRAINED), "networks.velocity": velocity,
        "training.batch_size": 128, "training.ema": 0.99, "training.optimizer.learning_rate": 3e-3,
    }  # fmt: skip
    return zeuxis.train("modern-latent-flow-64", steps=steps, settings=settings, runs=tmp_path, progress=False)


def test_a_latent_flow_finds_the_latents_of_its_autoencoder(tmp_path: Path) -> None:
    """Nearer to the encoded images than the prior that the VAE itself samples from."""
    vae, run = zeuxis.load(TRAINED), latent_flow(tmp_path, steps=300)
    for network in ("encoder", "decoder"):
        for key, weights in vae.model.net(network).state_dict().items():
            assert torch.equal(run.model.net(network).state_dict()[key], weights), "they stay as they were trained"
    encoded = torch.from_numpy(vae.encode(vae.images(vae.dataset.train)))
    noise = torch.from_numpy(run.latents(1000))
    with torch.no_grad():
        carried = run.model.carried(noise, None)

    def energy(x: Tensor, y: Tensor) -> float:
        return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())

    assert energy(carried, encoded) < 0.6 * energy(noise, encoded)
    np.testing.assert_allclose(run.decode(noise[:4].numpy()), vae.decode(carried[:4].numpy()), atol=1e-5)
    assert not isinstance(run.model, HasDensity), "the density of its latents is none of images"


def test_a_conditional_latent_flow_takes_the_class(tmp_path: Path) -> None:
    run = latent_flow(tmp_path, "conditional-latent-flow", steps=300)
    latents = run.latents(400)
    carried = run.model.carried(torch.from_numpy(latents), torch.from_numpy(run.condition_of(["0"] * 400)))
    vae = zeuxis.load(TRAINED)
    images, labels = vae.test_images()
    encoded = vae.encode(images)
    means = [encoded[labels == digit].mean(axis=0) for digit in range(10)]
    distances = [float(np.linalg.norm(carried.detach().numpy().mean(axis=0) - mean)) for mean in means]
    assert np.argmin(distances) == 0


def test_a_latent_flow_names_the_run_that_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="Make it first: `zeuxis train modern-ae-64`, with --data for images of your own"
    ):
        zeuxis.train("modern-latent-flow-64", steps=1, runs=tmp_path, progress=False)
    with pytest.raises(UserError, match=r"no run 'modern-ae-96-1' in .* first: `zeuxis train modern-ae-64 --size 96`"):
        zeuxis.train("modern-latent-flow-64", steps=1, size=96, runs=tmp_path, progress=False)
    with pytest.raises(UserError, match=r"it is empty\. Train one first, such as `zeuxis train mnist-vae-z16`"):
        zeuxis.train("digits-flow", steps=1, settings={"model.name": "latent-flow"}, runs=tmp_path, progress=False)


def test_a_model_built_on_a_run_says_whose_images_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    velocity = {"layers": ["dense 64", "silu", "dense latent"]}
    settings = {"model.autoencoder": str(TRAINED), "networks.velocity": velocity}
    zeuxis.train("modern-latent-flow-64", steps=1, settings=settings, runs=tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert "The images are those of" in said and "on which it is built: digits, 16x16 grey" in said
