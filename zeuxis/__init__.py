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
from typing import TYPE_CHECKING, Any, Literal

from zeuxis.arguments import checked

if TYPE_CHECKING:
    import numpy as np

    from zeuxis.evaluation.judge import Judge
    from zeuxis.latent import Directions, Projection
    from zeuxis.listing import Entry
    from zeuxis.notebook import Evaluation
    from zeuxis.report import Comparison
    from zeuxis.run import Run
    from zeuxis.training import Callback

__all__ = [
    "__version__", "benchmark", "compare", "directions", "edit", "evaluate", "load", "project", "resume", "runs",
    "runs_dir", "sweep", "train",
]  # fmt: skip

__version__ = "0.1.0"


@checked
def runs_dir(given: str | Path | None = None) -> Path:
    """The folder that holds runs: the one given, else `ZEUXIS_RUNS`, else `runs` here.

    For an address in a store, such as `s3://bucket/runs`, it is the folder that stands for it on this machine
    (`zeuxis.stores`).
    """
    chosen = given or os.environ.get("ZEUXIS_RUNS") or "runs"
    from zeuxis.stores import is_address, local_folder

    return local_folder(str(chosen)) if is_address(str(chosen)) else Path(chosen)


@checked
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
    size: int | str | None = None,
    track: Sequence[str] = (),
    from_run: str | Path | None = None,
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
        runs: folder for runs, or an address in a store such as `s3://bucket/runs`.
        name: name of the run's folder.
        trust: import modules that the recipe inherits from elsewhere, or that a run names which it builds on.
        progress: show what happens.
        callbacks: what takes part in it besides, `zeuxis.training.Callback`.
        plugins: Python files that register what the recipe names; the run keeps a copy.
        size: of the images, a side in pixels or `"WIDTHxHEIGHT"`; the recipe's networks follow.
        track: trackers that follow the training: `tensorboard`, `mlflow`, `wandb`.
        from_run: a run, by folder or name, whose weights it starts from, as far as names and shapes fit.

    Raises:
        UserError: for anything that cannot work, in a sentence.
    """
    from zeuxis.data import choose
    from zeuxis.errors import UserError
    from zeuxis.plugins import load_plugins, read_plugin
    from zeuxis.recipe import budget_settings, load_recipe, together
    from zeuxis.run import Run, find_run
    from zeuxis.sizing import resized
    from zeuxis.training import start, tracked
    from zeuxis.trust import Trust

    # Before the data are looked for, which may be a plugin's.
    load_plugins(read_plugin(Path(path), "The argument plugins") for path in plugins)
    images = choose(data) if data is not None else {}
    seeded = {"training.seed": seed} if seed is not None else {}
    overrides = together(images, budget_settings(epochs, steps, minutes), seeded, settings or {})
    if size is not None and "data.size" in overrides:
        raise UserError("The size is given twice: as size and as the setting data.size. Give it once.")
    chosen = load_recipe(recipe, overrides, trust=Trust(trust), plugins=plugins)
    chosen = resized(chosen, size) if size is not None else chosen
    origin = find_run(from_run, runs_dir(runs)).path if from_run is not None else None
    folder, _ = start(
        tracked(chosen, track), runs_dir(runs), name=name, visible=progress, callbacks=callbacks, from_run=origin
    )
    return Run(folder, trust=chosen.trust)


@checked
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


def _opened(run: str | Path | Run, trust: bool) -> Run:
    """Returns a run that may be given by its folder or its name."""
    from zeuxis.run import Run

    return run if isinstance(run, Run) else load(run, trust=trust)


@checked
def evaluate(
    run: str | Path | Run,
    *,
    samples: int = 2000,
    seed: int = 0,
    only: Sequence[str] = (),
    judge: str | Path | Run | None = None,
    trust: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Measures a run, writes `evaluation.json` into its folder, and returns what stands there.

    Args:
        run: a run, its folder or its name.
        samples: images that it makes for it.
        seed: of their latents.
        only: names of measures, such as `["fid", "kid"]`; empty for all that apply.
        judge: in whose features distances are measured: `random`, `efficientnet`, `inception` or `timm:MODEL`, or a
            classifier, as a run, its folder or its name; None for the run's own.
        trust: as of `load`.
        progress: show a bar.
    """
    from zeuxis.evaluation.evaluate import evaluate as measure_all
    from zeuxis.evaluation.features import JUDGES, judge_by_name
    from zeuxis.notebook import Evaluation

    opened = _opened(run, trust)
    network: Judge | None = None
    if isinstance(judge, str) and judge.partition(":")[0] in JUDGES:
        network = judge_by_name(judge, opened.recipe.data.shape)
    elif judge is not None:
        network = _opened(judge, trust)
    return Evaluation(measure_all(opened, samples=samples, seed=seed, judge=network, only=only, progress=progress))


