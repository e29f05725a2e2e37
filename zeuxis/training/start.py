"""Starting a run, and going on with one."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from zeuxis import data
from zeuxis.errors import UserError
from zeuxis.models import build_model, models
from zeuxis.progress import console
from zeuxis.recipe import BUDGETS, Recipe, load_recipe
from zeuxis.training.checkpoint import Checkpoint, best_checkpoint, checkpoints, load_weights
from zeuxis.training.display import Display
from zeuxis.training.hardware import describe_machine, pick_device, pick_precision
from zeuxis.training.trainer import Observer, Trainer, readable_disk_errors

__all__ = ["finished", "resolved", "resume", "start"]


def start(recipe: Recipe, runs: Path, observer: Observer, *, name: str = "") -> tuple[Path, bool]:
    """Trains a recipe into a new folder below `runs`.

    Args:
        recipe: what to train.
        runs: where runs are kept.
        observer: told of what happens.
        name: the folder's name; else the recipe's, numbered.

    Returns:
        The run folder, and whether the budget was used up (False after Ctrl-C).

    Raises:
        UserError: before anything is written if recipe, data and networks do not fit; later as `Trainer.fit`.
    """
    device = pick_device(recipe.training.device)
    recipe, trained = _trained_networks(_as_hardware_allows(recipe), runs)
    dataset = data.load(recipe.data, recipe=recipe.name)
    for file, why in list(dataset.quarantine.items())[:3]:
        observer.say(f"{file} cannot be read and is left out ({why}).")
    if len(dataset.quarantine) > 3:
        observer.say(f"{len(dataset.quarantine)} files cannot be read in all; quarantine.txt in the run lists them.")
    model = build_model(recipe, dataset.classes)
    for network, weights in trained.items():
        # A learned decoder variance belongs to the other run's loss.
        model.net(network).load_state_dict(weights, strict=False)
    first = not runs.exists()
    folder = _new_folder(runs, name, recipe.name)
    try:
        with readable_disk_errors(folder):
            trainer = Trainer(folder, model, dataset, device, observer)
            environment = {
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "seed": recipe.training.seed,
                **describe_machine(device),
                "data": dataset.describe(),
            }
            (folder / "recipe.toml").write_text(model.recipe.to_toml(), "utf-8")
            (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n", "utf-8")
            if dataset.quarantine:
                lines = (f"{file}\t{why}\n" for file, why in dataset.quarantine.items())
                (folder / "quarantine.txt").write_text("".join(lines), "utf-8")
    except BaseException:
        # Nothing half-written stays behind a run that never began.
        shutil.rmtree(folder)
        if first:
            with suppress(OSError):  # another run may have come since
                runs.rmdir()
        raise
    return folder, trainer.fit()


def resume(folder: Path, observer: Observer, overrides: Mapping[str, Any] | None = None) -> bool:
    """Goes on with a run from its last good checkpoint.

    Args:
        folder: the run folder.
        observer: told of what happens.
        overrides: training settings to change, such as `{"training.epochs": 60}`.

    Returns:
        Whether the budget was used up.

    Raises:
        UserError: if the run is finished, its checkpoints are damaged, or its data has changed.
    """
    recipe = _as_hardware_allows(load_recipe(folder / "recipe.toml", overrides or {}))
    device = pick_device(recipe.training.device)
    dataset = data.load(recipe.data, recipe=recipe.name)
    model = build_model(recipe, dataset.classes)
    trainer = Trainer(folder, model, dataset, device, observer)
    checkpoint = _last_good(folder, observer)
    if checkpoint is not None:
        trainer.restore(checkpoint)
        if trainer.settled and overrides:
            trainer.settled, trainer.watched_from = False, trainer.step
    if trainer.progress >= 1:
        budget, used = trainer.spent
        why = f"has settled: {recipe.training.until} no longer falls" if trainer.settled else "has used up its budget"
        raise UserError(
            f"{folder} {why} (step {trainer.step}, epoch {trainer.epoch:g}); "
            f"to train it further, give a larger budget, such as --{budget} {math.ceil(2 * used)}."
        )
    if overrides:
        (folder / "recipe.toml").write_text(model.recipe.to_toml(), "utf-8")
    console.print(f"Going on with {folder} at step {trainer.step}.")
    return trainer.fit()


def finished(folder: Path) -> bool:
    """Whether a run has used up its budget."""
    options, checkpoint = load_recipe(folder / "recipe.toml").training, _last_good(folder, Display(visible=False))
    if checkpoint is None:
        return False
    state = checkpoint.state
    if state.get("settled", False):
        return True
    used = {"epochs": state["epoch"], "steps": state["step"], "minutes": state["seconds"] / 60}
    return any(used[name] >= (getattr(options, name) or float("inf")) for name in BUDGETS)


def resolved(recipe: Recipe, runs: Path) -> Recipe:
    """A recipe as its run records it but for the classes.

    A model built on another run takes that run's networks, and a precision that is left to the hardware is chosen.
    """
    return _trained_networks(_as_hardware_allows(recipe), runs)[0]


def _as_hardware_allows(recipe: Recipe) -> Recipe:
    precision = pick_precision(recipe.training.precision, pick_device(recipe.training.device))
    return recipe.updated({"training.precision": precision})


def _trained_networks(recipe: Recipe, runs: Path) -> tuple[Recipe, dict[str, dict[str, Tensor]]]:
    """Where a model is built on another run: the recipe with that run's data and networks, and their weights."""
    kind = models().get(recipe.model.name)
    if kind is None or not kind.trained_networks:
        return recipe, {}
    named = recipe.model.options.get(kind.trained_option, "")
    key = f"model.{kind.trained_option}"
    found = [folder for folder in (Path(named), runs / named) if named and (folder / "recipe.toml").is_file()]
    if not found:
        raise UserError(
            f"The model '{recipe.model.name}' is built on a trained run, and {key} names none: "
            f"{f'there is no run {named!r} in {runs}' if named else 'it is empty'}. Train one first, such as "
            f"`zeuxis train mnist-vae-z16`, and name it, as in --set {key}=mnist-vae-z16-1."
        )
    other = load_recipe(found[0] / "recipe.toml")
    for network in kind.trained_networks:
        if network not in other.networks:
            raise UserError(f"{key} names {found[0]}, a '{other.model.name}', which has no network '{network}'.")
    model = build_model(other)
    if model.conditional:
        raise UserError(f"{key} names {found[0]}, a '{other.model.name}', which is told a class; it must not be.")
    path = best_checkpoint(found[0] / "checkpoints")
    if path is None:
        raise UserError(f"{key} names {found[0]}, which has no checkpoint yet; let it train further, or resume it.")
    load_weights(model, Checkpoint.read(path))
    networks = {name: options.model_dump() for name, options in recipe.networks.items()}
    networks |= {name: other.networks[name].model_dump() for name in kind.trained_networks}
    changed = {
        "data": other.data.model_dump(),
        "model.latent": other.model.options["latent"],
        "networks": networks,
    }
    return recipe.updated(changed), {name: model.net(name).state_dict() for name in kind.trained_networks}


def _last_good(folder: Path, observer: Observer) -> Checkpoint | None:
    """Reads the newest checkpoint that is whole; None where a run was stopped before its first."""
    found = checkpoints(folder / "checkpoints")
    for path in found:
        try:
            return Checkpoint.read(path)
        except UserError as error:
            observer.say(f"{error} The one before it is tried.")
    if found:
        raise UserError(f"All {len(found)} checkpoints in {folder / 'checkpoints'} are damaged; start a new run.")
    return None


def _new_folder(runs: Path, name: str, recipe: str) -> Path:
    if name and (Path(name).name != name or name.startswith(".")):
        raise UserError(f"'{name}' is no name for a run; it becomes a folder below {runs}.")
    number = 1
    while True:
        folder = runs / (name or f"{recipe}-{number}")
        try:
            runs.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder
        except FileExistsError as error:
            if not runs.is_dir():
                raise UserError(f"Runs cannot be kept in {runs}: it is a file.") from error
            if name:
                raise UserError(f"There is a run {folder} already; resume it, or choose another --name.") from error
            number += 1
        except OSError as error:
            raise UserError(
                f"Runs cannot be kept in {runs} ({error.strerror}); choose another folder with --runs."
            ) from error
