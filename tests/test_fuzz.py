"""Any TOML, and any value of any key: a recipe, or one readable sentence."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zeuxis.errors import UserError
from zeuxis.models import build_model
from zeuxis.recipe import flat, load_recipe, parse_override
from zeuxis.training import resolved

NAMES = ("digits-vae", "digits-cgan", "mnist-infogan")
KEYS = sorted(
    {key for name in NAMES for key in flat(build_model(load_recipe(name)).recipe.model_dump())}
    | {"extends", "data", "model", "networks", "training", "training.optimizers", "model.name", "model.vae"}
    | {"networks.encoder", "networks.encoder.heads", "networks.encoder.arguments", "nokey", "training.x", "a..b"}
)
numbers = (
    st.sampled_from([0, -1, 1, 2, 2**31, 2**63, 2**64, 10**30, 10**400, 0.5, -0.5, 1e308, 1e-320, 1e6])
    | st.floats()
    | st.integers(-5, 5)
)
texts = st.text(max_size=8) | st.sampled_from([
    "", " ", "\x00", "\n", "..", "../x", "/dev/zero", "[/]", "\x1b[31m", "a" * 9000, "never", "0 steps", "1 epoch",
    "9" * 500 + " steps", "cuda:99", "meta", "cpu:7", "kl", "fid", "vae", "gan", "classifier", "latent-gan",
    "os.system", "torch.nn.Identity", "torch.nn", ".a", "dense 4", "dense ²", "conv 4 k³", "up 99999999999",
    "reshape 9999999x9x9",
])  # fmt: skip
layers = st.lists(
    st.sampled_from([
        "flatten", "dense 4", "dense latent", "relu", "bn", "conv 4 k3", "deconv 4 k3 s2", "up 2", "sigmoid", "dense ²",
        "dense 99999999999999999999", "conv 99999 k255", "conv 4 k9999999", "deconv 8 k3 s99999", "up 100000",
        "res 9 k4", "reshape 0x0x0", "maxpool 999999", "dropout nan", "lrelu inf", "dense", "", " ",
        "conv ³ k3", "dense 4 sn sn",
    ]),
    max_size=4,
)  # fmt: skip
values = st.recursive(
    numbers | texts | st.booleans() | layers | st.just(["relu"] * 2000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
trees = st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=3)


def reads(recipe: str, overrides: Any) -> None:
    """Reads and builds a recipe, or is told in a sentence why not."""
    try:
        build_model(load_recipe(recipe, overrides))
    except UserError as error:
        said = str(error)
        assert said.endswith((".", "?")) and len(said) < 2500, said
        assert said.isprintable(), "codes do not reach a terminal"


@given(name=st.sampled_from(NAMES), overrides=trees)
@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_value_of_any_key(name: str, overrides: dict[str, Any]) -> None:
    reads(name, overrides)


@given(pairs=st.lists(st.tuples(st.sampled_from(KEYS) | texts, texts | values.map(repr)), min_size=1, max_size=3))
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_after_set(pairs: list[tuple[str, str]]) -> None:
    reads("digits-vae", [f"{key}={value}" for key, value in pairs])


@given(name=st.sampled_from(NAMES), overrides=trees)
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tree_in_a_file(name: str, overrides: dict[str, Any]) -> None:
    tree: dict[str, Any] = {"extends": name}
    for key, value in overrides.items():
        node, (*path, last) = tree, key.split(".")
        for part in path:
            node = node.setdefault(part, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node[last] = value
    try:
        text = tomli_w.dumps(tree)
    except (TypeError, ValueError, UnicodeError):  # what TOML cannot hold is tried as an override
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.toml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        reads(str(path), ())


@pytest.mark.parametrize(
    "text",
    [
        "\x00", "[", "=", "extends = 1", 'extends = ""', 'extends = "."', 'extends = "/dev/zero"',
        'extends = "a\\u0000b"', f'extends = "{"x" * 5000}"', 'extends = "any.toml"', 'extends = "./any.toml"',
        'extends = "../FOLDER/any.toml"',
        *(f'extends = "digits-vae"\n{key} = {value}' for key in ("training", "model", "networks", "data")
          for value in ("3", '"steps"', '["steps"]')),
        'extends = "base.toml"\n[networks.encoder]\nlayers = ["relu"]', 'extends = "base.toml"\n[training]\nsteps = 3',
        'extends = "base.toml"\n[model]\nname = "gan"', "a = " + "[" * 5000, "a = " + "[" * 2000 + "]" * 2000,
        "a = " + "{b=" * 2000 + "1" + "}" * 2000, ".".join("a" * 3000) + " = 1", "a = " + "9" * 5000,
        "a = 0x" + "f" * 20000, "x = 1\nx = 2",
        "\n".join(f"k{i} = {i}" for i in range(5000)), "a = '" + "x" * 2**21 + "'",
    ],
    ids=lambda text: repr(text[:40]),
)  # fmt: skip
def test_odd_files(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.toml").write_text("networks = 3\ntraining = 3\nmodel = 3\n")
    (tmp_path / "any.toml").write_text(text.replace("FOLDER", tmp_path.name), "utf-8")
    with pytest.raises(UserError) as raised:
        load_recipe("any.toml")
    assert len(str(raised.value)) < 2500 and str(raised.value).isprintable()


@pytest.mark.parametrize(
    "text", ["", "=", "a", "=1", ".=1", "a..b=1", "training.=1", ".".join("a" * 3000) + "=1", "é\x1b=1"]
)
def test_odd_overrides(text: str) -> None:
    reads("digits-vae", [text])


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "device.toml").symlink_to("/dev/zero")
    for name in ("pipe.toml", "folder.toml", "device.toml"):
        with pytest.raises(UserError, match="it is not a file"):
            load_recipe(tmp_path / name)


def test_the_run_that_a_model_is_built_on_is_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.vae should be text"):
        resolved(load_recipe("latent-gan", {"model.vae": ["a"]}), tmp_path)
    with pytest.raises(UserError, match="there is no run 'aaa"):
        resolved(load_recipe("latent-gan", {"model.vae": "a" * 4000}), tmp_path)


def test_a_second_line_is_no_second_setting() -> None:
    assert parse_override("training.steps=1\nseed=2") == ("training.steps", "1\nseed=2")
