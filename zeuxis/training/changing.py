"""What may change when a run is resumed, and the record of what did change.

A change is sound if the run stays one training: of the same networks, on the same images, counted in the same steps,
with optimisers whose state still means what it meant. All that is listed in `CHANGEABLE`; anything else would be
another run, which can start from this one's weights (`zeuxis train RECIPE --from-run RUN`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from zeuxis.errors import UserError, quoted
from zeuxis.files import write_file
from zeuxis.recipe import BUDGETS, Recipe, flat, together
from zeuxis.training.journal import Line, read_changes
from zeuxis.training.optimizers import optimizer_of

__all__ = ["CHANGEABLE", "CHANGES", "changed", "record"]

CHANGES = "changes.jsonl"
# Patterns of keys, what they are, and why changing them is sound.
CHANGEABLE: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("training.epochs", "training.steps", "training.minutes"), "the budget", "schedules go by its used share"),
    (
        tuple(
            f"training.{place}.{option}"
            for place in ("optimizer", "optimizers.*")
            for option in ("learning_rate", "weight_decay", "clip", "betas")
        ),
        "rates, weight decay, clipping and betas of optimisers",
        "their state is kept",
    ),
    (("training.schedule", "training.schedule.*"), "the schedule", "it depends on the used budget alone"),
    (
        ("training.batch_size", "training.accumulate"),
        "the batch size",
        "epochs and images seen are counted on; steps are longer or shorter from then on",
    ),
    (("training.ema",), "the decay of averaged weights, if there are any", "the average is kept"),
    (
        ("model.*_weight", "model.*_penalty", "model.*smoothing", "model.*_warmup", "model.free_bits",
         "model.instance_noise*", "model.augmentation*", "model.drop_condition", "model.second_after",
         "model.second_share"),
        "weights, penalties and noise of the losses",
        "the networks are kept; losses before and after are not comparable",
    ),
    (
        ("model.solver", "model.solver_steps", "model.guidance", "model.best_of"),
        "how samples are made",
        "training does not depend on it",
    ),
    (
        ("training.log_every", "training.snapshot_every", "training.checkpoint_every", "training.test_every",
         "training.callbacks", "training.patience"),
        "how often is logged, tested and saved, and who follows",
        "updates do not depend on it",
    ),
    (
        ("training.device", "training.threads", "training.precision", "training.capture"),
        "the hardware",
        "the training is the same, though no longer bit for bit",
    ),
)  # fmt: skip


def changed(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """Returns a run's recipe with changes that a resumed run may have.

    Args:
        recipe: as the run records it.
        overrides: values by dotted key.

    Raises:
        UserError: for a change that would make it another run, and as `Recipe.updated`.
    """
    overrides = together(overrides)
    patterns = [pattern for row, _, _ in CHANGEABLE for pattern in row]
    for key in overrides:
        if not any(fnmatchcase(key, pattern) for pattern in patterns):
            wanted = recipe.updated({key: overrides[key]})  # a misspelt key is told with its nearest
            for phase in ("", *wanted.training.optimizers):
                optimizer_of(wanted, phase)
            raise UserError(
                f"{quoted(key)} cannot change in a run: {_reason(key)}. What may change: "
                f"{'; '.join(what for _, what, _ in CHANGEABLE)}. For the rest, start a new run from its weights: "
                f"zeuxis train RECIPE --from-run RUN --set {quoted(key)}=..."
            )
    if "training.ema" in overrides and not (recipe.training.ema and overrides["training.ema"]):
        raise UserError("training.ema cannot change from or to 0 in a run: its average began with it and stays in use.")
    return recipe.updated(overrides)


def _reason(key: str) -> str:
    part = key.partition(".")[0]
    reasons = {
        "data": "it was trained on these images",
        "networks": "its weights belong to these networks",
        "model": "its losses so far belong to this model",
    }
    return reasons.get(part, "the steps so far would no longer be steps of the same training")


def record(
    folder: Path, counters: Mapping[str, Any], before: Recipe, after: Recipe, overrides: Iterable[str]
) -> list[str]:
    """Adds to a run's `changes.jsonl` what changes at a step, except for budgets, and returns it in words.

    Args:
        folder: the run folder.
        counters: `step` and `epoch` at which it changes.
        before: the recipe so far.
        after: the recipe from now on.
        overrides: the keys that were set.
    """
    # A new schedule brings its options along.
    places = [key.removesuffix(".name") for key in overrides]
    then, now = (flat(recipe.model_dump(mode="json")) for recipe in (before, after))
    changes = {
        key: [_value(then, key), _value(now, key)]
        for key in {**then, **now}
        if _value(then, key) != _value(now, key)
        and any(key == place or key.startswith(f"{place}.") for place in places)
        and key not in {f"training.{name}" for name in BUDGETS}
    }
    if changes:
        path = folder / CHANGES
        lines: Sequence[Line] = [
            *read_changes(path),
            {"step": counters["step"], "epoch": round(counters["epoch"], 6), "changes": changes},
        ]
        write_file(path, "".join(json.dumps(line) + "\n" for line in lines))
    return [f"{key} is now {new!r} and was {old!r}" for key, (old, new) in changes.items()]


def _value(tree: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a key; of the shared optimiser if a phase has none of its own."""
    if key not in tree and key.startswith("training.optimizers."):
        return tree.get(f"training.optimizer.{key.split('.', 3)[3]}")
    return tree.get(key)
