"""Compares how soon models come near the images: distances after several budgets, ours beside a peer's.

    zeuxis benchmark --models modern-vae-28 --data mnist --minutes 0.5 --seeds 3 --out runs/ours-0.5     # and others
    python -m benchmarks.peers --peers pythae-aae --data mnist --minutes 2 --seeds 3 --out runs/peers-2  # and others
    python -m benchmarks.documents.time_to_quality runs/ours-* runs/peers-*

Every point is a training of its own from each seed: a recipe with a schedule or with several stages ends as it would
for that budget. Between two budgets, a curve is a straight line in the logarithms of minutes and distance.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.documents.findings import FINDINGS, by_recipe, over_seeds
from benchmarks.documents.gallery import write_small
from benchmarks.documents.page import publish
from zeuxis.evaluation.measure import Value
from zeuxis.figures.style import INK, LINES, heading, new_figure
from zeuxis.run import Run

Curve = Sequence[tuple[float, Value]]


def curves(folders: Sequence[Path]) -> dict[str, Curve]:
    """Returns the distance after each number of minutes, by model, from folders of benchmarks and of peers."""
    found: dict[str, list[tuple[float, Value]]] = {}
    for folder in folders:
        ours = folder / "benchmark.json"
        trained = by_recipe(ours if ours.exists() else folder / "peers.json")
        if ours.exists():
            minutes = Run(folder / next(iter(trained.values()))[0]["run"]).recipe.training.minutes
        else:
            minutes = json.loads((folder / "task.json").read_text("utf-8"))["minutes"]
        assert minutes, f"{folder} has a budget in minutes"
        for name, rows in trained.items():
            found.setdefault(name, []).append((minutes, Value(**over_seeds(name, rows)["measures"]["fid"])))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items()}


def reached(curve: Curve, distance: float) -> float | None:
    """Returns the minutes after which a curve first comes to a distance; None if it stays farther.

    A curve whose first point is nearer returns the minutes of this point, which is an upper bound.
    """
    before: tuple[float, float] | None = None
    for minutes, value in curve:
        if value.value <= distance:
            if before is None:
                return minutes
            share = math.log(before[1] / distance) / math.log(before[1] / value.value)
            return float(before[0] * (minutes / before[0]) ** share)
        before = minutes, value.value
    return None


def compared(peers: Mapping[str, Curve], ours: str, own: Curve) -> list[dict[str, Any]]:
    """Returns a row for each point of a peer's curve: when ours comes as near, and how many times sooner."""
    rows = []
    for name, curve in peers.items():
        for minutes, value in curve:
            when = reached(own, value.value)
            bound = "at most " if when == own[0][0] else ""
            rows.append(
                {
                    "peer": f"`{name}`",
                    "after": f"{minutes:g} min",
                    "Frechet distance": f"{value.value:.1f} ± {value.stderr or 0:.1f}",
                    f"`{ours}` comes as near after": f"{bound}{60 * when:.0f} s" if when else "not measured",
                    "times sooner": f"{'at least ' if bound else ''}{minutes / when:.0f}" if when else "",
                }
            )
    return rows


def chart(found: Mapping[str, Curve], floor: float) -> Figure:
    """Returns the distances over the minutes of training."""
    figure = new_figure(8.2, 5)
    ax = figure.subplots()
    for color, (name, curve) in zip(LINES, found.items(), strict=False):
        minutes, values = zip(*curve, strict=True)
        errors = [value.stderr or 0 for value in values]
        means = [value.value for value in values]
        ax.errorbar(minutes, means, yerr=errors, fmt="o-", ms=5, lw=1.6, color=color, label=name)
    ax.axhline(floor, color=INK, lw=1, ls=":", label="other images (the floor)")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ticks = sorted({minutes for curve in found.values() for minutes, _ in curve})
    ax.set_xticks(ticks, [f"{60 * tick:g} s" if tick < 1 else f"{tick:g} min" for tick in ticks])
    ax.minorticks_off()
    low, high = 2 ** math.floor(math.log2(floor)), max(value.value for curve in found.values() for _, value in curve)
    heights = [low * 2**i for i in range(20) if low * 2**i <= 1.3 * high]
    ax.set_yticks(heights, [f"{height:g}" for height in heights])
    ax.set_xlabel("training on one core")
    ax.set_ylabel("Frechet distance to held-out images")
    ax.legend(loc="best")
    heading(figure, "How soon samples come near the images", "every point trained afresh; means over three seeds")
    return figure


def main() -> None:
    """Reads the command line and writes the tables and the chart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="of `zeuxis benchmark` and of `benchmarks.peers`")
    parser.add_argument("--ours", default="modern-vae-28", help="the model that the peers are compared with")
    parser.add_argument("--floor", type=float, default=1.5, help="distance of training images to the held-out ones")
    arguments = parser.parse_args()
    own, peers = (
        curves([folder for folder in arguments.folders if (folder / "peers.json").exists() == theirs])
        for theirs in (False, True)
    )
    publish("time-to-quality-table", compared(peers, arguments.ours, own[arguments.ours]), FINDINGS)
    write_small(partial(chart, {**own, **peers}, arguments.floor), FINDINGS / "time-to-quality.png")


if __name__ == "__main__":
    main()
