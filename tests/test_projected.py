"""The discriminator on maps of a network for photographs."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import zeuxis
from zeuxis.errors import UserError
from zeuxis.models import build_model
from zeuxis.nets import photographs
from zeuxis.nets.context import Context
from zeuxis.nets.layers import make_layer
from zeuxis.nets.photographs import efficientnet, installed, stages
from zeuxis.nets.projected import Projected
from zeuxis.recipe import load_recipe

pytestmark = pytest.mark.skipif(not installed(), reason="zeuxis[judge] is not installed")

OPTIONS = ["model.scores=5", "model.loss=hinge", "model.r1_penalty=0", "model.r2_penalty=0"]
ON_DIGITS = {
    "model.scores": 5,
    "model.loss": "hinge",
    "networks.discriminator.layers": ["projected 4 s32 unit"],
    "data.range": "0..1",
    "data.size": 16,
    "networks.generator.layers": ["dense 256", "reshape 1x16x16", "sigmoid"],
    "training.batch_size": 8,
}
LAYERS = 'networks.discriminator.layers=["projected 4 s64"]'


def projected(text: str = "projected 4 s64", channels: int = 3, embedding: int = 0) -> Projected:
    torch.manual_seed(1)
    module, shape = make_layer(text, (channels, 64, 64), {}, embedding=embedding)
    assert isinstance(module, Projected) and shape == (5,)
    return module


def test_the_coarsest_score_is_that_of_its_formula() -> None:
    module, images = projected().eval(), torch.rand(2, 3, 64, 64) * 2 - 1
    coarsest = [*stages((images + 1) / 2)][-1]
    assert coarsest.shape == (2, 320, 2, 2)
    mixed = F.conv2d(coarsest, module.mix4)
    weight = module.judges[4].last.weight
    assert weight.shape == (1, 64, 2, 2)
    torch.testing.assert_close(module(images, Context())[:, 4], torch.einsum("bchw,chw->b", mixed, weight[0]))


def test_a_finer_map_is_mixed_with_the_coarser_one() -> None:
    module, images = projected().eval(), torch.rand(2, 3, 64, 64) * 2 - 1
    fourth, fifth = [*stages((images + 1) / 2)][-2:]
    coarse = F.conv2d(F.conv2d(fifth, module.mix4), module.pass3)
    mixed = F.conv2d(fourth, module.mix3) + F.interpolate(coarse, (4, 4), mode="bilinear")
    smooth = F.conv2d(mixed / math.sqrt(2), module.smooth3, padding=1)
    score = torch.einsum("bchw,chw->b", smooth, module.judges[3].last.weight[0])
    torch.testing.assert_close(module(images, Context())[:, 3], score)


def test_images_get_gradients_and_the_fixed_parts_none() -> None:
    module, images = projected(), torch.rand(2, 3, 64, 64, requires_grad=True)
    module(images, Context()).sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in efficientnet().parameters())
    assert all(name.startswith("judges") for name, _ in module.named_parameters())
    assert all(name.startswith("judges") for name in module.state_dict()), "runs do not hold what is fixed"
    torch.manual_seed(2)
    again, _ = make_layer("projected 4 s64", (3, 64, 64), {})
    for name in ("mix0", "pass3", "smooth3"):
        assert torch.equal(module.get_buffer(name), again.get_buffer(name)), "and is the same in each"


def test_the_range_of_pixels_and_grey_images() -> None:
    grey = torch.rand(2, 1, 64, 64)
    signed, unit = projected().eval(), projected("projected 4 s64 unit").eval()
    torch.testing.assert_close(signed(grey * 2 - 1, Context()), unit(grey, Context()), rtol=1e-3, atol=1e-4)
    colour = grey.expand(-1, 3, -1, -1)
    torch.testing.assert_close(unit(colour, Context()), unit(grey, Context()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "side"), [(16, 16, 64), (64, 64, 64), (96, 80, 96), (65, 65, 96), (300, 9, 224)]
)
def test_images_are_shown_at_the_next_side_that_the_network_takes(height: int, width: int, side: int) -> None:
    module, _ = make_layer("projected 4", (3, height, width), {})
    assert isinstance(module, Projected) and module.side == side
    assert module(torch.rand(2, 3, height, width), Context()).shape == (2, 5)


def test_a_condition_weighs_the_features() -> None:
    module, images = projected(embedding=5).eval(), torch.rand(2, 3, 64, 64)
    one, other = (torch.randn(2, 5) for _ in range(2))
    scores = [module(images, Context(embedding=e)) for e in (one, other, one + other)]
    torch.testing.assert_close(scores[0] + scores[1], scores[2], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(scores[0], scores[1])


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("projected 4 s65", (3, 64, 64), "multiple of 32 up to 224, not 65"),
        ("projected 4", (64,), "needs an image"),
    ],
)
def test_wrong_specs(text: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_layer(text, shape, {})


def test_without_the_network_its_runs_are_used_but_not_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = zeuxis.train("digits-gan", steps=2, settings=ON_DIGITS, runs=tmp_path, progress=False)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setattr(photographs, "installed", lambda: False)
    efficientnet.cache_clear()
    assert zeuxis.load(run.path).sample(2).shape == (2, 16, 16, 1)
    with pytest.raises(UserError, match=r"needs a package.*pip install 'zeuxis\[judge\]'"):
        zeuxis.load(run.path).model.realness(torch.rand(1, 1, 16, 16))
    with pytest.raises(UserError, match=r"The discriminator 'projected' needs a package.*'zeuxis\[judge\]'"):
        zeuxis.train("digits-gan", steps=2, settings=ON_DIGITS, runs=tmp_path, name="second", progress=False)
    with pytest.raises(UserError, match=r"The discriminator 'projected' needs a package"):
        zeuxis.resume(run.path, steps=4, progress=False)
    assert not (tmp_path / "second").exists()


def test_the_number_of_scores_is_what_the_recipe_says() -> None:
    with pytest.raises(UserError, match="is 5, but real or fake needs 1"):
        build_model(load_recipe("modern-gan-64", [LAYERS]))
    with pytest.raises(UserError, match=r"is 1, but model\.scores needs 5"):
        build_model(load_recipe("modern-gan-64", OPTIONS))


def test_a_gan_trains_against_several_scores(tmp_path: Path) -> None:
    run = zeuxis.train("digits-gan", steps=6, settings=ON_DIGITS, runs=tmp_path, progress=False)
    before = build_model(load_recipe("digits-gan", [f"{k}={v}" for k, v in ON_DIGITS.items()]))
    images = torch.rand(3, 1, 8, 8)
    assert run.model.realness(images).shape == (3,)
    torch.testing.assert_close(run.model.realness(images), run.model.score(images, None)["real"].mean(dim=1))
    assert not torch.equal(before.net("generator").trunk[0].weight, run.model.net("generator").trunk[0].weight)
