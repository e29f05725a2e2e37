"""Starting and resuming runs."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from zeuxis import data
from zeuxis.data.notes import in_sentences
from zeuxis.errors import UserError, shown
from zeuxis.files import (
    WriteError,
    exists,
    locked,
    make_folder,
    name_fault,
    regular,
    rename_locked,
    subfolder,
    sweep,
    unfinished,
    why,
    write_file,
)
from zeuxis.models import MODELS, Model, build_model
from zeuxis.plugins import FOLDER
from zeuxis.progress import counted, say, warn
from zeuxis.recipe import Recipe, recipe_names, run_recipe
from zeuxis.stores import at_hand
from zeuxis.training.callbacks import Callback, standard_callbacks
from zeuxis.training.changing import CHANGES, changed, record
from zeuxis.training.checkpoint import Checkpoint, best_checkpoint, changes, checkpoints, load_weights, tidy
from zeuxis.training.distributed import joined, launch_id, restarted
from zeuxis.training.hardware import describe_machine, pick_device, pick_precision
from zeuxis.training.journal import read_changes, read_journal
from zeuxis.training.optimizers import optimizer_of
from zeuxis.training.schedules import schedule_of
from zeuxis.training.trainer import Trainer
from zeuxis.trust import NOTHING, Trust, remember

# Below so many training images, a warning says what to look out for.
FEW = 500
# Tensors that a message names.
NAMED = 6

__all__ = ["completed", "finished", "resolved", "resume", "start", "trained_run"]


def start(
    recipe: Recipe,
    runs: Path,
    *,
    name: str = "",
    visible: bool = True,
    callbacks: Sequence[Callback] = (),
    from_run: Path | None = None,
) -> tuple[Path, bool]:
    """Trains a recipe into a new folder below `runs`.

    Args:
        recipe: the recipe to train.
        runs: folder of runs.
        name: name of the new folder; by default the recipe's name and a number.
        visible: show progress.
        callbacks: further callbacks.
        from_run: folder of a run whose weights it starts from, as far as names and shapes fit.

    Returns:
        The run folder, and whether the budget was used up (False after Ctrl-C).

    Where several processes train together, they share the training; if they were started again because one of them had
    died, they go on with the run that they had begun.

    Raises:
        UserError: before anything is written if recipe, data and networks do not match; later as in `Trainer.fit`.
    """
    with joined() as share:
        begun = share.told(_launched(runs) if share.main else None) if restarted() else None
        if begun:
            return begun, resume(begun, trust=recipe.trust, visible=visible, callbacks=callbacks)
        trainer, files = _prepared(recipe, runs, name, visible, callbacks, from_run)
        with ExitStack() as stack:
            if share.main:
                trainer.folder = stack.enter_context(_new_run(runs, name, recipe.name, files))
                remember(trainer.folder, trainer.model.recipe.calls)
            trainer.folder = share.told(trainer.folder)
            return trainer.folder, trainer.fit()


def _prepared(
    recipe: Recipe, runs: Path, name: str, visible: bool, callbacks: Sequence[Callback], from_run: Path | None
) -> tuple[Trainer, dict[str, str | bytes]]:
    """Returns the trainer of a new run, and the first files of its folder, by path; writes nothing."""
    device = pick_device(recipe.training.device)
    asked = recipe.data
    recipe, trained = _trained_networks(_as_hardware_allows(recipe), runs)
    if visible and (recipe.data.source, recipe.data.path, recipe.data.size) != (asked.source, asked.path, asked.size):
        images = recipe.data.path or recipe.data.source
        say(f"The images are those of {trained_run(recipe)}, on which it is built: {images}, {recipe.data.in_words}.")
    dataset = data.load(recipe.data, recipe=recipe.name)
    count = counted(str(dataset.train_count), "training images")
    few = (
        f"There {'is' if dataset.train_count == 1 else 'are'} only {count}. A model soon learns so few by heart: "
        "compare samples with the nearest of them."
    )
    cautions = [few] if dataset.train_count < FEW else []
    notes = in_sentences(dataset.notes)
    if (batch := recipe.training.batch_size) > dataset.train_count:
        notes.append(f"Each batch holds all there is: {count}, fewer than training.batch_size = {batch}.")
    for words in [*notes, *cautions] if visible else ():
        warn(words)
    model = build_model(recipe, dataset.classes)
    for network, weights in trained.items():
        # A learned decoder variance belongs to the other run's loss.
        model.net(network).load_state_dict(weights, strict=False)
    origin = _start_from(model, from_run, visible) if from_run else {}
    taking_part = standard_callbacks(model, visible=visible, more=callbacks)
    trainer = Trainer(runs / (name or recipe.name), model, dataset, device, taking_part)
    trainer.warm = bool(trained or origin)
    environment = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": recipe.training.seed,
        **describe_machine(device),
        "data": dataset.describe(),
        **origin,
        **({"launch": launch_id(), "processes": trainer.share.size} if trainer.share.size > 1 else {}),
    }
    files: dict[str, str | bytes] = {
        "recipe.toml": model.recipe.to_toml(),
        "environment.json": json.dumps(environment, indent=2) + "\n",
        "journal.jsonl": "",
    }
    for words in cautions:
        files["warnings.jsonl"] = json.dumps({"step": 0, "epoch": 0.0, "warning": words}) + "\n"
    files |= {f"{FOLDER}/{plugin.name}": plugin.content for plugin in model.recipe.code}
    if dataset.left_out:
        lines = (f"{file}\t{reason}".replace("\n", "\\n") for file, reason in dataset.left_out.items())
        files["left-out.txt"] = "".join(f"{line}\n" for line in lines)
    return trainer, files


def _launched(runs: Path) -> Path | None:
    """Returns the run that this launch of processes had begun before one of them died."""
    for path in runs.glob("*/environment.json"):
        with suppress(OSError, ValueError):
            if json.loads(path.read_text("utf-8")).get("launch") == launch_id():
                return path.parent
    return None


def resume(
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    trust: Trust = NOTHING,
    visible: bool = True,
    callbacks: Sequence[Callback] = (),
) -> bool:
    """Resumes a run from its last good checkpoint.

    Args:
        folder: the run folder.
        overrides: settings to change, such as `{"training.epochs": 60}`; `zeuxis.training.changing` says which may.
        trust: as in `Run`.
        visible: show progress.
        callbacks: further callbacks.

    Returns:
        Whether the budget was used up.

    Raises:
        UserError: if the run is finished, its checkpoints are damaged, or its data has changed.
    """
    with joined() as share, locked(at_hand(folder)) if share.main else nullcontext():
        if share.main:
            sweep(folder)
            subfolder(folder, "checkpoints")  # refuses a link out of the run
        share.told(None)  # the others wait until the folder is in order
        recorded_recipe = run_recipe(folder, trust=trust)
        recipe = _as_hardware_allows(changed(recorded_recipe, overrides or {}))
        device = pick_device(recipe.training.device)
        dataset = data.load(recipe.data, recipe=recipe.name)
        model = build_model(recipe, dataset.classes)
        taking_part = standard_callbacks(model, visible=visible, more=callbacks)
        trainer = Trainer(folder, model, dataset, device, taking_part)
        checkpoint = _last_good(folder)
        if checkpoint is None and best_checkpoint(folder / "checkpoints"):
            raise UserError(
                f"{folder} holds only its weights, without the state of its optimisers: it cannot be resumed."
            )
        if checkpoint is not None:
            if share.main:
                tidy(folder / "checkpoints", checkpoint.state["step"])
            for change in changes(checkpoint.state, recorded_recipe, read_changes(folder / CHANGES)):
                warn(f"{folder / 'recipe.toml'} was changed since step {checkpoint.state['step']}: {change}.")
            trainer.restore(checkpoint)
            if trainer.settled and overrides:
                trainer.extend()
        else:
            _tell_what_is_lost(folder, recipe)
        if trainer.complete:
            budget, used_budget = trainer.spent
            reason = f"{recipe.training.until} no longer falls" if trainer.settled else ""
            raise UserError(
                f"{folder} {f'has settled: {reason}' if reason else 'has used up its budget'} (step {trainer.step}, "
                f"epoch {trainer.epoch:g}); to train it longer, give a larger budget for all of the training, such as "
                f"--{budget} {math.ceil(2 * used_budget)}."
            )
        read_journal(folder / "journal.jsonl")  # what cannot be read fails before anything is written
        if overrides and share.main:
            write_file(folder / "recipe.toml", trainer.model.recipe.to_toml())
            for words in record(folder, trainer.counters, recorded_recipe, trainer.model.recipe, overrides):
                say(f"From step {trainer.step} on: {words}.")
        say(f"Resuming {folder} at step {trainer.step}.")
        return trainer.fit()


def _tell_what_is_lost(folder: Path, recipe: Recipe) -> None:
    """Says what a run without checkpoints has lost, since its training begins anew.

    Raises:
        UserError: if it was finished, or began with weights of another run, which no seed makes again.
    """
    lines, where = read_journal(folder / "journal.jsonl"), folder / "checkpoints"
    origin = None
    with suppress(OSError, ValueError):
        origin = json.loads(regular(folder / "environment.json").read_text("utf-8")).get("from_run")
    if lines and recipe.training.used(lines[-1]) >= recipe.training.budget[1]:
        raise UserError(f"{folder} was finished, but {where} holds no checkpoint any more; start a new run.")
    if origin or trained_run(recipe):
        raise UserError(f"{folder} began with weights of another run, and {where} does not hold them; start a new run.")
    if lines:
        warn(f"{where} holds no checkpoint, so the {lines[-1]['step']:,} steps of {folder} are trained again.")


def _start_from(model: Model, folder: Path, visible: bool) -> dict[str, Any]:
    """Gives a new model the weights of a run, as far as names and shapes fit; returns what its run records of it.

    Raises:
        UserError: if the run has no weights, or if none fits.
    """
    path = best_checkpoint(folder / "checkpoints")
    if path is None:
        raise UserError(f"--from-run names {folder}, which has no checkpoint yet; let it train further, or resume it.")
    checkpoint = Checkpoint.read(path, parts=("networks/", "average/"))
    weights = checkpoint.part("networks/") | checkpoint.part("average/")
    own = model.networks.state_dict()
    taken = {name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape}
    if not taken:
        theirs = ", ".join(dict.fromkeys(name.partition(".")[0] for name in weights))
        raise UserError(
            f"No weights of {folder} fit: its networks are {theirs}, and those of recipe {model.recipe.name} are "
            f"{', '.join(model.networks)}, with other names or shapes."
        )
    model.networks.load_state_dict(taken, strict=False)
    new = [name for name in own if name not in taken]
    if visible:
        rest = f"new are {', '.join(new[:NAMED])}{f' and {len(new) - NAMED} more' * (len(new) > NAMED)}" if new else ""
        say(
            f"Starting from the weights of {folder} at step {checkpoint.state['step']}: {len(taken)} of {len(own)} "
            f"tensors fit{f'; {rest}' if rest else ''}."
        )
    return {
        "from_run": {
            "run": folder.resolve().name, "step": checkpoint.state["step"], "data": checkpoint.state["data"],
            "weights": hashlib.sha256(path.read_bytes()).hexdigest(), "taken": len(taken), "new": new,
        }
    }  # fmt: skip


def finished(folder: Path, trust: Trust = NOTHING) -> bool:
    """Whether a run has used up its budget; `trust` as in `Run`."""
    options = run_recipe(folder, trust=trust).training
    checkpoint = _last_good(folder, parts=())
    if checkpoint is None:
        return False
    state = checkpoint.state
    if state.get("settled", False):
        return True
    return options.used(state) >= options.budget[1]


def resolved(recipe: Recipe, runs: Path) -> Recipe:
    """Returns a recipe as its run would record it, except for the classes.

    A model built on another run gets that run's networks. Settings that depend on the hardware and all options of
    optimisers and schedule are filled in.
    """
    return _trained_networks(_as_hardware_allows(recipe), runs)[0]


def trained_run(recipe: Recipe) -> str:
    """Returns the name or folder of the run that a recipe's model is built on; "" if it is built on none."""
    kind = MODELS[recipe.model.name]
    return str(getattr(kind.read_options(recipe), kind.trained_option)) if kind.trained_networks else ""


