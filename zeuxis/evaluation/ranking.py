r"""Evaluations side by side: which run is better by which measure, and where the errors leave it open.

The leader of a row is marked as best if it differs from every other run by Welch's t test,

    t = (x_1 - x_2) / sqrt(s_1^2 + s_2^2),

with x the values, s their standard errors, and the degrees of freedom from the number of repeats, or of groups of
samples, behind each error (thousands where it comes from single samples: then it is the normal test). The k two-sided
p-values, one for each other run, are corrected by Holm: from the smallest, they may be at most 0.05 / k,
0.05 / (k - 1), ..., 0.05. So a row in which the runs do not differ has a mark at most 5 times in 100, however many
runs there are. There is no correction across rows: each is a question of its own, and of twenty rows without a
difference one is marked on average.

A run that makes one image for all latents (`support` below 2) is never marked: its one image may lie among the real
ones, and a way between two of its samples has no length.

Sources: B. L. Welch, The generalization of "Student's" problem when several different population variances are
involved, Biometrika 34, 1947; S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal
of Statistics 6, 1979.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from zeuxis.evaluation.measure import ROUNDING, Value, error_as_text, figure_as_text, measures

__all__ = ["Cell", "Row", "conclusions", "differ", "mean_ranks", "pooled", "ranked", "unvaried"]

LEVEL = 0.05
# Below this support, all samples are one image.
VARIED = 2


class Cell(NamedTuple):
    """One run in a row: its value, its rank from 1, whether the test says that it is better than all others, and
    whether the run's samples vary."""

    value: Value | None
    rank: int | None
    best: bool
    varied: bool = True


class Row(NamedTuple):
    """A measure in one feature space, for all runs in their order."""

    name: str
    meaning: str
    better: str
    features: str | None
    cells: tuple[Cell, ...]


