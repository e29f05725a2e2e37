"""Exports, used by something that is not ours: onnxruntime in a process without PyTorch, torch.export, safetensors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfile
from threading import Thread
from typing import Any

import numpy as np
import pytest
import requests
import torch
from typer.testing import CliRunner

import zeuxis
from zeuxis.cli import app
from zeuxis.errors import UserError
from zeuxis.export import export
from zeuxis.export.packing import _smaller
from zeuxis.export.web import RUNTIME
from zeuxis.models import Generates, build_model
from zeuxis.models.base import LearnsPrior
from zeuxis.recipe import load_recipe

DOCS = Path(__file__).parents[1] / "docs"


def given(name: str, folder: Path) -> zeuxis.Run:
    """A pretrained run, as a stranger gets it."""
    from zeuxis.run import find_run

    return find_run(f"pretrained/{name}", folder)


def without_us(code: str, folder: Path) -> str:
    """Runs code in a process that can import neither PyTorch nor this package; returns what it prints."""
    guard = "import sys; sys.modules.update(torch=None, zeuxis=None)\n"
    ended = subprocess.run(
        [sys.executable, "-I", "-c", guard + code], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.extra("onnx", "onnxruntime")
@pytest.mark.parametrize(
    ("name", "settings"),
    [("digits-cgan", {}), ("digits-flow", {"solver_steps": 1}), ("digits-flow", {"solver_steps": 1, "guidance": 1.5})],
)
def test_an_onnx_generator_makes_the_same_images_without_us(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    run = given(name, tmp_path)
    run.configure(**settings) if settings else None
    (line,) = export(run, "onnx", tmp_path / "out")
    assert "generator.onnx: latents (batch, " in line and "opset 18" in line
    latents = run.latents(5, seed=7)
    condition = run.condition_of(["3", "8", "1", "0", "3"])
    np.savez(tmp_path / "asked.npz", latents=latents, condition=condition)
    without_us(
        "import numpy as np, onnxruntime as ort\n"
        "asked = dict(np.load('asked.npz'))\n"
        "(images,) = ort.InferenceSession('out/generator.onnx').run(None, asked)\n"
        "np.save('images.npy', images)",
        tmp_path,
    )
    found = np.load(tmp_path / "images.npy")
    np.testing.assert_allclose(found, run.decode(latents, condition), atol=1e-4)
    assert found.shape == (5, 16, 16, 1)


@pytest.mark.extra("onnx", "onnxruntime")
def test_an_encoder_comes_along_and_channels_may_come_first(tmp_path: Path) -> None:
    import onnxruntime

    run = given("digits-vae", tmp_path)
    export(run, "onnx", tmp_path / "out", layout="nchw")
    images, _ = run.test_images(6)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "encoder.onnx")
    (latents,) = session.run(None, {"images": images.transpose(0, 3, 1, 2).copy()})
    np.testing.assert_allclose(latents, run.encode(images), atol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["recipe"] == "digits-vae" and facts["images"] == "NCHW, 16x16, 1 channels, 0..1"
    (again,) = onnxruntime.InferenceSession(tmp_path / "out" / "generator.onnx").run(None, {"latents": latents})
    assert again.shape == (6, 1, 16, 16)
    np.testing.assert_allclose(again.transpose(0, 2, 3, 1), run.decode(latents), atol=1e-4)


@pytest.mark.extra("onnx", "onnxruntime")
def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    run = given("digits-cgan", tmp_path)
    export(run, "onnx", tmp_path / "exported")
    (code,) = re.findall(r"```python\n(import json\n.*?)```", (DOCS / "export.md").read_text("utf-8"), re.DOTALL)
    without_us(code, tmp_path)
    assert (tmp_path / "seven.png").stat().st_size > 100


@pytest.mark.extra("onnx", "onnxruntime")
def test_what_is_asked_for_stands_in_the_file(tmp_path: Path) -> None:
    import onnx

    export(given("digits-cgan", tmp_path), "onnx", tmp_path / "out")
    facts = {prop.key: prop.value for prop in onnx.load(tmp_path / "out" / "generator.onnx").metadata_props}
    assert json.loads(facts["condition"])["classes"]["7"] == [0.0] * 7 + [1.0] + [0.0] * 2
    assert facts["prior"] == "independent N(0, 1)" and facts["latents"] == "32"


def test_a_program_of_torch_makes_the_same_images(tmp_path: Path) -> None:
    run = given("digits-vae", tmp_path)
    export(run, "torch", tmp_path / "out")
    program = torch.export.load(tmp_path / "out" / "generator.pt2").module()
    latents = run.latents(7)
    np.testing.assert_allclose(program(latents=torch.from_numpy(latents)).detach(), run.decode(latents), atol=1e-4)


def test_weights_alone_are_those_of_the_generator(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run = given("digits-vae", tmp_path)
    export(run, "safetensors", tmp_path / "out")
    found = load_file(tmp_path / "out" / "generator.safetensors")
    state = run.model.net("decoder").state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == {
        f"decoder.{key}": tuple(tensor.shape) for key, tensor in state.items()
    }
    assert load_recipe(tmp_path / "out" / "recipe.toml").model.name == "vae"


def test_weights_of_a_generator_of_latents_have_its_decoder(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    zeuxis.train("digits-vae", steps=1, runs=tmp_path, name="first", progress=False)
    latent = {"model.vae": "first", "data.source": "digits", "data.size": 16}
    run = zeuxis.train("latent-gan", steps=1, settings=latent, runs=tmp_path, name="second", progress=False)
    export(run, "safetensors", tmp_path / "out")
    found = load_file(tmp_path / "out" / "generator.safetensors")
    assert {key.partition(".")[0] for key in found} == {"generator", "decoder"}


def test_half_precision_is_left_where_it_would_lose_numbers() -> None:
    tensors = map(torch.tensor, ([1.0, 2.0], [7e4, 1.0], [3e-9, 1.0], [3]))
    halved = [_smaller(tensor, torch.float16).dtype for tensor in tensors]
    assert halved == [torch.float16, torch.float32, torch.float32, torch.int64]


def test_the_command_says_what_it_wrote_and_replaces_only_its_own(tmp_path: Path) -> None:
    run = given("digits-vae", tmp_path)
    runner = CliRunner()
    for _ in range(2):
        ended = runner.invoke(app, ["export", str(run.path), "--to", "safetensors", "--out", str(tmp_path / "out")])
        assert ended.exit_code == 0 and ended.output.rstrip().endswith(str(tmp_path / "out"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(UserError, match="holds other files"):
        export(run, "safetensors", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "words"
    with pytest.raises(UserError, match="Did you mean 'onnx'"):
        export(run, "onx", tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing unfinished is left"


def test_an_export_has_the_options_that_a_run_samples_by(tmp_path: Path) -> None:
    run = given("flowers-flow", tmp_path)
    run.configure(solver_steps=3)
    export(run, "safetensors", tmp_path / "weights")
    assert load_recipe(tmp_path / "weights" / "recipe.toml").model.options["solver_steps"] == 3


@pytest.mark.extra("onnx", "onnxruntime")
@pytest.mark.skipif(os.name != "posix", reason="only POSIX limits the size of files")
@pytest.mark.parametrize("to", ["safetensors", "torch", "onnx", "hub"])
def test_an_export_that_does_not_fit_is_told_and_leaves_nothing(to: str, tmp_path: Path) -> None:
    import resource  # a full disk, as writers of files in C and Rust meet it

    run, limits = given("digits-cgan", tmp_path / "runs"), resource.getrlimit(resource.RLIMIT_FSIZE)
    run.sample(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(UserError, match=rf"{re.escape(str(tmp_path / 'out'))}.* cannot be written: this system"):
            export(run, to, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_runs_link_does_not_lead_an_export_out_of_it(tmp_path: Path) -> None:
    run = given("digits-vae", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (run.path / "exports").symlink_to(tmp_path / "elsewhere")
    ended = CliRunner().invoke(app, ["export", str(run.path), "--to", "safetensors"])
    assert ended.exit_code != 0 and not any((tmp_path / "elsewhere").iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=re.escape("pip install 'zeuxis[onnx]'")):
        export(given("digits-vae", tmp_path), "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


ARCHIVE = Path(os.environ.get("ONNXRUNTIME_WEB", RUNTIME))
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}: apt-get install chromium")
@pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"ONNXRUNTIME_WEB names no {RUNTIME}, of the npm registry")
@pytest.mark.parametrize("name", ["digits-vae", "digits-cgan"])
def test_a_page_draws_the_models_images_by_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Chromium, from a static server; nothing is asked of another address."""
    from playwright.sync_api import sync_playwright

    run = given(name, tmp_path)
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "web").mkdir(parents=True)
    copyfile(ARCHIVE, tmp_path / "cache" / "web" / RUNTIME)
    export(run, "web", tmp_path / "page")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "page"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as playwright:
        Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        address = f"http://127.0.0.1:{server.server_port}/"
        page.goto(address)
        page.wait_for_function("window.zeuxis", timeout=60_000)
        latents = run.latents(1)
        condition = run.condition_of(["7"]) if run.conditional else np.zeros((1, 0), np.float32)
        made = page.evaluate(
            "([z, c]) => zeuxis.generate(Float32Array.from(z), Float32Array.from(c)).then(Array.from)",
            [latents[0].tolist(), condition[0].tolist()],
        )
        expected = run.decode(latents, condition if run.conditional else None)
        np.testing.assert_allclose(np.reshape(made, expected.shape), expected, atol=1e-4)
        pixels = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 16, 16).data]"
        before = page.evaluate(pixels)
        assert max(value for i, value in enumerate(before) if i % 4 < 3) > 100, "a digit is drawn at once"
        page.get_by_role("button", name="7" if run.conditional else "New one").click()
        page.wait_for_function(f"JSON.stringify({pixels}) !== {json.dumps(json.dumps(before, separators=(',', ':')))}")
        page.focus("#plane")
        page.keyboard.press("ArrowRight")
        page.get_by_role("button", name="New one").click()
        assert all(url.startswith((address, "blob:")) for url in asked), asked
        assert page.text_content("#across") == ("direction 1" if run.latents(1).shape[1] > 2 else "latent 1")
        page.goto((tmp_path / "page" / "index.html").as_uri())
        page.get_by_text("open http://localhost:8000").wait_for()
        browser.close()
        server.shutdown()


