"""Monitors: warnings derived from the numbers of a training.

Each monitor looks at the last journal lines and warns when a problem has lasted for a while. It warns again only after
the problem was over. Numbers are found by their roles, whatever a model calls its phases. What it advises depends on
the model's options: those that it lacks, or that are set already, are not proposed. A training that is shorter
than they look back is told so (`too_early`): silence would pass for health.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from zeuxis.models.gan import SECOND
from zeuxis.models.losses import LOSSES

__all__ = ["FEW_STEPS", "Monitors", "not_finite", "too_early"]

Line = dict[str, Any]
Roles = Mapping[str, str]
Options = Mapping[str, Any]
# Lines that must agree before a warning: 300 steps, with ten steps per line. A discriminator is always ahead for the
# first hundred or so, before the generator has learned anything.
WINDOW = 30
# Steps before which what a model generates is mostly noise or one blur, whatever the model.
FEW_STEPS = 300


def not_finite(line: Line) -> str | None:
    """Returns the name of a term that is NaN or infinite."""
    return next((k for k, v in line.items() if isinstance(v, float) and not isfinite(v)), None)


def discriminator_wins(lines: list[Line], roles: Roles, options: Options) -> tuple[bool, str]:
    """Detects a discriminator that is nearly always right, which leaves the generator little gradient."""
    phases = {name.partition("/")[0] for name, role in roles.items() if role == "accuracy"}
    for phase in sorted(phases):
        names = [name for name, role in roles.items() if role == "accuracy" and name.startswith(f"{phase}/")]
        shares = [fmean(line[name] for name in names if name in line) for line in lines if {*names} & line.keys()]
        accuracy = fmean(shares) if shares else 0.0
        if len(shares) >= WINDOW and accuracy > 0.97:
            ways = ["dropout in the discriminator", f"a lower training.optimizers.{phase}.learning_rate"]
            first = phase != SECOND  # the options are not for a second one
            if first and options.get("label_smoothing") == 0 and LOSSES[options["loss"].name].labels:
                ways.insert(0, "model.label_smoothing=0.1")
            if first and options.get("merged_batches") is False:
                ways.insert(0, "model.merged_batches=true")
            return True, (
                f"The {phase.replace('_', ' ')} wins: of late, its accuracy on real and fake was {accuracy:.0%}, so "
                f"the generator learns little from it. Try {_alternatives(ways)}."
            )
    return False, ""


def posterior_collapses(lines: list[Line], roles: Roles, options: Options) -> tuple[bool, str]:
    """Detects a KL divergence near zero: the latents carry no information about the image."""
    names = [name for name, role in roles.items() if role == "kl"]
    nats = [line[name] for line in lines for name in names if name in line]
    most_nats = max(nats, default=1.0)
    ways = [f"a model.kl_weight below {options['kl_weight']:g}"] if options.get("kl_weight") else []
    for name, unit in (("kl_warmup", "epochs"), ("free_bits", "nats")):
        if name in options:
            now = options[name]
            ways.append(f"a model.{name} of more than {now:g} {unit}" if now else f"model.{name}")
    return len(nats) >= WINDOW and most_nats < 0.1, (
        f"The posterior has collapsed: latents carry {most_nats:.3f} nats about their image, so the decoder ignores "
        "them and all samples look alike." + (f" Try {_alternatives(ways)}." if ways else "")
    )


def _alternatives(ways: Sequence[str]) -> str:
    *first, last = ways
    return f"{', '.join(first)}, or {last}" if first else last


_MONITORS: tuple[Callable[[list[Line], Roles, Options], tuple[bool, str]], ...] = (
    discriminator_wins, posterior_collapses,
)  # fmt: skip


def too_early(lines: Sequence[Line], roles: Roles) -> str | None:
    """Returns what the monitors cannot say yet, and how the numbers look so far; None once they have seen enough.

    Args:
        lines: of the journal.
        roles: of the numbers in lines, by name.
    """
    accuracies = [name for name, role in roles.items() if role == "accuracy"]
    nats = [name for name, role in roles.items() if role == "kl"]
    seen = [line for line in lines if line.keys() & {*accuracies, *nats}]
    if not seen or len(seen) >= WINDOW:
        return None
    last, words = seen[-1], []
    if shares := [last[name] for name in accuracies if name in last]:
        words.append(f"the accuracy of the discriminator was {fmean(shares):.0%}")
    words += [f"latents carried {last[name]:.3g} nats" for name in nats if name in last]
    there = "there is 1" if len(seen) == 1 else f"there are {len(seen)}"
    return (
        f"It is too early for the monitors, which look back over {WINDOW} lines of the journal: {there}. "
        f"In the last one {' and '.join(words)}."
    )


class Monitors:
    """Runs all monitors on every journal line.

    Args:
        past: the lines of a resumed run.
        roles: of the numbers in lines, by name; whoever writes the lines adds new ones.
        healthy: names of monitors whose finding is normal for the model.
        options: of the model, for advice.
    """

    def __init__(
        self, past: Sequence[Line], roles: Roles, healthy: Collection[str] = (), options: Options | None = None
    ) -> None:
        self.roles, self.options = roles, options or {}
        self._monitors = [monitor for monitor in _MONITORS if monitor.__name__ not in healthy]
        self._lines: deque[Line] = deque(maxlen=WINDOW)
        self._speaking = [False] * len(self._monitors)
        for line in past[-2 * WINDOW :]:
            self(line)

    def __call__(self, line: Line) -> list[str]:
        """Returns new warnings."""
        self._lines.append(line)
        warnings = []
        for i, monitor in enumerate(self._monitors):
            is_problem, warning = monitor(list(self._lines), self.roles, self.options)
            if is_problem and not self._speaking[i]:
                warnings.append(warning)
            self._speaking[i] = is_problem
        return warnings
