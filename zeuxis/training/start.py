"""Starting a run, and going on with one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from zeuxis import data
from zeuxis.errors import UserError, shown
from zeuxis.files import WriteError, exists, is_name, locked, make_folder, subfolder, sweep, unfinished, why, write_file
from zeuxis.models import MODELS, build_model
from zeuxis.plugins import FOLDER
from zeuxis.progress import say, warn
from zeuxis.recipe import BUDGETS, Recipe, run_recipe
from zeuxis.training.callbacks import Callback, standard_callbacks
from zeuxis.training.checkpoint import Checkpoint, best_checkpoint, changes, checkpoints, load_weights, tidy
from zeuxis.training.hardware import describe_machine, pick_device, pick_precision
from zeuxis.training.optimizers import optimizer_of
from zeuxis.training.schedules import schedule_of
from zeuxis.training.trainer import Trainer
from zeuxis.trust import NOTHING, Trust, remember

__all__ = ["completed", "finished", "resolved", "resume", "start"]


def start(
    recipe: Recipe, runs: Path, *, name: str = "", visible: bool = True, callbacks: Sequence[Callback] = ()
) -> tuple[Path, bool]:
    """Trains a recipe into a new folder below `runs`.

    Args:
        recipe: what to train.
        runs: where runs are kept.
        name: the folder's name; else the recipe's, numbered.
        visible: show progress.
        callbacks: more that take part in it.

    Returns:
        The run folder, and whether the budget was used up (False after Ctrl-C).

    Raises:
        UserError: before anything is written if recipe, data and networks do not fit; later as `Trainer.fit`.
    """
    device = pick_device(recipe.training.device)
    recipe, trained = _trained_networks(_as_hardware_allows(recipe), runs)
    dataset = data.load(recipe.data, recipe=recipe.name)
    for note in dataset.notes if visible else ():
        warn(str(note))
    model = build_model(recipe, dataset.classes)
    for network, weights in trained.items():
        # A learned decoder variance belongs to the other run's loss.
        model.net(network).load_state_dict(weights, strict=False)
    taking_part = standard_callbacks(model, visible=visible, more=callbacks)
    trainer = Trainer(runs / (name or recipe.name), model, dataset, device, taking_part)
    environment = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": recipe.training.seed,
        **describe_machine(device),
        "data": dataset.describe(),
    }
    files: dict[str, str | bytes] = {
        "recipe.toml": model.recipe.to_toml(),
        "environment.json": json.dumps(environment, indent=2) + "\n",
        "journal.jsonl": "",
    }
    files |= {f"{FOLDER}/{plugin.name}": plugin.content for plugin in model.recipe.code}
    if dataset.left_out:
        lines = (f"{file}\t{reason}".replace("\n", "\\n") for file, reason in dataset.left_out.items())
        files["left-out.txt"] = "".join(f"{line}\n" for line in lines)
    with _new_run(runs, name, recipe.name, files) as folder:
        trainer.folder = folder
        remember(folder, model.recipe.calls)
        return folder, trainer.fit()


def resume(
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    trust: Trust = NOTHING,
    visible: bool = True,
    callbacks: Sequence[Callback] = (),
) -> bool:
    """Goes on with a run from its last good checkpoint.

    Args:
        folder: the run folder.
        overrides: training settings to change, such as `{"training.epochs": 60}`.
        trust: as of `Run`.
        visible: show progress.
        callbacks: more that take part in it.

    Returns:
        Whether the budget was used up.

    Raises:
        UserError: if the run is finished, its checkpoints are damaged, or its data has changed.
    """
    with locked(folder):
        sweep(folder)
        given = run_recipe(folder, trust=trust)
        recipe = _as_hardware_allows(given.updated(overrides or {}))
        device = pick_device(recipe.training.device)
        dataset = data.load(recipe.data, recipe=recipe.name)
        model = build_model(recipe, dataset.classes)
        taking_part = standard_callbacks(model, visible=visible, more=callbacks)
        trainer = Trainer(folder, model, dataset, device, taking_part)
        tidy(subfolder(folder, "checkpoints"))
        checkpoint = _last_good(folder)
        if checkpoint is not None:
            for words in changes(checkpoint.state, given):
                warn(f"{folder / 'recipe.toml'} was changed since step {checkpoint.state['step']}: {words}.")
            trainer.restore(checkpoint)
            if trainer.settled and overrides:
                trainer.extend()
        if trainer.complete:
            budget, used = trainer.spent
            reason = f"{recipe.training.until} no longer falls" if trainer.settled else ""
            raise UserError(
                f"{folder} {f'has settled: {reason}' if reason else 'has used up its budget'} (step {trainer.step}, "
                f"epoch {trainer.epoch:g}); to train it further, give a larger budget, such as --{budget} "
                f"{math.ceil(2 * used)}."
            )
        if overrides:
            write_file(folder / "recipe.toml", trainer.model.recipe.to_toml())
        say(f"Going on with {folder} at step {trainer.step}.")
        return trainer.fit()


def finished(folder: Path) -> bool:
    """Whether a run has used up its budget."""
    options = run_recipe(folder).training
    checkpoint = _last_good(folder, parts=())
    if checkpoint is None:
        return False
    state = checkpoint.state
    if state.get("settled", False):
        return True
    used = {"epochs": state["epoch"], "steps": state["step"], "minutes": state["seconds"] / 60}
    return any(used[name] >= (getattr(options, name) or float("inf")) for name in BUDGETS)


def resolved(recipe: Recipe, runs: Path) -> Recipe:
    """A recipe as its run records it but for the classes.

    A model built on another run takes that run's networks; what is left to the hardware is chosen, and all options of
    optimisers and schedule are written out.
    """
    return _trained_networks(_as_hardware_allows(recipe), runs)[0]


def _as_hardware_allows(recipe: Recipe) -> Recipe:
    precision = pick_precision(recipe.training.precision, pick_device(recipe.training.device))
    return completed(recipe.updated({"training.precision": precision}))


def completed(recipe: Recipe) -> Recipe:
    """A recipe with all options of its optimisers and schedule written out, as the model does with its own."""
    training = recipe.training
    chosen = {
        "optimizer": training.optimizer.completed(optimizer_of(recipe)[1]),
        "optimizers": {
            phase: choice.completed(optimizer_of(recipe, phase)[1]) for phase, choice in training.optimizers.items()
        },
        "schedule": training.schedule.completed(schedule_of(recipe)),
    }
    return recipe.model_copy(update={"training": training.model_copy(update=chosen)}).trusting(recipe.trust)


def _trained_networks(recipe: Recipe, runs: Path) -> tuple[Recipe, dict[str, dict[str, Tensor]]]:
    """Where a model is built on another run: the recipe with that run's data and networks, and their weights."""
    kind = MODELS[recipe.model.name]
    if not kind.trained_networks:
        return recipe, {}
    named = getattr(kind.read_options(recipe), kind.trained_option)
    key = f"model.{kind.trained_option}"
    found = [folder for folder in (Path(named), runs / named) if named and exists(folder / "recipe.toml")]
    if not found:
        raise UserError(
            f"The model '{recipe.model.name}' is built on a trained run, and {key} names none: "
            f"{f'there is no run {shown(named)} in {runs}' if named else 'it is empty'}. Train one first, such as "
            f"`zeuxis train mnist-vae-z16`, and name it, as in --set {key}=mnist-vae-z16-1."
        )
    other = run_recipe(found[0], trust=recipe.trust)
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
        "model.latent": model.recipe.model.options["latent"],
        "networks": networks,
    }
    trusting = recipe.updated(changed).with_code([*recipe.code, *other.code]).trusting(recipe.trust | other.trust)
    return trusting, {name: model.net(name).state_dict() for name in kind.trained_networks}


