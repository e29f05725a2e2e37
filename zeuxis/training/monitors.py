"""Monitors: what the numbers of a running training say, in words.

Each looks at the last journal lines and answers with a warning when something has gone on for a while; it
speaks again only after the trouble was over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import isfinite
from statistics import fmean
from typing import Any

__all__ = ["Monitors", "not_finite"]

Line = dict[str, Any]
# Lines that must agree before a warning: with ten steps a line, 300 steps. A discriminator is always ahead for
# the first hundred or so, before the generator has made anything.
WINDOW = 30


def not_finite(line: Line) -> str | None:
    """Returns the name of a term that is NaN or infinite."""
    return next((k for k, v in line.items() if isinstance(v, float) and not isfinite(v)), None)


def discriminator_wins(lines: list[Line]) -> tuple[bool, str]:
    """Real and fake are told apart nearly always, so that the generator's gradient says little."""
    kinds = ("accuracy_real", "accuracy_fake", "accuracy_pairs")
    found = [[line[f"discriminator/{kind}"] for kind in kinds if f"discriminator/{kind}" in line] for line in lines]
    pairs = [fmean(shares) for shares in found if shares]
    accuracy = fmean(pairs) if pairs else 0.0
    return len(pairs) >= WINDOW and accuracy > 0.97, (
        f"The discriminator wins: it told real from fake {accuracy:.0%} of the time of late, so the generator learns "
        "little from it. Try model.merged_batches=true, model.label_smoothing=0.1, dropout in the discriminator, "
        "or a lower training.optimizers.discriminator.learning_rate."
    )


def posterior_collapses(lines: list[Line]) -> tuple[bool, str]:
    """The latents carry nothing about the image: the KL divergence has gone to zero."""
    found = [v for line in lines for k, v in line.items() if k.endswith("/kl_nats")]
    carried = max(found, default=1.0)
    return len(found) >= WINDOW and carried < 0.1, (
        f"The posterior has collapsed: latents carry {carried:.3f} nats about their image, so the decoder ignores them "
        "and every sample looks alike. Try a smaller model.kl_weight, or model.kl_warmup."
    )


_MONITORS: tuple[Callable[[list[Line]], tuple[bool, str]], ...] = (discriminator_wins, posterior_collapses)


class Monitors:
    """Runs all monitors on every journal line; `past` are the lines of a resumed run."""

    def __init__(self, past: list[Line]) -> None:
        self._lines: deque[Line] = deque(maxlen=WINDOW)
        self._speaking = [False] * len(_MONITORS)
        for line in past[-2 * WINDOW :]:
            self(line)

    def __call__(self, line: Line) -> list[str]:
        """Returns new warnings."""
        self._lines.append(line)
        warnings = []
        for i, monitor in enumerate(_MONITORS):
            trouble, words = monitor(list(self._lines))
            if trouble and not self._speaking[i]:
                warnings.append(words)
            self._speaking[i] = trouble
        return warnings
