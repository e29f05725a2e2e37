r"""Learning-rate schedules by name: `training.schedule.name`.

The rate of every phase is multiplied by a factor that depends on p, the used share of the budget in 0..1, whether it is
counted in epochs, steps or minutes. Each schedule may begin with a warm-up over a first share w of the budget, in which
the factor is p / w. Afterwards, q = (p - w) / (1 - w) is the position in the rest.

| schedule | factor at q |
|---|---|
| constant | 1 |
| warm-up | 1, after a warm-up of a tenth |
| linear | 1 - q (1 - end) |
| cosine | end + (1 - end) (1 + cos(pi q)) / 2 |
| step | factor ^ (number of positions in `at` that have passed) |

Sources: I. Loshchilov and F. Hutter, SGDR, ICLR 2017, equation 5 (cosine); P. Goyal et al., Accurate, Large Minibatch
SGD, 2017, section 2.2 (warm-up).
"""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from zeuxis.recipe import Recipe, Section
from zeuxis.registry import Registry

__all__ = ["SCHEDULES", "Schedule", "schedule_of"]

SCHEDULES: Registry[type[Schedule]] = Registry("schedule", "zeuxis.training.schedules")


class Schedule(Section):
    """Base of all schedules; their fields are their options."""

    description: ClassVar[str] = ""
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the budget over which the rate rises from 0")

    def rate(self, progress: float) -> float:
        """Returns the factor by which the learning rate is multiplied.

        Args:
            progress: used share of the budget, 0..1.
        """
        if progress < self.warmup:
            return progress / self.warmup
        return self.after((progress - self.warmup) / (1 - self.warmup))

    def after(self, place: float) -> float:
        """Returns the factor after the warm-up, at a position in 0..1 of the rest."""
        return 1.0


@SCHEDULES.add("constant")
class Constant(Schedule):
    """The rate is constant."""

    description = "the rate is constant"


@SCHEDULES.add("warm-up")
class WarmUp(Schedule):
    """The rate rises, then is constant."""

    description = "the rate rises from 0, then is constant"
    warmup: float = Field(0.1, gt=0, lt=1, description="share of the budget over which the rate rises from 0")


@SCHEDULES.add("linear")
class Linear(Schedule):
    """The rate falls linearly."""

    description = "the rate falls linearly"
    end: float = Field(0.0, ge=0, le=1, description="the factor at the end")

    def after(self, place: float) -> float:
        return 1 - place * (1 - self.end)


@SCHEDULES.add("cosine")
class Cosine(Schedule):
    """The rate falls along half a cosine."""

    description = "the rate falls along half a cosine"
    end: float = Field(0.0, ge=0, le=1, description="the factor at the end")

    def after(self, place: float) -> float:
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * place)) / 2


@SCHEDULES.add("step")
class Steps(Schedule):
    """The rate falls in steps."""

    description = "the rate falls in steps"
    at: list[float] = Field([0.5, 0.75], max_length=100, description="positions in 0..1 at which it changes")
    factor: float = Field(0.1, gt=0, le=1, description="factor at each of them")

    def after(self, place: float) -> float:
        return self.factor ** sum(place >= mark for mark in self.at)


def schedule_of(recipe: Recipe) -> Schedule:
    """Returns the schedule of a recipe.

    Raises:
        UserError: for an unknown schedule or invalid options.
    """
    choice = recipe.training.schedule
    return choice.read(SCHEDULES[choice.name], f"Recipe {recipe.name}", "training.schedule")