def _as_hardware_allows(recipe: Recipe) -> Recipe:
    precision = pick_precision(recipe.training.precision, pick_device(recipe.training.device))
    return completed(recipe.updated({"training.precision": precision}))


def completed(recipe: Recipe) -> Recipe:
    """Returns a recipe with all options of its optimisers and schedule filled in, as the model does with its own."""
    training = recipe.training
    completed_choices = {
        "optimizer": training.optimizer.completed(optimizer_of(recipe)[1]),
        "optimizers": {
            phase: choice.completed(optimizer_of(recipe, phase)[1]) for phase, choice in training.optimizers.items()
        },
        "schedule": training.schedule.completed(schedule_of(recipe)),
    }
    return recipe.model_copy(update={"training": training.model_copy(update=completed_choices)}).trusting(recipe.trust)


def _trained_networks(recipe: Recipe, runs: Path) -> tuple[Recipe, dict[str, dict[str, Tensor]]]:
    """Returns the recipe of a model built on another run, with that run's data and networks, and their weights."""
    kind = MODELS[recipe.model.name]
    if not kind.trained_networks:
        return recipe, {}
    run_name = trained_run(recipe)
    key = f"model.{kind.trained_option}"
    named = (Path(run_name), runs / run_name) if run_name else ()
    folders = [folder for folder in named if exists(at_hand(folder) / "recipe.toml")]
    if not folders:
        first = _first_part(run_name.rpartition("-")[0], recipe.data.size.setting)
        raise UserError(
            f"The model '{recipe.model.name}' is built on a trained run, and {key} names none: "
            f"{f'there is no run {shown(run_name)} in {runs}' if run_name else 'it is empty'}. "
            + (
                f"Make it first: `zeuxis train {first}`, with --data for images of your own."
                if first
                else f"Train one first, such as `zeuxis train mnist-vae-z16`, and name it: --set {key}=mnist-vae-z16-1."
            )
        )
    trained_recipe = run_recipe(folders[0], trust=recipe.trust)
    for network in kind.trained_networks:
        if network not in trained_recipe.networks:
            raise UserError(
                f"{key} names {folders[0]}, a '{trained_recipe.model.name}', which has no network '{network}'."
            )
    model = build_model(trained_recipe)
    if model.conditional:
        raise UserError(
            f"{key} names {folders[0]}, a '{trained_recipe.model.name}', which is conditional; name a run that is not."
        )
    path = best_checkpoint(folders[0] / "checkpoints")
    if path is None:
        raise UserError(f"{key} names {folders[0]}, which has no checkpoint yet; let it train further, or resume it.")
    load_weights(model, Checkpoint.read(path))
    networks = {name: options.model_dump() for name, options in recipe.networks.items()}
    networks |= {name: trained_recipe.networks[name].model_dump() for name in kind.trained_networks}
    changed_settings = {
        # The same images; the recipe may ask for other classes of them.
        "data": trained_recipe.data.model_dump()
        | ({"attribute": recipe.data.attribute} if recipe.data.attribute else {}),
        "model.latent": model.recipe.model.options["latent"],
        "networks": networks,
    }
    combined = (
        recipe.updated(changed_settings)
        .with_code([*recipe.code, *trained_recipe.code])
        .trusting(recipe.trust | trained_recipe.trust)
    )
    return combined, {name: model.net(name).state_dict() for name in kind.trained_networks}


