"""A GAN's second discriminator: its loss, when it joins, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zeuxis
from zeuxis.data import Batch, to_bytes
from zeuxis.errors import UserError
from zeuxis.evaluation.cost import sampling_multiply_adds
from zeuxis.evaluation.evaluate import evaluate_cached, read_evaluation
from zeuxis.evaluation.measure import Material
from zeuxis.export.hub import card
from zeuxis.export.parts import generator_facts
from zeuxis.figures import FIGURES
from zeuxis.models import Iteration, build_model
from zeuxis.models.base import Weighted, total
from zeuxis.models.gan import GAN
from zeuxis.recipe import load_recipe
from zeuxis.run import Run
from zeuxis.studio import trials
from zeuxis.training.checkpoint import Checkpoint, checkpoints

LAYERS = {"networks.second_discriminator.layers": ["flatten", "dense 3"]}
SMALL = {**LAYERS, "training.batch_size": 16, "training.log_every": 1, "training.threads": 1}


def gan(name: str = "digits-gan", **settings: Any) -> GAN:
    model = build_model(load_recipe(name, {**LAYERS, **settings}), tuple("0123456789"))
    assert isinstance(model, GAN)
    return model


def iteration(due: frozenset[str] | None = None) -> Iteration:
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = Batch(images, torch.arange(6))
    return Iteration(torch.zeros(()), torch.Generator().manual_seed(2), torch.device("cpu"), 6, lambda: batch, due=due)


def losses_of(run: Run, name: str) -> list[int]:
    return [line["step"] for line in run.journal if name in line]


def weights(folder: Path, step: int, network: str) -> dict[str, torch.Tensor]:
    path = next(path for path in checkpoints(folder / "checkpoints") if f"{step:08d}" in path.name)
    return Checkpoint.read(path).part(f"networks/{network}.")


def test_its_loss_is_the_hinge_loss_whatever_the_first_ones_is() -> None:
    model = gan(**{"model.second_weight": 0.25}).eval()
    phases = {phase.name: phase for phase in model.phases}
    assert list(phases) == ["discriminator", "second_discriminator", "generator"]
    assert phases["second_discriminator"].updates == ("second_discriminator",)
    step = iteration()
    terms = phases["second_discriminator"].loss(step)
    second = model.net("second_discriminator")
    on_real, on_fake = second(step.images).logits, second(model.fakes(step)).logits
    assert on_real.shape == (6, 3)
    torch.testing.assert_close(terms["real"], F.relu(1 - on_real).mean())
    torch.testing.assert_close(terms["fake"], F.relu(1 + on_fake).mean())
    of_generator = phases["generator"].loss(step)
    first = F.softplus(-model.net("discriminator")(model.fakes(step)).logits).mean()
    torch.testing.assert_close(total(of_generator), first - 0.25 * on_fake.mean())
    added = of_generator["second_discriminator"]
    assert isinstance(added, Weighted) and added.weight == 0.25


def test_it_may_see_a_share_of_the_batch() -> None:
    model = gan("digits-cgan", **{"model.second_share": 0.5}).eval()
    phases = {phase.name: phase for phase in model.phases}
    step = iteration()
    terms = phases["second_discriminator"].loss(step)
    condition = model.condition(step)
    assert condition is not None
    on_real = model.second_scores(step.images[:3], condition[:3])
    on_fake = model.second_scores(model.fakes(step)[:3], condition[:3])
    torch.testing.assert_close(terms["real"], F.relu(1 - on_real).mean())
    torch.testing.assert_close(terms["fake"], F.relu(1 + on_fake).mean())
    added = phases["generator"].loss(step)["second_discriminator"]
    assert isinstance(added, Weighted)
    torch.testing.assert_close(added.value, -on_fake.mean())


def test_it_sees_augmented_images_and_the_condition() -> None:
    model = gan("digits-cgan", **{"model.augmentation": ["cutout"]}).eval()
    step = iteration()
    terms = {phase.name: phase for phase in model.phases}["second_discriminator"].loss(step)
    assert model.net("second_discriminator").conditioning.condition == 10
    plain = model.second_scores(step.images, model.condition(step))
    assert not torch.allclose(terms["real"], F.relu(1 - plain).mean())


def test_the_generator_does_not_hear_it_before_it_joins() -> None:
    model = gan()
    generator = model.phases[-1]
    assert set(generator.loss(iteration(frozenset({"discriminator", "generator"})))) == {"adversarial"}
    assert set(generator.loss(iteration(frozenset({"second_discriminator"})))) == {
        "adversarial",
        "second_discriminator",
    }


def test_it_joins_after_a_share_of_the_training(tmp_path: Path) -> None:
    run = zeuxis.train(
        "digits-gan", steps=8, runs=tmp_path, progress=False,
        settings={**SMALL, "model.second_after": 0.5, "training.checkpoint_every": "1 step"},
    )  # fmt: skip
    assert losses_of(run, "discriminator/loss") == list(range(1, 9))
    assert losses_of(run, "second_discriminator/loss") == [5, 6, 7, 8]


def test_it_learns_only_from_then_on_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    settings = {**SMALL, "model.second_after": 0.5, "training.checkpoint_every": "4 steps"}
    whole = zeuxis.train("digits-gan", steps=8, runs=tmp_path, progress=False, settings=settings)
    second = whole.path.with_name("again")
    shutil.copytree(whole.path, second)
    for path in checkpoints(second / "checkpoints"):
        if path.name > "step-00000004.safetensors":
            path.unlink()
    start = weights(second, 4, "second_discriminator")
    fresh = build_model(whole.recipe, whole.classes).net("second_discriminator").state_dict()
    assert start and all(torch.equal(start[key], fresh[key]) for key in fresh)
    part = zeuxis.resume(second, progress=False)
    assert len(part.journal) == 8
    for network in ("generator", "discriminator", "second_discriminator"):
        ours, theirs = weights(part.path, 8, network), weights(whole.path, 8, network)
        assert ours and all(torch.equal(ours[key], theirs[key]) for key in ours)
    after = weights(part.path, 8, "second_discriminator")
    assert any(not torch.equal(after[key], start[key]) for key in start)


@pytest.mark.parametrize("name", ["digits-gan", "digits-cgan"])
def test_a_sample_is_the_best_of_several(name: str, tmp_path: Path) -> None:
    run = zeuxis.train(name, steps=4, settings=SMALL, runs=tmp_path, progress=False)
    plain = run.sample(6, seed=3)
    latents = run.latents(24, 3)
    condition = run.in_turn(6)
    every = run.decode(latents, None if condition is None else np.repeat(condition, 4, axis=0))
    run.configure(best_of=4)
    assert run.recipe_in_use.model.options["best_of"] == 4
    best = run.sample(6, seed=3)
    x = torch.from_numpy(every).permute(0, 3, 1, 2) * 2 - 1
    weights = None if condition is None else torch.from_numpy(np.repeat(condition, 4, axis=0)).float()
    with torch.no_grad():
        scores = run.model.net("second_discriminator")(x, condition=weights).logits.mean(dim=1)
    chosen = scores.reshape(6, 4).argmax(dim=1) + torch.arange(6) * 4
    np.testing.assert_allclose(best, every[chosen], atol=1e-6)
    np.testing.assert_allclose(run.sample(2, seed=3), best[:2], atol=1e-6)
    assert not np.allclose(best, plain)
    samples = Material(run, samples=100, seed=3).samples
    assert not np.array_equal(samples[:6], to_bytes(plain))
    run.configure(best_of=1)
    np.testing.assert_array_equal(run.sample(6, seed=3), plain)


def test_what_shows_samples_knows_that_they_are_chosen(tmp_path: Path) -> None:
    run = zeuxis.train("digits-gan", steps=2, settings=SMALL, runs=tmp_path, progress=False)
    once, second = sampling_multiply_adds(run), 3 * 256
    assert "as they came" in card(run) and "samples" not in generator_facts(run, "nhwc")
    run.configure(best_of=4)
    assert run.candidates == 4
    assert sampling_multiply_adds(run) == 4 * (once + second) + once
    assert "the best of 4 by a discriminator" in card(run)
    assert "the best of 4 images" in generator_facts(run, "nhwc")["samples"]
    assert FIGURES["samples"].draw(run).texts[0].get_text() == "Samples, each the best of 4"
    rows = trials._made(run, 6, np.random.default_rng(5))
    np.testing.assert_array_equal(rows, run.sample(6, seed=int(np.random.default_rng(5).integers(2**31))))


def test_an_evaluation_of_other_samples_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = zeuxis.train("digits-gan", steps=2, settings=SMALL, runs=tmp_path, progress=False)
    measured = {"samples": 100, "only": ["sharpness"], "progress": False}
    first = evaluate_cached(run, **measured)
    assert first["sampling"] == {"best_of": 1}
    assert evaluate_cached(Run(run.path), **measured) == first
    run.configure(best_of=4)
    assert read_evaluation(run) is None
    assert "it is of samples with best_of=1, not best_of=4." in capsys.readouterr().err
    assert evaluate_cached(run, **measured)["measures"] != first["measures"]
    again = Run(run.path)
    assert read_evaluation(again) is None
    assert evaluate_cached(again, **measured) == first


def test_a_selection_needs_what_its_discriminator_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = zeuxis.train("digits-gan", steps=2, settings=SMALL, runs=tmp_path, progress=False)
    run.configure(best_of=2)

    def missing(self: GAN) -> None:
        raise UserError("It needs a package that is not installed: pip install 'zeuxis[judge]'.")

    monkeypatch.setattr(GAN, "require_packages", missing)
    with pytest.raises(
        UserError, match=r"is the best of 2 images\. It needs .*judge\]'\. Or take the first .* best_of=1"
    ):
        run.sample(3)
    assert run.latents(3).shape == (3, 32), "latents as such are not chosen"


@pytest.mark.parametrize("name", ["digits-cgan", "mnist-acgan", "mnist-infogan", "mnist-wgan-gp"])
def test_other_gans_may_have_one(name: str) -> None:
    data = {"data.source": "digits", "data.size": 28}
    model = gan(name, **({} if name.startswith("digits") else data))
    assert "second_discriminator" in [phase.name for phase in model.phases]


def test_what_is_wrong_is_said() -> None:
    for option, value in (("second_after", 0.3), ("second_weight", 2.0), ("second_share", 0.5), ("best_of", 2)):
        with pytest.raises(
            UserError, match=rf"model\.{option} is for networks\.second_discriminator, which is missing"
        ):
            build_model(load_recipe("digits-gan", {f"model.{option}": value}))
    with pytest.raises(UserError, match=r"second_discriminator, the output must be scores, such as 'dense 1'"):
        gan(**{"networks.second_discriminator.layers": ["conv 4 k3"]})
    with pytest.raises(UserError, match="has no network 'second_discriminator'"):
        build_model(load_recipe("flowers-vae-gan-32", LAYERS))