def test_a_page_without_a_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUXIS_CACHE", str(tmp_path / "cache"))

    def unreachable(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", unreachable)
    with pytest.raises(UserError, match="--to onnx needs no download"):
        export(given("digits-vae", tmp_path), "web", tmp_path / "page")
    assert not (tmp_path / "page").exists()


RECIPES = [
    "mnist-ae-z3", "mnist-cvae", "mnist-aae", "modern-vae-28", "mnist-gan", "mnist-acgan", "infogan-62-10-2",
    "mnist-wgan-gp", "flowers-vae-gan-32", "flowers-cvae-gan-32", "modern-ae-64", "modern-flow-28", "modern-gan-64",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_model_that_generates_can_be_exported(name: str, tmp_path: Path) -> None:
    model = build_model(load_recipe(name))
    assert isinstance(model, Generates)
    settings = {
        "data.convert": True,
        "data.classes": [],
        "data.attribute": "",
        "data.flip": False,
        "training.test_every": "never",
    }
    run = zeuxis.train(name, "digits", steps=1, settings=settings, runs=tmp_path, progress=False)
    lines = export(run, "onnx", tmp_path / "out")
    names = [line.split(".onnx")[0] for line in lines]
    assert names[0] == "generator" and ("encoder" in names) == run.encodes and ("classifier" in names) == run.classifies
    assert ("prior" in names) == isinstance(run.model, LearnsPrior)
