"""Recipes: named, extended, overridden, validated, and written out whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zeuxis.errors import UserError
from zeuxis.models import build_model
from zeuxis.recipe import Interval, Recipe, load_recipe, parse_override, recipe_names, together


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_and_survives_writing(name: str, tmp_path: Path) -> None:
    recipe = build_model(load_recipe(name)).recipe
    assert recipe.description
    written = tmp_path / f"{name}.toml"
    written.write_text(recipe.to_toml())
    assert load_recipe(written) == recipe


def test_the_resolved_recipe_holds_every_default() -> None:
    resolved = build_model(load_recipe("mnist-gan")).recipe
    assert resolved.model.options["label_smoothing"] == 0.0
    assert "label_smoothing = 0.0" in resolved.to_toml()


def test_extends_replaces_lists_and_merges_tables(tmp_path: Path) -> None:
    child = tmp_path / "mine.toml"
    child.write_text(
        'extends = "mnist-vae-z2"\n[model]\nlatent = 3\n[training]\nsteps = 7\n'
        '[networks.decoder]\nlayers = ["dense 4"]\n'
    )
    recipe = load_recipe(child)
    assert recipe.name == "mine"
    assert recipe.model.options["latent"] == 3
    assert recipe.model.options["reconstruction"] == "bce"
    assert (recipe.training.steps, recipe.training.epochs) == (7, None), "one budget replaces the other"
    assert recipe.training.batch_size == 128
    assert recipe.networks["decoder"].layers == ["dense 4"]
    assert recipe.networks["encoder"] == load_recipe("mnist-vae-z2").networks["encoder"]


def test_extends_finds_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('extends = "mnist-gan"\n[training]\nbatch_size = 5\n')
    (tmp_path / "leaf.toml").write_text('extends = "base.toml"\n[training]\nseed = 3\n')
    training = load_recipe(tmp_path / "leaf.toml").training
    assert (training.batch_size, training.seed) == (5, 3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("training.batch_size=64", 64),
        ("training.optimizer.learning_rate=1e-4", 1e-4),
        ("data.classes=['a', 'b']", ["a", "b"]),
        ("data.path=some folder", "some folder"),
        ("data.flip=true", True),
    ],
)
def test_override_values_are_read_as_toml_or_text(text: str, value: object) -> None:
    assert parse_override(text) == (text.partition("=")[0], value)


def test_overrides_reach_nested_keys_and_new_optimizers() -> None:
    recipe = load_recipe("mnist-gan", ["training.optimizers.discriminator.learning_rate=5e-5", "model.latent=7"])
    assert recipe.training.optimizers["discriminator"].learning_rate == 5e-5
    assert build_model(recipe).net("generator").input_shape == (7,)


def test_a_table_changes_the_keys_that_it_has() -> None:
    plain = load_recipe("mnist-gan")
    for overrides in ({"training": {"batch_size": 7, "optimizer": {"learning_rate": 0.1}}},
                      ["training={batch_size=7, optimizer={learning_rate=0.1}}"]):  # fmt: skip
        recipe = load_recipe("mnist-gan", overrides)
        wanted = plain.updated({"training.batch_size": 7, "training.optimizer.learning_rate": 0.1})
        assert recipe == wanted and recipe.training.epochs == plain.training.epochs
    other = load_recipe("mnist-gan", {"training.optimizer": {"name": "sgd", "momentum": 0.5}}).training.optimizer
    assert other.name == "sgd" and other.options["momentum"] == 0.5 and "betas" not in other.options
    assert load_recipe("mnist-gan", {"networks.generator": {"module": "a.B"}}).networks["generator"].layers == []
    with pytest.raises(UserError, match=re.escape("model.latent is given twice: 7 and 8")):
        together({"model": {"latent": 7}}, {"model.latent": 8})
    assert together({"model": {"latent": 7}}, {"model.latent": 7}) == {"model.latent": 7}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.batchsize=3", "no key 'training.batchsize'. Did you mean 'batch_size'"),
        ("trainin.seed=3", "no key 'trainin'. Did you mean 'training'"),
        ("training.batch_size=many", "training.batch_size should be a whole number"),
        ("training.batch_size=0", "training.batch_size should be greater than or equal to 1"),
        ("model.latnt=3", "no key 'model.latnt'. Did you mean 'latent'"),
        ("model.label_smoothing=2", "model.label_smoothing should be less than 0.5"),
        ("training.batch_size.x=2", "training.batch_size is a value"),
        ("training.snapshot_every=often", "write '10 epochs'"),
        ("data.range=0..255", "data.range should be '0..1' or '-1..1'"),
        ("training.lr=1e-4", "no key 'training.lr'. Did you mean 'training.optimizer.learning_rate'?"),
        ("data.resolution=64", "Did you mean 'data.size'?"),
        ("model.z_dim=8", "Did you mean 'model.latent'?"),
        ("model.beta=2", "no key 'model.beta'. Valid: "),
        ("data.shuffle=true", "no key 'data.shuffle'. Valid: "),
        ("data.flip=yes", "data.flip: this should be true or false, not 'yes'"),
    ],
)
def test_wrong_overrides_name_the_key_and_what_would_be_right(override: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        build_model(load_recipe("mnist-gan", [override]))


def test_intervals() -> None:
    assert Interval("10 epochs").parts == (10, "epoch")
    assert Interval("1.5 minutes").parts == (1.5, "minute")
    assert Interval("never").parts[0] == float("inf")


def test_updated_leaves_the_original() -> None:
    recipe = load_recipe("mnist-gan")
    changed: Recipe = recipe.updated({"training.minutes": 2})
    assert (changed.training.minutes, changed.training.epochs, recipe.training.epochs) == (2, None, 50)


def test_another_model_starts_from_its_own_defaults(tmp_path: Path) -> None:
    (tmp_path / "first.toml").write_text(
        'extends = "mnist-gan"\n[model]\nlabel_smoothing = 0.1\n[training.optimizers.generator]\nlearning_rate = 0.1\n'
    )
    (tmp_path / "same.toml").write_text('extends = "first.toml"\n[model]\nname = "gan"\nlatent = 7\n')
    (tmp_path / "other.toml").write_text('extends = "first.toml"\n[model]\nname = "wgan-gp"\nlatent = 7\n')
    same, other = load_recipe(tmp_path / "same.toml"), load_recipe(tmp_path / "other.toml")
    assert same.model.options == {"latent": 7, "label_smoothing": 0.1}
    assert set(same.training.optimizers) == {"generator"}
    assert other.model.options == {"latent": 7}
    assert other.training.optimizers == {}


def test_layers_of_its_own_have_heads_of_their_own(tmp_path: Path) -> None:
    heads = load_recipe("mnist-vae-z2").networks["encoder"].heads
    (tmp_path / "rest.toml").write_text('extends = "mnist-vae-z2"\n[networks.encoder]\ninit = "he"\n')
    (tmp_path / "layers.toml").write_text(
        'extends = "mnist-vae-z2"\n[networks.encoder]\nlayers = ["flatten", "dense 4"]\n'
    )
    assert load_recipe(tmp_path / "rest.toml").networks["encoder"].heads == heads
    assert load_recipe(tmp_path / "layers.toml").networks["encoder"].heads == {}


def test_a_phase_takes_from_the_shared_optimiser_what_it_does_not_say() -> None:
    key = "training.optimizers.discriminator"
    own = load_recipe("mnist-gan", {f"{key}.learning_rate": 1e-4}).training.optimizers["discriminator"]
    assert (own.learning_rate, own.model_dump()["betas"]) == (1e-4, [0.5, 0.999]), "betas are the recipe's"
    other = load_recipe("mnist-gan", {f"{key}.name": "sgd"}).training.optimizers["discriminator"]
    assert "betas" not in other.model_dump(), "another kind begins at its defaults"
