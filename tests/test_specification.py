"""Every table of the specification, as `zeuxis summary` gives them (test_cli.py calls it)."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from zeuxis.models import build_model
from zeuxis.nets import summary
from zeuxis.recipe import load_recipe, recipe_names

# For each network: its layers in order as (what it is, output as height, width, channels, parameters), then the total
# and, where the specification tells it, how many are not trainable. Activations are left out of the tables.
Layer = tuple[str, list[int], int]
Table = tuple[list[Layer], int, int]

FLOWER_DISCRIMINATOR: Table = (
    [
        ("conv 64", [16, 16, 64], 1_792),
        ("conv 128", [8, 8, 128], 73_856),
        ("flatten", [8192], 0),
        ("dense 1", [1], 8_193),
    ],
    83_841,
    0,
)


def flower_generator(dense: int) -> Table:
    layers = [
        ("dense 8192", [8192], dense),
        ("reshape", [8, 8, 128], 0),
        ("deconv 128", [16, 16, 128], 262_272),
        ("bn", [16, 16, 128], 512),
        ("deconv 128", [32, 32, 128], 262_272),
        ("bn", [32, 32, 128], 512),
        ("conv channels", [32, 32, 3], 3_459),
    ]
    return layers, 529_027 + dense, 512


def flower_decoder(dense: int, total: int) -> Table:
    layers = [
        ("dense 2048", [2048], dense),
        ("reshape", [8, 8, 32], 0),
        ("deconv 128", [16, 16, 128], 36_992),
        ("bn", [16, 16, 128], 512),
        ("dropout", [16, 16, 128], 0),
        ("deconv 64", [32, 32, 64], 73_792),
        ("bn", [32, 32, 64], 256),
        ("dropout", [32, 32, 64], 0),
        ("deconv channels", [32, 32, 3], 1_731),
    ]
    return layers, total, 384


def face_generator(dense: int) -> Table:
    layers = [
        ("dense 16384", [16384], dense),
        ("reshape", [4, 4, 1024], 0),
        ("deconv 512", [8, 8, 512], 13_107_712),
        ("bn", [8, 8, 512], 2_048),
        ("deconv 256", [16, 16, 256], 3_277_056),
        ("bn", [16, 16, 256], 1_024),
        ("deconv 128", [32, 32, 128], 819_328),
        ("bn", [32, 32, 128], 512),
        ("deconv channels", [64, 64, 3], 9_603),
    ]
    return layers, 17_217_283 + dense, 1_792


TABLES: dict[tuple[str, str], Table] = {
    ("flowers-gan-32-z10", "discriminator"): FLOWER_DISCRIMINATOR,
    ("flowers-gan-32-z256", "discriminator"): FLOWER_DISCRIMINATOR,
    ("flowers-gan-32-z10", "generator"): flower_generator(90_112),
    ("flowers-gan-32-z256", "generator"): flower_generator(257 * 8192),
    ("flowers-gan-128", "generator"): (
        [
            ("dense 65536", [65536], 67_174_400),
            ("reshape", [16, 16, 256], 0),
            ("dropout", [16, 16, 256], 0),
            ("deconv 256", [32, 32, 256], 1_048_832),
            ("bn", [32, 32, 256], 1_024),
            ("dropout", [32, 32, 256], 0),
            ("deconv 256", [64, 64, 256], 1_048_832),
            ("bn", [64, 64, 256], 1_024),
            ("deconv channels", [128, 128, 3], 12_291),
        ],
        69_286_403,
        1_024,
    ),
    ("flowers-gan-128", "discriminator"): (
        [
            ("conv 64", [64, 64, 64], 1_792),
            ("dropout", [64, 64, 64], 0),
            ("conv 128", [32, 32, 128], 73_856),
            ("dropout", [32, 32, 128], 0),
            ("flatten", [131072], 0),
            ("dense 1", [1], 131_073),
        ],
        206_721,
        0,
    ),
    ("flowers-vae-32-z3", "decoder"): flower_decoder(8_192, 121_475),
    ("flowers-vae-32-z256", "decoder"): flower_decoder(526_336, 639_619),
    ("faces-vae-64-z1024", "encoder"): (
        [
            ("conv 64", [32, 32, 64], 4_864),
            ("conv 128", [16, 16, 128], 204_928),
            ("conv 256", [8, 8, 256], 819_456),
            ("flatten", [16384], 0),
            ("mean: dense latent", [1024], 16_778_240),
            ("logvar: dense latent", [1024], 16_778_240),
        ],
        35_714_307 - 1_128_579,
        0,
    ),
    ("faces-vae-64-z1024", "decoder"): (
        [
            ("reshape", [8, 8, 16], 0),
            ("conv 256", [8, 8, 256], 102_656),
            ("up 2", [16, 16, 256], 0),
            ("conv 128", [16, 16, 128], 819_328),
            ("up 2", [32, 32, 128], 0),
            ("conv 64", [32, 32, 64], 204_864),
            ("up 2", [64, 64, 64], 0),
            ("conv channels", [64, 64, 3], 1_731),
        ],
        1_128_579,
        0,
    ),
    ("faces-gan-64", "discriminator"): (
        [
            ("conv 64", [32, 32, 64], 4_864),
            ("bn", [32, 32, 64], 256),
            ("conv 128", [16, 16, 128], 204_928),
            ("bn", [16, 16, 128], 512),
            ("conv 256", [8, 8, 256], 819_456),
            ("bn", [8, 8, 256], 1_024),
            ("conv 512", [4, 4, 512], 3_277_312),
            ("bn", [4, 4, 512], 2_048),
            ("flatten", [8192], 0),
            ("dense 1", [1], 8_193),
        ],
        4_318_593,
        1_920,
    ),
    ("faces-gan-64", "generator"): face_generator(2_113_536),
    ("faces-acgan-64", "generator"): face_generator(2_129_920),
    ("faces-acgan-64", "discriminator"): (
        [
            ("conv 32", [32, 32, 32], 2_432),
            ("bn", [32, 32, 32], 128),
            ("conv 64", [16, 16, 64], 51_264),
            ("bn", [16, 16, 64], 256),
            ("conv 128", [8, 8, 128], 204_928),
            ("bn", [8, 8, 128], 512),
            ("conv 256", [4, 4, 256], 819_456),
            ("bn", [4, 4, 256], 1_024),
            ("flatten", [4096], 0),
            ("real: dense 1", [1], 4_097),
            ("class: dense 1", [1], 4_097),
        ],
        1_080_000 + 2 * 4_097,
        960,
    ),
    ("mnist-vae-z2", "encoder"): (
        [
            ("conv 32", [14, 14, 32], 320),
            ("conv 64", [7, 7, 64], 18_496),
            ("flatten", [3136], 0),
            ("dense 16", [16], 50_192),
            ("mean: dense latent", [2], 34),
            ("logvar: dense latent", [2], 34),
        ],
        69_076,
        0,
    ),
    ("mnist-vae-z2", "decoder"): (
        [
            ("dense 3136", [3136], 9_408),
            ("reshape", [7, 7, 64], 0),
            ("deconv 64", [14, 14, 64], 36_928),
            ("deconv 32", [28, 28, 32], 18_464),
            ("deconv channels", [28, 28, 1], 289),
        ],
        65_089,
        0,
    ),
    ("mnist-gan", "generator"): (
        [
            ("dense 12544 nobias", [12544], 1_254_400),
            ("bn", [12544], 50_176),
            ("reshape", [7, 7, 256], 0),
            ("deconv 128", [7, 7, 128], 819_200),
            ("bn", [7, 7, 128], 512),
            ("deconv 64", [14, 14, 64], 204_800),
            ("bn", [14, 14, 64], 256),
            ("deconv channels", [28, 28, 1], 1_600),
        ],
        2_330_944,
        25_472,
    ),
    ("mnist-gan", "discriminator"): (
        [
            ("conv 64", [14, 14, 64], 1_664),
            ("dropout 0.3", [14, 14, 64], 0),
            ("conv 128", [7, 7, 128], 204_928),
            ("dropout 0.3", [7, 7, 128], 0),
            ("flatten", [6272], 0),
            ("dense 1", [1], 6_273),
        ],
        212_865,
        0,
    ),
    ("mnist-cgan", "generator"): (
        [
            ("dense 6762", [6762], 939_918),
            ("reshape", [7, 7, 138], 0),
            ("deconv 128", [14, 14, 128], 282_752),
            ("deconv 128", [28, 28, 128], 262_272),
            ("conv channels k7", [28, 28, 1], 6_273),
        ],
        1_491_215,
        0,
    ),
    ("mnist-cgan", "discriminator"): (
        [
            ("conv 64", [14, 14, 64], 6_400),
            ("conv 128", [7, 7, 128], 73_856),
            ("globalmax", [128], 0),
            ("dense 1", [1], 129),
        ],
        80_385,
        0,
    ),
    ("fashion-vae-z2", "encoder"): (
        [
            ("conv 32 k3 s2 valid", [13, 13, 32], 320),
            ("conv 64 k3 s2 valid", [6, 6, 64], 18_496),
            ("flatten", [2304], 0),
            ("dense 4", [4], 9_220),
        ],
        28_036,
        0,
    ),
    ("fashion-vae-z2", "decoder"): (
        [
            ("dense 3136 nobias", [3136], 6_272),
            ("reshape", [7, 7, 64], 0),
            ("deconv 64", [14, 14, 64], 36_928),
            ("deconv 32", [28, 28, 32], 18_464),
            ("deconv channels", [28, 28, 1], 289),
        ],
        61_953,
        0,
    ),
}
ACTIVATIONS = {"relu", "lrelu", "elu", "silu", "gelu", "tanh", "sigmoid", "softmax"}


@cache
def networks(recipe: str) -> dict[str, Any]:
    """Tables of a recipe's networks by name; on the meta device, where weights have shapes and no memory."""
    with torch.device("meta"):
        return summary(recipe, build_model(load_recipe(recipe)).networks)["networks"]


