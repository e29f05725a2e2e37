"""The documentation says what the code does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import zeuxis
from zeuxis import data, figures, models
from zeuxis.recipe import load_recipe
from zeuxis.run import Run

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), flags=re.S)


def test_pages_made_from_the_code_are_current() -> None:
    makers = {"recipes.md": "render", "figures.md": "render_figures", "measures.md": "render_measures"}
    # In a process of its own, where no test has registered anything.
    code = (
        "import json, runpy; made = runpy.run_path('docs/make_pages.py'); "
        f"print(json.dumps({{page: made[maker]() for page, maker in {makers}.items()}}))"
    )
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
        if name in {"three-phases", "plain-critic", "msgan"}:  # of tests
            continue
        page = (ROOT / "docs" / "models" / f"{name}.md").read_text("utf-8")
        assert f"<!-- options: {name} -->" in page
        for heading in ("## The idea", "## The objective", "## What goes wrong, and how one sees it"):
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


def test_commands_of_the_readme_exist() -> None:
    from zeuxis.cli import app

    known = {command.callback.__name__ for command in app.registered_commands} | {"data"}
    used = set(re.findall(r"^zeuxis (\w+)", (ROOT / "README.md").read_text("utf-8"), flags=re.M))
    assert used
    assert used <= known


def test_the_worked_examples_of_contributing_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example, put into its one file, is found, trained, read and drawn."""
    for registry in (models.MODELS, data.SOURCES, figures.FIGURES):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))  # so that nothing stays registered
        monkeypatch.setattr(registry, "_loaded", False)
    examples = zip(
        (models, data, figures), ("msgan", "ramps", "averages"), blocks("CONTRIBUTING.md", "python"), strict=True
    )
    for package, name, code in examples:
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(code)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    run = zeuxis.train(
        "mnist-gan", "ramps", steps=3,
        settings={"model.name": "msgan", "training.batch_size": 8, "training.record_every": 1},
        runs=tmp_path / "runs", progress=False,
    )  # fmt: skip
    assert run.classes == ("down", "across")
    assert 0 < run.last("discriminator/loss") < 10
    assert "averages" in figures.draw_all(run, progress=False)
