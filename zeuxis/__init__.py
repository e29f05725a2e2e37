"""Zeuxis: a laboratory for generative image models.

    import zeuxis

    run = zeuxis.train("mnist-vae-z2", data="digits", epochs=5)
    images = run.sample(16)

Heavy imports happen when a function is called: importing the package stays quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeuxis.run import Run
    from zeuxis.training import Callback

__all__ = ["__version__", "compare", "evaluate", "load", "runs_dir", "train"]

__version__ = "0.1.0"


def runs_dir(given: str | Path | None = None) -> Path:
    """The folder that holds runs: the one given, else `ZEUXIS_RUNS`, else `runs` here."""
    return Path(given or os.environ.get("ZEUXIS_RUNS") or "runs")


def train(
    recipe: str | Path,
    data: Any = None,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    runs: str | Path | None = None,
    name: str = "",
    trust: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    plugins: Sequence[str | Path] = (),
) -> Run:
    """Trains a recipe and returns the finished run.

    Args:
        recipe: a recipe's name, or the path of a TOML file.
        data: a data source's name; a folder or zip of images; arrays as a .npy or .npz file, or in memory: images
            `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`, or a pair of images and labels; else the recipe's own.
        epochs: train for this many passes over the images, instead of the recipe's budget.
        steps: train for this many iterations.
        minutes: train for this long.
        seed: of weights, batches and latents.
        settings: further recipe settings, such as `{"model.latent": 8}`.
        runs: folder for runs.
        name: name of the run's folder.
        trust: import modules that the recipe inherits from elsewhere, or that a run names which it builds on.
        progress: show what happens.
        callbacks: what takes part in it besides, `zeuxis.training.Callback`.
        plugins: Python files that register what the recipe names; the run keeps a copy.

    Raises:
        UserError: for anything that cannot work, in a sentence.
    """
    from zeuxis.data import choose
    from zeuxis.plugins import load_plugins, read_plugin
    from zeuxis.recipe import load_recipe
    from zeuxis.run import Run
    from zeuxis.training import start
    from zeuxis.trust import Trust

    # Before the data are looked for, which may be a plugin's.
    load_plugins(read_plugin(Path(path), "The argument plugins") for path in plugins)
    overrides = dict(settings or {})
    if data is not None:
        overrides |= choose(data)
    given = {"epochs": epochs, "steps": steps, "minutes": minutes, "seed": seed}
    overrides |= {f"training.{key}": value for key, value in given.items() if value is not None}
    chosen = load_recipe(recipe, overrides, trust=Trust(trust), plugins=plugins)
    folder, _ = start(chosen, runs_dir(runs), name=name, visible=progress, callbacks=callbacks)
    return Run(folder, trust=chosen.trust)


def load(path: str | Path, *, trust: bool = False) -> Run:
    """Opens a run by its folder, or by its name in the folder of runs.

    Args:
        path: the folder, or the name.
        trust: import Python modules that the run names, though it was not trained here.

    Raises:
        UserError: if there is no such run; when the model is first asked for, if it needs a module that is not trusted.
    """
    from zeuxis.run import find_run
    from zeuxis.trust import Trust

    return find_run(path, runs_dir(), trust=Trust(trust))


def evaluate(
    run: str | Path | Run, *, samples: int = 10_000, seed: int = 0, trust: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Measures a run, writes `evaluation.json` into its folder, and returns what stands there.

    Args:
        run: a run, its folder or its name.
        samples: images that it makes for it.
        seed: of their latents.
        trust: as of `load`.
        progress: show a bar.
    """
    from zeuxis.evaluation.evaluate import evaluate as measure_all
    from zeuxis.run import Run

    opened = run if isinstance(run, Run) else load(run, trust=trust)
    return measure_all(opened, samples=samples, seed=seed, progress=progress)


def compare(
    runs: Iterable[str | Path | Run],
    out: str | Path | None = None,
    *,
    seeds: int = 1,
    samples: int = 2000,
    trust: bool = False,
) -> Path:
    """Measures runs, writes a report that puts them side by side, and returns its path.

    Args:
        runs: at least two runs, or their folders or names.
        out: the HTML file; else `compare-NAMES.html` beside the first run.
        seeds: trainings of each, the run itself among them; the others are trained beside it.
        samples: images that each makes to be measured.
        trust: as of `load`.
    """
    from zeuxis.run import Run
    from zeuxis.study import compare as side_by_side

    opened = [run if isinstance(run, Run) else load(run, trust=trust) for run in runs]
    return side_by_side(opened, Path(out) if out else None, seeds=seeds, samples=samples).path