@checked
def directions(run: str | Path | Run, *, trust: bool = False) -> Directions:
    """Returns the principal directions of a run's latent space, each as long as one standard deviation.

    Args:
        run: a run, its folder or its name.
        trust: as of `load`.
    """
    from zeuxis.latent import directions as find

    return find(_opened(run, trust))


@checked
def edit(
    run: str | Path | Run,
    pictures: Sequence[str | Path],
    *,
    attributes: Mapping[str, float] | None = None,
    along: Mapping[int, float] | None = None,
    label: str | None = None,
    trust: bool = False,
) -> np.ndarray:
    """Changes pictures of the user's own along directions in latent space; returns `(N, H, W, C)` images in 0..1.

    Args:
        run: a run, its folder or its name.
        pictures: image files, which are cropped and scaled as the images of training were.
        attributes: steps by the name of an attribute or class, such as `{"Smiling": 1.5}`.
        along: steps by the number of a direction of `directions`, counted from 1.
        label: the condition, for conditional models; None to search it.
        trust: as of `load`.
    """
    from zeuxis.latent import edit as move

    opened = _opened(run, trust)
    return move(opened, opened.read_files(pictures), attributes=attributes, along=along, label=label)[1]


@checked
def project(run: str | Path | Run, picture: str | Path, *, trust: bool = False, **options: Any) -> Projection:
    """Searches the latent whose image is nearest to a picture of the user's own.

    Args:
        run: a run, its folder or its name.
        picture: an image file, which is cropped and scaled as the images of training were.
        trust: as of `load`.
        options: `label`, `starts`, `steps`, `seed`, `judge` and `progress` of `zeuxis.latent.project`.
    """
    from zeuxis.latent import project as search

    opened = _opened(run, trust)
    return search(opened, opened.read_files([picture])[0], **options)


