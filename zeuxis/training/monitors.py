"""Monitors: what the numbers of a running training say, in words.

Each looks at the last journal lines and answers with a warning when something has gone on for a while; it
speaks again only after the trouble was over. Numbers are found by their roles, whatever a model calls its phases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

__all__ = ["Monitors", "not_finite"]

Line = dict[str, Any]
Roles = Mapping[str, str]
# Lines that must agree before a warning: with ten steps a line, 300 steps. A discriminator is always ahead for
# the first hundred or so, before the generator has made anything.
WINDOW = 30


def not_finite(line: Line) -> str | None:
    """Returns the name of a term that is NaN or infinite."""
    return next((k for k, v in line.items() if isinstance(v, float) and not isfinite(v)), None)


def discriminator_wins(lines: list[Line], roles: Roles) -> tuple[bool, str]:
    """Real and fake are told apart nearly always, so that the generator's gradient says little."""
    phases = {name.partition("/")[0] for name, role in roles.items() if role == "accuracy"}
    for phase in sorted(phases):
        names = [name for name, role in roles.items() if role == "accuracy" and name.startswith(f"{phase}/")]
        shares = [fmean(line[name] for name in names if name in line) for line in lines if {*names} & line.keys()]
        accuracy = fmean(shares) if shares else 0.0
        if len(shares) >= WINDOW and accuracy > 0.97:
            return True, (
                f"The {phase} wins: it told real from fake {accuracy:.0%} of the time of late, so the generator learns "
                "little from it. Try model.merged_batches=true, model.label_smoothing=0.1, dropout in the "
                f"discriminator, or a lower training.optimizers.{phase}.learning_rate."
            )
    return False, ""


def posterior_collapses(lines: list[Line], roles: Roles) -> tuple[bool, str]:
    """The latents carry nothing about the image: the KL divergence has gone to zero."""
    names = [name for name, role in roles.items() if role == "kl"]
    nats = [line[name] for line in lines for name in names if name in line]
    carried = max(nats, default=1.0)
    return len(nats) >= WINDOW and carried < 0.1, (
        f"The posterior has collapsed: latents carry {carried:.3f} nats about their image, so the decoder ignores them "
        "and every sample looks alike. Try a smaller model.kl_weight, or model.kl_warmup."
    )


_MONITORS: tuple[Callable[[list[Line], Roles], tuple[bool, str]], ...] = (discriminator_wins, posterior_collapses)


class Monitors:
    """Runs all monitors on every journal line.

    Args:
        past: the lines of a resumed run.
        roles: of the numbers in lines, by name; what comes later is added by who writes the lines.
    """

    def __init__(self, past: Sequence[Line], roles: Roles) -> None:
        self.roles = roles
        self._lines: deque[Line] = deque(maxlen=WINDOW)
        self._speaking = [False] * len(_MONITORS)
        for line in past[-2 * WINDOW :]:
            self(line)

    def __call__(self, line: Line) -> list[str]:
        """Returns new warnings."""
        self._lines.append(line)
        warnings = []
        for i, monitor in enumerate(_MONITORS):
            trouble, words = monitor(list(self._lines), self.roles)
            if trouble and not self._speaking[i]:
                warnings.append(words)
            self._speaking[i] = trouble
        return warnings
