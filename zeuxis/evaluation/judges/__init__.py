"""Classifiers that come with the package: they judge samples, and distances are measured in their features.

Each is a run reduced to its recipe, its tests and its weights, stored in half precision; `benchmarks/assets/judges.py`
makes one from a trained run. Its journal gives its error.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from zeuxis.run import Run

__all__ = ["judges"]


@cache
def judges() -> tuple[Run, ...]:
    """Returns the classifiers that come with the package, by name."""
    return tuple(Run(path.parent) for path in sorted(Path(__file__).parent.glob("*/recipe.toml")))