def pooled(evaluations: Sequence[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    """Combines evaluations of repeats that differ in their seed: means, with the standard error from their spread.

    No error is smaller than the error of measuring. A measure that some repeat lacks, or that was taken in different
    features, is left out. A single evaluation is returned unchanged.
    """
    present = [evaluation for evaluation in evaluations if evaluation]
    if len(evaluations) == 1 or len(present) < len(evaluations):
        return present[0] if len(evaluations) == len(present) == 1 else None
    measures = {}
    for name in present[0]["measures"]:
        repeats = [_value(evaluation, name) for evaluation in present]
        values = [repeat for repeat in repeats if repeat]
        if len(values) == len(present) and len({value.features for value in values}) == 1:
            figures = np.array([value.value for value in values])
            measuring = np.square([value.stderr or 0.0 for value in values]).mean()
            spread = max(figures.var(ddof=1), measuring) ** 0.5
            stderr = float(spread / len(figures) ** 0.5) if spread > ROUNDING * abs(figures.mean()) else 0.0
            bound = any(value.at_least for value in values)
            n = len(figures)
            measures[name] = Value(float(figures.mean()), stderr, n, values[0].features, bound, groups=n)._asdict()
    return {**present[0], "measures": measures}


def ranked(evaluations: Sequence[Mapping[str, Any] | None]) -> list[Row]:
    """Arranges evaluations in rows by measure; distances in different features go into different rows."""
    rows = []
    supports = [_value(evaluation, "support") for evaluation in evaluations]
    varied = [support is None or support.at_least or support.value >= VARIED for support in supports]
    for measure in measures():
        if measure.name == "parameters":  # costs have their own table
            continue
        for name, meaning in measure.gives.items():
            values = [_value(evaluation, name) for evaluation in evaluations]
            for features in dict.fromkeys(value.features for value in values if value):
                in_space = [value if value and value.features == features else None for value in values]
                rows.append(Row(name, meaning, measure.better, features, _cells(in_space, measure.better, varied)))
    return rows


def unvaried(rows: Sequence[Row], labels: Sequence[str]) -> list[str]:
    """Returns the labels of the runs whose samples are all one image."""
    columns = zip(labels, zip(*(row.cells for row in rows), strict=True), strict=False)
    return [label for label, cells in columns if not all(cell.varied for cell in cells)]


def mean_ranks(rows: Sequence[Row]) -> list[float | None]:
    """Returns the mean rank of each run over the rows that rank every run; None where there is no such row."""
    complete_rows = [row for row in rows if all(cell.rank for cell in row.cells)]
    if not complete_rows:
        return [None] * (len(rows[0].cells) if rows else 0)
    return [
        sum(row.cells[i].rank or 0 for row in complete_rows) / len(complete_rows)
        for i in range(len(complete_rows[0].cells))
    ]


# The questions that a comparison answers, each by the first of its measures that two runs have.
QUESTIONS = (
    (("general_fid", "fid"), "Nearest to the images"),
    (("general_coverage", "coverage"), "Covering most of the images"),
    (("label_agreement",), "Showing most often the class that was asked for"),
    (("test_mse",), "Reconstructing best"),
)


def conclusions(rows: Sequence[Row], labels: Sequence[str]) -> list[str]:
    """Returns a sentence for each of `QUESTIONS`: which runs lead, as far as the errors tell, and which one follows.

    A run leads alone where its value is marked as best; runs that make one image alone are left out.
    """
    sentences = []
    for names, what in QUESTIONS:
        found = next((row for name in names for row in rows if row.name == name and _several(row)), None)
        if found is None:
            continue
        ordered = sorted(zip(labels, found.cells, strict=True), key=lambda pair: pair[1].rank or math.inf)
        (first, leader), *others = [(label, cell) for label, cell in ordered if cell.value and cell.varied]
        best = leader.value
        assert best is not None
        rest = [(label, cell.value) for label, cell in others if cell.value]
        # Without a mark, some run is level with the first, at least the nearest; without errors, nothing is known.
        known = best.stderr is not None and all(value.stderr is not None for _, value in rest)
        level = [pair for pair in rest if not differ(best, pair[1])] or rest[:1] if known and not leader.best else []
        behind = [pair for pair in rest if pair not in level]
        sentence = f"{what}: {first} ({_figure(best)})"
        if level:
            sentence += f", not distinguishable from {_listed(level)}"
        if behind:
            sentence += f"; then {_listed(behind[:1])}"
        sentences.append(f"{sentence}.")
    return sentences


def _several(row: Row) -> bool:
    return sum(cell.value is not None and cell.varied for cell in row.cells) > 1


def _figure(value: Value) -> str:
    error = "" if value.stderr is None else f" ± {error_as_text(value.stderr)}"
    return f"{figure_as_text(value)}{error}"


def _listed(pairs: Sequence[tuple[str, Value]]) -> str:
    *first, last = (f"{label} ({_figure(value)})" for label, value in pairs)
    return f"{', '.join(first)} and {last}" if first else last


def differ(first: Value, second: Value) -> bool:
    """Whether two values differ by Welch's test at 5 %; False where the error of one is unknown or 0."""
    return _differs(first, [second])


def _value(evaluation: Mapping[str, Any] | None, name: str) -> Value | None:
    figure = (evaluation or {}).get("measures", {}).get(name)
    return Value(**figure) if figure else None


def _cells(values: Sequence[Value | None], better: str, varied: Sequence[bool]) -> tuple[Cell, ...]:
    sign = {"low": 1.0, "high": -1.0}.get(better)
    cells = []
    for i, value in enumerate(values):
        others = [other for j, other in enumerate(values) if other and j != i]
        if value is None or sign is None or not others:
            cells.append(Cell(value, None, False, varied[i]))
            continue
        rank = 1 + sum(sign * other.value < sign * value.value for other in others)
        leads = all(sign * other.value > sign * value.value for other in others)
        cells.append(Cell(value, rank, varied[i] and leads and _differs(value, others), varied[i]))
    return tuple(cells)


def _differs(value: Value, others: Sequence[Value]) -> bool:
    """Whether a value differs from all others by Welch's test at Holm's levels; False where an error is unknown or 0.

    Repeats that happen to be equal say nothing of the spread.
    """
    stats = [(v.value, v.stderr or 0.0, v.groups or v.n) for v in (value, *others)]
    if min(min(stderr, n - 1) for _, stderr, n in stats) <= 0:
        return False
    this, *rest = [(mean, stderr * n**0.5, n) for mean, stderr, n in stats]
    p = sorted(float(scipy.stats.ttest_ind_from_stats(*this, *other, equal_var=False).pvalue) for other in rest)
    return all(p_value <= LEVEL / (len(p) - i) for i, p_value in enumerate(p))