def _first_part(name: str, size: str | int) -> str:
    """Returns the words after `zeuxis train` that make a recipe's first run, at another size if need be; or ""."""
    known, ending = recipe_names(), r"-\d+(x\d+)?$"
    if name in known or not re.search(ending, name):
        return name if name in known else ""
    kind = re.sub(ending, "", name)
    return next((f"{other} --size {size}" for other in known if re.sub(ending, "", other) == kind), "")


def _last_good(folder: Path, parts: tuple[str, ...] = ("",)) -> Checkpoint | None:
    """Reads the newest undamaged checkpoint, or parts of it; None if a run was stopped before its first."""
    paths = checkpoints(folder / "checkpoints")
    for path in paths:
        try:
            return Checkpoint.read(path, parts)
        except UserError as error:
            warn(f"{error} Trying the one before it.")
    if paths:
        raise UserError(f"All {len(paths)} checkpoints in {folder / 'checkpoints'} are damaged; start a new run.")
    return None


@contextmanager
def _new_run(runs: Path, name: str, recipe: str, files: Mapping[str, str | bytes]) -> Iterator[Path]:
    """Creates a run folder, which appears with all its files at once and is locked while the block runs.

    Args:
        runs: folder of runs.
        name: name of the new folder; by default the recipe's name and a number.
        recipe: the recipe's name.
        files: contents of the first files, by path.
    """
    if name and (fault := name_fault(name)):
        raise UserError(
            f"{shown(name)} cannot name a run, because the name becomes a folder below {runs}, and {fault}; choose "
            "another --name."
        )
    if runs.exists() and not runs.is_dir():
        raise UserError(f"Runs cannot be kept in {runs}: it is a file. Choose another folder.")
    if name and (runs / name).exists():
        raise UserError(f"The run {runs / name} already exists; resume it, or choose another --name.")
    with ExitStack() as stack:
        try:
            unnamed = stack.enter_context(unfinished(runs))
            for file, content in files.items():
                make_folder((unnamed / file).parent)
                write_file(unnamed / file, content)
            folder = _placed(unnamed, runs, name, recipe)
        except WriteError as error:
            reason = why(error.__cause__ or error)
            raise WriteError(
                f"No run can be started in {runs}: {reason}. Choose another folder with --runs."
            ) from error
        yield folder


def _placed(unnamed: Path, runs: Path, name: str, recipe: str) -> Path:
    """Renames a new run to its name, or to the first free number."""
    number = 1
    while True:
        folder = runs / (name or f"{recipe}-{number}")
        try:
            if folder.exists():  # renaming would replace an empty folder
                raise FileExistsError
            rename_locked(unnamed, folder)
            return folder
        except OSError as error:
            if not folder.exists():
                raise WriteError(f"The run {folder} cannot be created: {why(error)}.") from error
            if name:
                raise UserError(f"The run {folder} already exists; resume it, or choose another --name.") from error
            number += 1
