"""Every recipe trains for a few steps on generated images of its shape, samples, draws its figures and resumes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zeuxis
from zeuxis.figures import draw_all, kinds
from zeuxis.recipe import Recipe, load_recipe, recipe_names
from zeuxis.run import Run
from zeuxis.training import resume

# Steps that a run has before it is resumed, and after.
BEFORE, AFTER = 2, 3
# Recipes that need a trained run, and the recipe of that run.
BUILT_ON = {"latent-gan": "mnist-vae-z16", "modern-latent-flow-64": "modern-ae-64"}


def images(folder: Path, recipe: Recipe) -> dict[str, object]:
    """Writes coloured noise in folders of two, five or ten classes; returns what points the recipe at it."""
    generator = np.random.default_rng(0)
    data = recipe.data
    count = 2 if data.attribute else len(data.classes) or (5 if data.channels == 3 else 10)
    names = data.classes or [str(i) for i in range(count)]
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(60 // count):
            pixels = generator.integers(0, 256, (*data.shape[1:], 3), np.uint8)
            image = Image.fromarray(pixels)
            (image if data.channels == 3 else image.convert("L")).save(folder / name / f"{i}.png")
    return {"data.source": "folder", "data.path": str(folder), "data.attribute": ""}


def quick() -> list[str]:
    """Of each model the recipe with the smallest images."""
    recipes = sorted(map(load_recipe, recipe_names()), key=lambda recipe: (recipe.data.size, recipe.data.channels))
    return sorted({recipe.model.name: recipe.name for recipe in reversed(recipes)}.values())


def tried(name: str, folder: Path) -> Run:
    """Trains a recipe, resumes it, and asks the run for all that it can."""
    settings: dict[str, object] = {
        **images(folder / "images", load_recipe(name)),
        "training.batch_size": 4, "training.log_every": 1, "training.snapshot_every": "1 step",
        "training.checkpoint_every": "never", "training.test_every": "1 step", "training.best": "",
        "data.flip": False,
    }  # fmt: skip
    if name in BUILT_ON:
        zeuxis.train(BUILT_ON[name], steps=1, settings=settings, runs=folder, progress=False)
    if "flow" in load_recipe(name).model.name:  # figures ask for thousands of images
        settings |= {"model.solver_steps": 1, "model.solver": "euler"}
    run = zeuxis.train(name, steps=BEFORE, settings=settings, runs=folder, progress=False)
    assert resume(run.path, {"training.steps": AFTER}, visible=False)
    run = Run(run.path)
    assert run.step == run.journal[-1]["step"] == AFTER
    shape = (*run.recipe.data.shape[1:], run.recipe.data.channels)
    if run.generates:
        made = run.sample(3, seed=2)
        assert made.shape == (3, *shape)
        assert np.isfinite(made).all()
        assert len(run.snapshots) == AFTER + 1
    if run.encodes:
        chosen = run.choose_images("test")
        assert run.reconstruct(run.images(chosen), run.condition_of_labels(run.labels(chosen))).shape[1:] == shape
    if run.codes:
        assert run.read_codes(run.sample(5)).shape == (5, len(run.codes))
    if run.classifies:
        assert np.allclose(run.classify(run.images(run.choose_images("test"))).sum(axis=1), 1, atol=1e-5)
    return run


@pytest.mark.parametrize("name", quick())
def test_a_recipe_runs(name: str, tmp_path: Path) -> None:
    tried(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_runs_and_is_drawn(name: str, tmp_path: Path) -> None:
    run = tried(name, tmp_path)
    drawn = draw_all(run, progress=False)
    assert set(drawn) == {kind.name for kind in kinds() if kind.applies(run)}
    assert all(path.stat().st_size > 2000 for path in drawn.values())
    shutil.rmtree(run.path)
