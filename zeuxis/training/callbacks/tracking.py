"""What trackers of experiments share: which numbers they get, under which names, and what happens when one fails.

A tracker gets the recipe's settings, every journal line, the snapshots as grids, and at the end the newest loss and
test numbers. A number is named after its role, `ROLE/PHASE/TERM`, so that a tracker's page groups curves that belong
together: `loss/vae/loss`, `term/vae/kl`, `test/mse`, `rate/vae/learning_rate`.

A tracker is a guest: if it fails, because its server is gone or its disk is full, one warning says so and the training
continues without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zeuxis.errors import UserError, one_of
from zeuxis.recipe import Recipe, flat
from zeuxis.training.callbacks.base import CALLBACKS, Callback
from zeuxis.training.callbacks.records import note
from zeuxis.training.journal import COUNTERS, Line
from zeuxis.training.snapshots import tiled

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["Tracker", "tracked"]


class Tracker(Callback):
    """Base of all trackers; a subclass says how to open, write, draw and close.

    Attributes:
        name: in recipes and on the command line; also that of the extra that installs it.
        title: the name of the product.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, images: bool = True) -> None:
        self.images = images

    # -- what a subclass does ----------------------------------------------------------------------------

    def load(self) -> None:
        """Imports the product; may raise an `ImportError`."""
        raise NotImplementedError

    def open(self, trainer: Trainer, settings: Mapping[str, Any]) -> None:
        """Starts or continues a record of a run, with its settings by dotted key."""
        raise NotImplementedError

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Records the numbers of a journal line, by role and name."""
        raise NotImplementedError

    def draw(self, step: int, grid: np.ndarray) -> None:
        """Records a snapshot: one picture of all images, `(H, W, C)` bytes."""
        raise NotImplementedError

    def close(self, final: Mapping[str, float], complete: bool) -> None:
        """Ends the record.

        Args:
            final: the newest loss and test numbers.
            complete: whether the budget was used up.
        """
        raise NotImplementedError

    # -- the life of a callback --------------------------------------------------------------------------

    def attached(self, trainer: Trainer) -> None:
        try:
            self.load()
        except ImportError as error:
            raise UserError(
                f"The callback {self.name} needs {self.title} ({error}); install it with: pip install "
                f'"zeuxis[{self.name}]"'
            ) from error

    def begin(self, trainer: Trainer) -> None:
        self._works = True
        settings = flat(trainer.model.recipe.model_dump(mode="json", exclude_none=True))
        self._attempt(trainer, lambda: self.open(trainer, settings))

    def logged(self, trainer: Trainer, line: Line) -> None:
        numbers = {_named(name, trainer): line[name] for name in line if name != "step"}
        self._attempt(trainer, lambda: self.write(line["step"], numbers))

    def snapshot(self, trainer: Trainer, images: np.ndarray) -> None:
        if self.images:
            self._attempt(trainer, lambda: self.draw(trainer.step, tiled(images)))

    def end(self, trainer: Trainer) -> None:
        roles = trainer.journal.roles
        final = {
            _named(name, trainer): line[name]
            for line in trainer.journal.lines
            for name in line
            if roles.get(name) in ("loss", "test", "error")
        }
        self._attempt(trainer, lambda: self.close(final, trainer.complete))

    def _attempt(self, trainer: Trainer, action: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the training goes on
            self._works = False
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            words = f"{self.title} failed at step {trainer.step}, and the training continues without it: {reason}"
            note(trainer, words)
            trainer.say(words)


def _named(name: str, trainer: Trainer) -> str:
    if name in COUNTERS:
        return f"progress/{name}"
    role = trainer.journal.roles[name]
    return name if name.startswith(f"{role}/") else f"{role}/{name}"


def tracked(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Returns a recipe whose training these trackers follow as well.

    Raises:
        UserError: for a name that is no tracker's.
    """
    if not names:
        return recipe
    trackers = [name for name, kind in CALLBACKS.items() if issubclass(kind, Tracker)]
    for name in names:
        if name not in trackers:
            raise one_of("tracker", name, trackers)
    known = [choice.name for choice in recipe.training.callbacks]
    more = [name for name in dict.fromkeys(names) if name not in known]
    callbacks = [choice.model_dump() for choice in recipe.training.callbacks]
    return recipe.updated({"training.callbacks": [*callbacks, *more]}) if more else recipe
