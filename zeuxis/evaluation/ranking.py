"""Evaluations side by side: which run is better by which measure, and where the errors do not let one say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zeuxis.evaluation.measure import Value, measures

__all__ = ["Cell", "Row", "mean_ranks", "ranked"]

# Half the width of an interval of 95 %, in standard errors.
WIDTH = 1.96


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


def ranked(evaluations: Sequence[Mapping[str, Any] | None]) -> list[Row]:
    """Lays evaluations out by measure; distances in different features stand in different rows.

    A value is best if its interval of 95 % overlaps that of no other.
    """
    rows = []
    for each in measures():
        for name, meaning in each.gives.items():
            values = [_value(evaluation, name) for evaluation in evaluations]
            for features in dict.fromkeys(value.features for value in values if value):
                mine = [value if value and value.features == features else None for value in values]
                rows.append(Row(name, meaning, each.better, features, _cells(mine, each.better)))
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


def _cells(values: Sequence[Value | None], better: str) -> tuple[Cell, ...]:
    sign = {"low": 1.0, "high": -1.0}.get(better)
    cells = []
    for i, value in enumerate(values):
        others = [other for j, other in enumerate(values) if other and j != i]
        if value is None or sign is None or not others:
            cells.append(Cell(value, None, False))
            continue
        rank = 1 + sum(sign * other.value < sign * value.value for other in others)
        known = value.stderr is not None and all(other.stderr is not None for other in others)
        ahead = all(
            sign * (other.value - value.value) > WIDTH * ((value.stderr or 0) + (other.stderr or 0)) for other in others
        )
        cells.append(Cell(value, rank, known and ahead))
    return tuple(cells)
