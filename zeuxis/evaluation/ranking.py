"""Evaluations side by side: which run is better by which measure, and where the errors do not let one say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from zeuxis.evaluation.measure import Value, measures

__all__ = ["Cell", "Row", "mean_ranks", "pooled", "ranked"]


def width(repeats: int) -> float:
    """Half the width of an interval of 95 %, in standard errors: Student's, where they come from few repeats."""
    return float(student.ppf(0.975, repeats - 1)) if repeats > 1 else 1.96


class Cell(NamedTuple):
    """What one run has in a row: its value, its rank from 1, and whether it is surely the best."""

    value: Value | None
    rank: int | None
    best: bool


class Row(NamedTuple):
    """A measure in one space of features, for all runs in their order."""

    name: str
    meaning: str
    better: str
    features: str | None
    cells: tuple[Cell, ...]


def pooled(evaluations: Sequence[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """One evaluation of repeats that differ in their seed: means, with the standard error that their spread gives.

    No error is smaller than measuring them leaves it; `repeats` says how many they are. What was not found of every
    repeat, or in different features, is left out; a single one stays as it is.
    """
    found = [evaluation for evaluation in evaluations if evaluation]
    if len(evaluations) == 1 or len(found) < len(evaluations):
        return found[0] if len(evaluations) == len(found) == 1 else None
    measures = {}
    for name in found[0]["measures"]:
        repeats = [_value(evaluation, name) for evaluation in found]
        values = [repeat for repeat in repeats if repeat]
        if len(values) == len(found) and len({value.features for value in values}) == 1:
            figures = np.array([value.value for value in values])
            measuring = np.square([value.stderr or 0.0 for value in values]).mean()
            spread = max(figures.var(ddof=1), measuring)
            stderr = float(np.sqrt(spread / len(figures))) if spread else None  # alike, and nothing else is known
            bound = any(value.at_least for value in values)
            measures[name] = Value(float(figures.mean()), stderr, len(figures), values[0].features, bound)._asdict()
    return {**found[0], "measures": measures, "repeats": len(found)}


def ranked(evaluations: Sequence[Mapping[str, Any] | None]) -> list[Row]:
    """Lays evaluations out by measure; distances in different features stand in different rows.

    A value is best if its interval of 95 % overlaps that of no other.
    """
    rows = []
    widths = [width((evaluation or {}).get("repeats", 1)) for evaluation in evaluations]
    for each in measures():
        if each.name == "parameters":  # costs have a table of their own
            continue
        for name, meaning in each.gives.items():
            values = [_value(evaluation, name) for evaluation in evaluations]
            for features in dict.fromkeys(value.features for value in values if value):
                mine = [value if value and value.features == features else None for value in values]
                rows.append(Row(name, meaning, each.better, features, _cells(mine, each.better, widths)))
    return rows


def mean_ranks(rows: Sequence[Row]) -> list[float | None]:
    """Mean rank of each run over all rows that rank every run; None where there is no such row."""
    whole = [row for row in rows if all(cell.rank for cell in row.cells)]
    if not whole:
        return [None] * (len(rows[0].cells) if rows else 0)
    return [sum(row.cells[i].rank or 0 for row in whole) / len(whole) for i in range(len(whole[0].cells))]


def _value(evaluation: Mapping[str, Any] | None, name: str) -> Value | None:
    found = (evaluation or {}).get("measures", {}).get(name)
    return Value(**found) if found else None


def _cells(values: Sequence[Value | None], better: str, widths: Sequence[float]) -> tuple[Cell, ...]:
    sign = {"low": 1.0, "high": -1.0}.get(better)
    cells = []
    for i, value in enumerate(values):
        others = [(other, widths[j]) for j, other in enumerate(values) if other and j != i]
        if value is None or sign is None or not others:
            cells.append(Cell(value, None, False))
            continue
        rank = 1 + sum(sign * other.value < sign * value.value for other, _ in others)
        known = value.stderr is not None and all(other.stderr is not None for other, _ in others)
        ahead = all(
            sign * (other.value - value.value) > widths[i] * (value.stderr or 0) + wide * (other.stderr or 0)
            for other, wide in others
        )
        cells.append(Cell(value, rank, known and ahead))
    return tuple(cells)
