"""Errors for users: exceptions, and helpers that write their messages.

Every part of Zeuxis raises `UserError` with one or two complete sentences: what was wrong, where, and
what would be right. The command line prints them and exits with code 2, so a user's mistake never shows
a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, time
from difflib import get_close_matches
from numbers import Integral

__all__ = [
    "DivergedError",
    "NoWeightsError",
    "PrunedError",
    "StoppedError",
    "UserError",
    "closest",
    "nearest",
    "one_of",
    "quoted",
    "require_whole",
    "require_within",
    "shortened",
    "shown",
]

# Length of the longest word that is shown in full, and of the longest message.
LONGEST_WORD, LONGEST_MESSAGE = 300, 6000


class UserError(Exception):
    """A mistake or an outside event that the user can fix; the message is for the user."""


class DivergedError(UserError):
    """Training that produced NaN or infinite numbers."""


class NoWeightsError(UserError):
    """A run that has no weights yet, because it was stopped, or looked at, before its first checkpoint."""


class PrunedError(UserError):
    """A training that ended early, because others of its search did better."""


class StoppedError(UserError):
    """A job that the user interrupted and can resume."""


def closest(name: str, valid: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Returns the valid name that a misspelt or incomplete one is closest to; None if none is that similar (0..1)."""
    by_folded = {valid_name.casefold(): valid_name for valid_name in sorted(set(valid), reverse=True)}
    folded = name.casefold()
    # An incomplete name is more likely than a misspelt one.
    completions = sorted(candidate for candidate in by_folded if len(name) > 3 and candidate.startswith(folded))
    close = completions or get_close_matches(folded, sorted(by_folded), n=1, cutoff=cutoff)
    return by_folded[close[0]] if close else None


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` for the closest valid name, or a list of all of them."""
    names = sorted(set(valid))
    if close := closest(name, names):
        return f" Did you mean '{close}'?"
    return f" Valid: {', '.join(names)}." if names else ""


def one_of(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """Returns the error for a name that is not among the valid ones."""
    names = list(valid)
    return UserError(f"There is no {kind} '{quoted(name)}'.{nearest(name, names)}")


def quoted(text: str, length: int = 80) -> str:
    """Returns text to quote in a sentence: cut to this length, with control characters escaped."""
    text = text if len(text) <= length else f"{text[: length - 1]}…"
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shown(value: object) -> str:
    """Returns any value as text to quote in a sentence."""
    try:
        return quoted(str(value) if isinstance(value, date | time) else repr(value))
    except ValueError:  # Python refuses to write integers of more than 4,300 digits
        return "a number too large to write"


def require_within(what: str, value: float, low: float, high: float) -> None:
    """Raises a `UserError` if a number is outside `low..high`, or NaN."""
    if not low <= value <= high:
        raise UserError(f"{what} should be from {low:,} to {high:,}, not {value}.")


def require_whole(what: str, value: int, low: int, high: int) -> None:
    """Raises a `UserError` if a number is not whole, or outside `low..high`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{what} should be a whole number, not {shown(value)}.")
    require_within(what, int(value), low, high)


def shortened(message: str) -> str:
    """Returns a message in which very long words, such as a name of 5,000 letters, show only both ends."""

    def ends(text: str, longest: int) -> str:
        return text if len(text) <= longest else f"{text[: longest // 3]}...{text[-longest // 3 :]}"

    return ends(re.sub(r"\S+", lambda word: ends(word[0], LONGEST_WORD), message), LONGEST_MESSAGE)