def _last_good(folder: Path, parts: tuple[str, ...] = ("",)) -> Checkpoint | None:
    """Reads the newest checkpoint that is whole, or parts of it; None where a run was stopped before its first."""
    found = checkpoints(folder / "checkpoints")
    for path in found:
        try:
            return Checkpoint.read(path, parts)
        except UserError as error:
            warn(f"{error} The one before it is tried.")
    if found:
        raise UserError(f"All {len(found)} checkpoints in {folder / 'checkpoints'} are damaged; start a new run.")
    return None


@contextmanager
def _new_run(runs: Path, name: str, recipe: str, files: Mapping[str, str | bytes]) -> Iterator[Path]:
    """A new run, which appears whole, and is locked while the block runs.

    Args:
        runs: where runs are kept.
        name: the folder's name; else the recipe's, numbered.
        recipe: the recipe's name.
        files: what it holds at first.
    """
    if name and not is_name(name):
        raise UserError(f"{shown(name)} is no name for a run; it becomes a folder below {runs}.")
    if runs.exists() and not runs.is_dir():
        raise UserError(f"Runs cannot be kept in {runs}: it is a file.")
    if name and (runs / name).exists():
        raise UserError(f"There is a run {runs / name} already; resume it, or choose another --name.")
    first = not runs.exists()
    try:
        with ExitStack() as held:
            try:
                beside = held.enter_context(unfinished(runs))
                for file, content in files.items():
                    make_folder((beside / file).parent)
                    write_file(beside / file, content)
                folder = _placed(beside, runs, name, recipe)
            except WriteError as error:
                reason = why(error.__cause__ or error)
                raise WriteError(
                    f"No run can be begun in {runs}: {reason}. Choose another folder with --runs."
                ) from error
            yield folder
    finally:
        if first:
            with suppress(OSError):  # it holds a run
                runs.rmdir()


def _placed(beside: Path, runs: Path, name: str, recipe: str) -> Path:
    """Renames a new run to its name, or to the first number that is free."""
    number = 1
    while True:
        folder = runs / (name or f"{recipe}-{number}")
        try:
            if folder.exists():  # an empty one would be replaced
                raise FileExistsError
            beside.rename(folder)
            return folder
        except OSError as error:
            if not folder.exists():
                raise WriteError(f"The run {folder} cannot be made: {why(error)}.") from error
            if name:
                raise UserError(f"There is a run {folder} already; resume it, or choose another --name.") from error
            number += 1