@checked
def resume(
    run: str | Path | Run,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Resumes a stopped run, or trains a finished one longer, and returns it.

    Args:
        run: a run, its folder or its name.
        epochs: the new budget in passes over the images, counted from the run's beginning.
        steps: the new budget in steps.
        minutes: the new budget in minutes.
        settings: what else changes, by dotted key; `zeuxis.training.changing` says what may.
        trust: as of `load`.
        progress: show a bar.
        callbacks: what takes part in it besides.

    Raises:
        UserError: if the run is finished, its checkpoints are damaged, its data has changed, or a setting may not
            change.
    """
    from zeuxis.recipe import budget_settings, together
    from zeuxis.run import Run
    from zeuxis.training import resume as go_on

    opened = _opened(run, trust)
    _ = opened.environment  # whether it is damaged shows before hours of training
    changes = together(budget_settings(epochs, steps, minutes), settings or {})
    go_on(opened.path, changes, trust=opened.trust, visible=progress, callbacks=callbacks)
    return Run(opened.path, trust=opened.trust)


@checked
def runs(folder: str | Path | None = None, *, sort: str = "name", matching: str = "") -> list[Entry]:
    """Returns the list of runs: name, recipe, progress, state, distance, date and size of each.

    Args:
        folder: that holds them; else as `runs_dir`.
        sort: as of `zeuxis runs --sort`.
        matching: only runs whose name, recipe, model or data contains this text.
    """
    from zeuxis.listing import entries

    return entries(runs_dir(folder), sort=sort, matching=matching)


@checked
def sweep(
    recipe: str | Path,
    over: Mapping[str, Sequence[Any]] | Sequence[str],
    out: str | Path | None = None,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    settings: Mapping[str, Any] | None = None,
    search: Literal["grid", "random", "tpe"] = "grid",
    trials: int | None = None,
    shown: Sequence[str] = (),
    samples: int = 2000,
    prune: str = "",
    storage: str = "",
    jobs: int | None = None,
    on: str = "local",
    trust: bool = False,
    progress: bool = True,
) -> Comparison:
    """Trains a recipe over settings, measures each run, and returns the report and its table.

    Args:
        recipe: a recipe's name, or the path of a TOML file.
        over: values by dotted key, or texts such as `"model.latent=2,8"` or `"model.kl_weight=0.1..10"`.
        out: folder of runs and report; else `sweep-RECIPE` in the folder of runs.
        epochs: of each training, or its `steps` or `minutes`, as of `train`.
        steps: of each training.
        minutes: of each training.
        settings: further recipe settings of all runs.
        search: every combination, random samples, or samples where earlier ones did well by the second of `shown`.
        trials: number of trainings, for a random or tpe search; 12 by default.
        shown: two measures that the report draws against each other; by default as of `zeuxis sweep`.
        samples: images that each run generates for the measures.
        prune: `asha` or `hyperband`, by which trainings end early that do worse than others; none if empty.
        storage: a database's address or a file where Optuna keeps such a search.
        jobs: trainings at once, each in a process of its own with an equal share of the cores; by default one, or as
            many as the cluster holds.
        on: where they train: `local`, this machine; `ray` or `ray:HOST:PORT`, a Ray cluster.
        trust: as of `load`.
        progress: show progress.
    """
    from zeuxis.recipe import budget_settings, load_recipe, together
    from zeuxis.study import Axis, parse_axis, require_apart
    from zeuxis.study import sweep as run_sweep
    from zeuxis.trust import Trust

    overrides = together(budget_settings(epochs, steps, minutes), settings or {})
    base = load_recipe(recipe, overrides, trust=Trust(trust))
    axes = (
        [Axis.of(key, values) for key, values in over.items()] if isinstance(over, Mapping)
        else [parse_axis(text) for text in over]
    )  # fmt: skip
    require_apart(axes, overrides)
    folder = Path(out) if out else runs_dir() / f"sweep-{base.name}"
    return run_sweep(
        base, axes, folder, search=search, trials=trials, shown=shown, samples=samples, jobs=jobs, on=on, prune=prune,
        storage=storage, progress=progress,
    )  # fmt: skip


@checked
def benchmark(
    models: Sequence[str],
    data: str | Path,
    out: str | Path | None = None,
    *,
    minutes: float | None = None,
    images: int | None = None,
    seeds: int = 1,
    samples: int = 2000,
    size: int | str | None = None,
    settings: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    on: str = "local",
    trust: bool = False,
    progress: bool = True,
) -> Comparison:
    """Trains models at one budget, measures them, and returns the report and its table.

    Args:
        models: recipes, or models, for which their standard recipes on such images are used.
        data: name of a source, or a folder or zip file of images.
        out: folder of runs and report; else `benchmark-DATA` in the folder of runs.
        minutes: budget of each training in time; or `images`.
        images: budget of each training in images, over all epochs.
        seeds: trainings of each model, which differ in their seeds.
        samples: images that each run generates for the measures.
        size: of the images, a side in pixels or `"WIDTHxHEIGHT"`, for images of your own.
        settings: recipe settings of all models.
        jobs: trainings at once, each in a process of its own with an equal share of the cores; by default one, or as
            many as the cluster holds.
        on: where they train: `local`, this machine; `ray` or `ray:HOST:PORT`, a Ray cluster.
        trust: as of `load`.
        progress: show progress.
    """
    from zeuxis.files import path_part
    from zeuxis.study import benchmark as run_benchmark
    from zeuxis.trust import Trust

    folder = Path(out) if out else runs_dir() / path_part(f"benchmark-{Path(data).stem}")
    return run_benchmark(
        models, str(data), folder, minutes=minutes, images=images, seeds=seeds, samples=samples, size=size,
        settings=settings, trust=Trust(trust), jobs=jobs, on=on, progress=progress,
    )  # fmt: skip


@checked
def compare(
    runs: Iterable[str | Path | Run],
    out: str | Path | None = None,
    *,
    seeds: int = 1,
    samples: int = 2000,
    trust: bool = False,
) -> Comparison:
    """Measures runs, writes a report that puts them side by side, and returns its path and its table of measures.

    Args:
        runs: at least two runs, or their folders or names.
        out: the HTML file; else `compare-NAMES.html` beside the first run.
        seeds: trainings of each, the run itself among them; the others are trained beside it.
        samples: images that each makes to be measured.
        trust: as of `load`.
    """
    from zeuxis.errors import UserError, shown
    from zeuxis.study import compare as side_by_side

    if isinstance(runs, str):
        raise UserError(f"compare: runs should be a list, not {shown(runs)}.")
    opened = [_opened(run, trust) for run in runs]
    return side_by_side(opened, Path(out) if out else None, seeds=seeds, samples=samples)