@pytest.mark.parametrize(("recipe", "network"), list(TABLES))
def test_the_tables_of_the_specification(recipe: str, network: str) -> None:
    found = networks(recipe)[network]
    layers, total, fixed = TABLES[recipe, network]
    rows = [row for row in found["layers"] if row["layer"].split(": ")[-1].split()[0] not in ACTIVATIONS]
    assert [(row["output"], row["parameters"]) for row in rows] == [(output, count) for _, output, count in layers]
    assert all(row["layer"].startswith(name) for row, (name, _, _) in zip(rows, layers, strict=True))
    assert found["total"] == total == sum(count for _, _, count in layers)
    assert found["total"] - found["trainable"] == fixed


# What the specification fixes of the systems whose networks it prints no table of.
NAMED = [
    "flowers-gan-32-z10", "flowers-gan-32-z256", "flowers-gan-128", "flowers-vae-32-z3", "flowers-vae-32-z256",
    "flowers-aae-32", "flowers-vae-gan-32", "flowers-cvae-gan-32", "faces-vae-64-z1024", "faces-gan-64",
    "faces-acgan-64", "mnist-vae-z2", "mnist-gan", "mnist-cgan", "mnist-cnn", "mnist-gan-mlp", "mnist-dcgan",
    "mnist-vae-z3", "fashion-vae-z2", "fashion-gan-z8", "latent-gan", "faces-vae-64-z512", "faces-dcgan-64",
    "faces-wgan-gp-64", "faces-acgan-64-z100", "faces-infogan-64", "infogan-62-10-2", "mnist-infogan",
    "mnist-acgan", "mnist-wgan-gp", "modern-gan-28", "modern-gan-32", "modern-gan-64", "modern-vae-28",
    "modern-vae-32", "modern-vae-64", "celeba-smile-cnn", "flowers-cnn-32", "digits-cnn", "digits-cnn-28",
]  # fmt: skip


