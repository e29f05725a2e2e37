"""The documentation says what the code does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from zeuxis import models
from zeuxis.recipe import load_recipe
from zeuxis.run import Run

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), flags=re.S)


def test_pages_made_from_the_code_are_current() -> None:
    # In a process of its own, where no test has registered anything.
    code = "import json, runpy; print(json.dumps(runpy.run_path('docs/make_pages.py')['pages']()))"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, encoding="utf-8")
    for page, text in json.loads(made.stdout).items():
        assert (ROOT / "docs" / page).read_text("utf-8") == text, f"docs/{page} is out of date: run `make docs`"


PAGES = ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def anchors(path: Path) -> set[str]:
    """What a link to a heading of this page may name, as GitHub and MyST write it."""
    headings = re.findall(r"^#+ +(.+)$", path.read_text("utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text("utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), f"{page} links to {link}, which is not there"
        assert not anchor or anchor in anchors(target), f"{page} links to {link}, a heading that is not there"


def test_every_model_has_a_page_that_names_its_recipes() -> None:
    from zeuxis.models import MODELS
    from zeuxis.recipe import recipe_names

    for name in MODELS:
        if MODELS[name].__module__.startswith("test"):
            continue
        page = (ROOT / "docs" / "models" / f"{name}.md").read_text("utf-8")
        assert f"<!-- options: {name} -->" in page
        for heading in ("## The idea", "## The objective", "## What goes wrong, and how to recognise it"):
            assert heading in page
        for recipe in recipe_names():
            if load_recipe(recipe).model.name == name and not recipe.startswith("digits-"):
                assert f"`{recipe}`" in page, f"{recipe} is missing on the page of {name}"


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    command = ["-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path / "site")]
    made = subprocess.run([sys.executable, *command], cwd=ROOT, check=False, capture_output=True, encoding="utf-8")
    assert made.returncode == 0, made.stderr
    reference = (tmp_path / "site" / "api.html").read_text("utf-8")
    assert "Opens a run by its folder" in reference
    assert "kl_warmup" in (tmp_path / "site" / "models" / "vae.html").read_text("utf-8"), "options are filled in"


def test_the_recipe_of_the_readme_builds(tmp_path: Path) -> None:
    (text,) = blocks("README.md", "toml")
    assert tomllib.loads(text)["data"]["size"] == 32
    (tmp_path / "roses.toml").write_text(text)
    model = models.build_model(load_recipe(tmp_path / "roses.toml"))
    assert model.net("generator").output_shape == (3, 32, 32)


@pytest.mark.usefixtures("short_reports")
def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: dict[str, Run]) -> None:
    (code,) = blocks("README.md", "python")
    for written, quick in (
        ("epochs=5", "steps=3, progress=False"),
        ('"runs/mnist-cgan-1"', repr(str(trained["cgan"].path))),
        ("compare([run, other])", "compare([run, other], samples=100)"),
    ):
        assert written in code
        code = code.replace(written, quick)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["images"].shape == (16, 28, 28, 1)
    assert names["latents"].shape == (16, 2)
    assert names["sevens"].shape == (8, 16, 16, 1)


def test_the_callback_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("docs/training.md", "python")
    monkeypatch.chdir(tmp_path)
    assert "epochs=1" in code
    exec(compile(code.replace("epochs=1", "steps=3, progress=False"), "training.md", "exec"), {})
    assert Run("runs/digits-vae-1").last("test/slowest_iteration") > 0


def test_python_of_the_page_on_own_pictures_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    (code,) = blocks("docs/explore.md", "python")
    assert code.count('label="7")') == 1
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 20), "white").save("seven.png")
    names: dict[str, object] = {}
    quick = code.replace('label="7")', 'label="7", starts=64, steps=8)')
    exec(compile(quick, "explore.md", "exec"), names)
    assert names["latents"].shape == (1, 2)
    assert names["found"].mse < names["found"].start_mse


def test_commands_of_the_readme_exist() -> None:
    from zeuxis.cli import app

    groups = {group.name for group in app.registered_groups}
    known = {command.callback.__name__ for command in app.registered_commands} | groups
    used = set(re.findall(r"^zeuxis (\w+)", (ROOT / "README.md").read_text("utf-8"), flags=re.M))
    assert used
    assert used <= known


# The examples of CONTRIBUTING.md, and how its text says they are used, from an empty folder.
EXAMPLES = {
    "msgan": [["train", "digits-gan", "--plugin", "msgan.py", "--set", "model.name=msgan", "--set", "model.latent=32"]],
    "softhinge": [["train", "digits-gan", "--plugin", "softhinge.py", "--set", "model.loss=soft-hinge"]],
    "squeeze": [["train", "squeezed.toml"]],
    "ramps": [
        ["train", "digits-gan", "--plugin", "ramps.py", "--data", "ramps"],
        ["data", "info", "ramps", "--plugin", "ramps.py"],
    ],
    "darkness": [
        ["train", "digits-gan"],
        ["evaluate", "run", "--plugin", "darkness.py", "--only", "darkness", "--samples", "100"],
    ],
    "averages": [
        ["train", "digits-gan"],
        ["figures", "run", "--plugin", "averages.py", "--only", "averages", "--set", "count=100"],
    ],
    "contrast": [["train", "digits-gan", "--plugin", "contrast.py", "--set", "training.best=flatness"]],
    "sheets": [["train", "digits-gan"], ["export", "run", "--plugin", "sheets.py", "--to", "sheets"]],
}
SQUEEZED = """extends = "digits-gan"
plugins = ["squeeze.py"]
[networks.discriminator]
layers = ["conv 8 k4 s4", "lrelu 0.2", "squeeze r4", "flatten", "dense 1"]
"""


def zeuxis_says(folder: Path, state: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zeuxis", *arguments], cwd=folder, check=False, capture_output=True, encoding="utf-8",
        env=os.environ | {"ZEUXIS_STATE": str(folder / state), "PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"},
    )  # fmt: skip


def test_every_example_of_contributing_is_tried() -> None:
    named = [code.partition("\n")[0].removeprefix("# ") for code in blocks("CONTRIBUTING.md", "python")]
    assert named == [f"{name}.py" for name in EXAMPLES]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_contributing_work_from_an_empty_folder(name: str, tmp_path: Path) -> None:
    code = next(code for code in blocks("CONTRIBUTING.md", "python") if code.startswith(f"# {name}.py"))
    (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "squeezed.toml").write_text(SQUEEZED)
    short = ["--steps", "3", "--name", "run", "--set", "training.batch_size=8", "--set", "training.test_every=1 step"]
    for arguments in EXAMPLES[name]:
        said = zeuxis_says(tmp_path, "state", *arguments, *(short if arguments[0] == "train" else []))
        assert said.returncode == 0, said.stderr
    run = tmp_path / "runs" / "run"
    if not (run / "plugins").exists():
        return
    assert (run / "plugins" / f"{name}.py").read_text() == code
    if name == "contrast":
        assert (run / "checkpoints" / "best.safetensors").exists()
    # On another machine: the run alone, in another place, and nobody who remembers it.
    run.rename(tmp_path / "elsewhere")
    (tmp_path / f"{name}.py").unlink()
    refused = zeuxis_says(tmp_path, "other", "sample", "elsewhere", "-n", "2")
    assert refused.returncode == 2
    assert f"the plugin {name}.py is code that would be imported and run" in " ".join(refused.stderr.split())
    opened = zeuxis_says(tmp_path, "other", "sample", "elsewhere", "-n", "2", "--trust")
    assert opened.returncode == 0, opened.stderr
