"""The size as a setting: networks of every recipe follow from it, and nothing changes at a recipe's own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import zeuxis
from zeuxis.errors import UserError
from zeuxis.models import Encodes, Generates, build_model
from zeuxis.recipe import Size, load_recipe, recipe_names
from zeuxis.sizing import resized, velocity_layers

MODERN = [name for name in recipe_names() if name.startswith("modern-")]


@pytest.mark.parametrize("size", [32, 64, 96, 128])
@pytest.mark.parametrize("name", MODERN)
def test_every_modern_recipe_makes_images_of_every_size(name: str, size: int) -> None:
    recipe = resized(load_recipe(name), size)
    assert recipe.data.size == (size, size) and recipe.name == f"{name.rpartition('-')[0]}-{size}"
    model = build_model(recipe).eval()
    assert isinstance(model, Generates)
    latents = model.sample_latents(2, torch.Generator().manual_seed(1))
    with torch.no_grad():
        if isinstance(model, Encodes):
            images = torch.rand(2, *recipe.data.shape)
            assert model.encode(images, None).mean.shape == latents.shape
        if name.startswith("modern-flow"):
            assert model.net("velocity").output_shape == recipe.data.shape
        else:
            assert model.generate(latents, None).shape == (2, *recipe.data.shape)


@pytest.mark.parametrize("name", [name for name in recipe_names() if name not in MODERN])
def test_the_rule_reads_every_recipe_of_the_package(name: str) -> None:
    recipe = load_recipe(name)
    for size in (64, 96):
        build_model(resized(recipe, size))


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_at_its_own_size_is_itself(name: str) -> None:
    recipe = load_recipe(name)
    assert resized(recipe, recipe.data.size) == recipe
    if recipe.data.size.width in (32, 64) and "dense" not in " ".join(
        recipe.networks[next(iter(recipe.networks))].layers
    ):
        again = resized(resized(recipe, 2 * recipe.data.size.width), recipe.data.size)
        assert [len(network.layers) for network in again.networks.values()] == [
            len(network.layers) for network in recipe.networks.values()
        ]


def test_stages_are_added_and_removed_next_to_the_grid() -> None:
    def generator(size: int) -> list[str]:
        return resized(load_recipe("modern-gan-64"), size).networks["generator"].layers

    own = load_recipe("modern-gan-64").networks["generator"].layers
    assert generator(128)[:7] == [*own[:4], "deconv 256 k4 s2", "ln", "lrelu 0.2"] and generator(128)[7:] == own[4:]
    assert generator(96)[:2] == ["dense 9216", "reshape 256x6x6"] and generator(96)[2:] == own[2:]
    assert generator(32) == [*own[:4], *own[7:]]
    encoder = resized(load_recipe("modern-vae-64"), 128).networks["encoder"].layers
    assert encoder[12:] == ["conv 256 k4 s2", "bn", "silu", "flatten"]
    decoder = resized(load_recipe("modern-ae-64"), 128).networks["decoder"].layers
    assert decoder[:6] == ["reshape 8x8x8", "conv 96 k3", "res 96 k3", "deconv 96 k4 s2", "ln", "silu"]


def test_a_latent_that_is_a_grid_grows_with_it() -> None:
    assert [resized(load_recipe("modern-ae-64"), s).model.options["latent"] for s in (32, 96, 128)] == [512, 1152, 512]
    flow = resized(load_recipe("modern-latent-flow-64"), 96)
    assert flow.model.options["latent"] == 1152 and flow.model.options["autoencoder"] == "modern-ae-96-1"
    assert flow.networks["velocity"].layers[0] == "reshape 8x12x12"


def test_chosen_and_modern_flows_are_sized_by_one_rule() -> None:
    from zeuxis.choosing import choose_recipe

    for size in (32, 64, 96, 128):
        chosen, _ = choose_recipe({"data.source": "sprites", "data.path": ""}, size=size)
        modern = resized(load_recipe("modern-flow-28"), size)
        assert (
            chosen.networks["velocity"].layers == modern.networks["velocity"].layers == velocity_layers(Size.of(size))
        )


def test_sizes_that_do_not_fit_are_told_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"Images of 88 pixels cannot be halved 4 times; the nearest sizes that fit: 80 and 96\."
    ):
        resized(load_recipe("modern-gan-64"), 88)
    with pytest.raises(UserError, match="multiples of 8 from 16 to 512, not 100; the nearest size is 96"):
        resized(load_recipe("modern-gan-64"), 100)
    module = load_recipe("digits-vae", {"networks.encoder": {"module": "torch.nn.Flatten"}})
    with pytest.raises(UserError, match="The network 'encoder' of digits-vae is a module of your own"):
        resized(module, 32)


def test_a_run_of_another_size_trains(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 40, 40, 3), np.uint8)
    run = zeuxis.train("modern-gan-32", data=images, size=48, steps=1, runs=tmp_path, progress=False)
    assert run.name == "modern-gan-48-1" and run.sample(2).shape == (2, 48, 48, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modern-flow-28", "modern-ae-64", "modern-gan-64"])
def test_large_images_train_with_little_memory(name: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 256, 256, 3), np.uint8)
    networks = load_recipe(name).networks
    settings = {
        "data.channels": 3, "training.batch_size": 4, "training.accumulate": 2, "training.test_every": "never",
        "training.best": "", **{f"networks.{network}.recompute": True for network in networks},
    }  # fmt: skip
    run = zeuxis.train(name, images, size=256, steps=2, settings=settings, runs=tmp_path, progress=False)
    assert run.images(run.choose_images("train", 2)).shape == (2, 256, 256, 3)
    assert run.journal[-1]["step"] == 2 and run.journal[-1]["cost/peak_memory_mib"] < 4000