def test_every_named_system_is_a_recipe() -> None:
    assert set(NAMED) <= set(recipe_names())


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("flowers-gan-32-z10", {"merged_batches": True, "label_smoothing": 0.1, "epochs": 100, "learning_rate": 2e-4}),
        ("flowers-vae-32-z3", {"epochs": 100, "learning_rate": 1e-3, "classes": ["sunflower"]}),
        ("faces-gan-64", {"latent": 128, "batch_size": 128, "steps": 20_000, "range": "-1..1"}),
        ("faces-acgan-64", {"latent": 128, "attribute": "Smiling"}),
        ("mnist-vae-z2", {"epochs": 30, "batch_size": 128, "learning_rate": 1e-3}),
        ("mnist-gan", {"latent": 100, "epochs": 50, "learning_rate": 1e-4}),
        ("mnist-cgan", {"latent": 128, "epochs": 20, "learning_rate": 3e-4}),
        ("mnist-gan-mlp", {"batch_size": 128, "steps": 5000}),
        ("mnist-dcgan", {"batch_size": 128, "steps": 10_000}),
        ("mnist-vae-z3", {"latent": 3, "batch_size": 128, "epochs": 30}),
        ("fashion-vae-z2", {"latent": 2}),
        ("fashion-gan-z8", {"latent": 8}),
        ("faces-vae-64-z512", {"latent": 512, "kl_weight": 1e-2, "reduction": "mean", "epochs": 200, "best": "mse"}),
        ("faces-dcgan-64", {"latent": 100, "generator_updates": 2, "discriminator_updates": 1, "epochs": 300}),
        ("faces-wgan-gp-64", {"gradient_penalty": 10.0, "loss": "wasserstein", "batch_size": 64}),
        ("faces-acgan-64-z100", {"latent": 100, "generator_updates": 1, "attribute": "Smiling"}),
        ("faces-infogan-64", {"latent": 64, "categorical": [10] * 5, "generator_updates": 1}),
        ("infogan-62-10-2", {"latent": 62, "categorical": [10], "continuous": 2}),
        ("modern-gan-32", {"loss": "relativistic", "ema": 0.998, "r1_penalty": 0.1, "r2_penalty": 0.1}),
        ("modern-vae-64", {"reconstruction": "gaussian", "kl_warmup": 2.0}),
    ],
)
def test_settings_of_the_specification(recipe: str, settings: dict[str, object]) -> None:
    with torch.device("meta"):
        loaded = build_model(load_recipe(recipe)).recipe
    training = loaded.training
    everything = {**loaded.data.model_dump(), **loaded.model.options, **training.model_dump()}
    everything |= training.optimizer.model_dump()
    assert {name: everything[name] for name in settings} == settings
    if recipe in ("faces-vae-64-z512", "faces-dcgan-64", "faces-wgan-gp-64", "faces-acgan-64-z100", "faces-infogan-64"):
        optimizer = training.optimizer
        assert (optimizer.learning_rate, optimizer.options["betas"], training.batch_size) == (2e-4, [0.5, 0.999], 64)


def parameters(recipe: str) -> int:
    return sum(table["total"] for table in networks(recipe).values())


@pytest.mark.parametrize(
    ("modern", "report"),
    [
        ("modern-gan-28", "mnist-gan"),
        ("modern-gan-32", "flowers-gan-32-z10"),
        ("modern-gan-64", "faces-gan-64"),
        ("modern-vae-28", "mnist-vae-z3"),
        ("modern-vae-32", "flowers-vae-32-z256"),
        ("modern-vae-64", "faces-vae-64-z1024"),
    ],
)
def test_modern_recipes_keep_to_the_reports_parameters(modern: str, report: str) -> None:
    assert parameters(modern) <= parameters(report)
