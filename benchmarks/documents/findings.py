"""Lays a benchmark of ours beside the peers of the same images and budget: tables and pictures for docs/findings.

zeuxis benchmark --models ... --data mnist --minutes 2 --seeds 3 --out runs/bench-mnist
python -m benchmarks.peers --data mnist --minutes 2 --seeds 3 --out runs/peers-mnist
python -m benchmarks.documents.findings mnist runs/bench-mnist runs/peers-mnist
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from benchmarks.documents.gallery import write_small
from benchmarks.documents.page import table
from benchmarks.peers.environments import CONDITIONAL
from benchmarks.peers.made import Made
from zeuxis.evaluation.measure import Value
from zeuxis.evaluation.ranking import pooled, ranked
from zeuxis.evaluation.sharpness import laplacian_variance
from zeuxis.figures.style import INK, LINES, heading, new_figure, show_tiles
from zeuxis.run import Run

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"
# What the two tables show: how it is headed, and how written.
COLUMNS = (
    {
        "parameters": ("parameters", "{:,.0f}"),
        "training_multiply_adds": ("multiply-adds a training image", "{:,.0f}"),
        "images_per_second": ("images/s in training", "{:,.0f}"),
        "fid": ("Frechet distance ↓", "{:.1f}"),
        "inception_score": ("Inception Score ↑", "{:.2f}"),
        "precision": ("precision ↑", "{:.2f}"),
        "recall": ("recall ↑", "{:.2f}"),
        "coverage": ("coverage ↑", "{:.2f}"),
    },
    {
        "sharpness": ("sharpness (images: 1)", "{:.2f}"),
        "sharpness_centre": ("in the centre", "{:.2f}"),
        "sharpness_edge": ("at the edges", "{:.2f}"),
        "ms_ssim": ("MS-SSIM in a class ↓", "{:.2f}"),
        "outliers": ("very bad (images: 0.01)", "{:.3f}"),
        "suspects": ("near copies (images: 0.01)", "{:.3f}"),
        "test_mse": ("test MSE ↓", "{:.4f}"),
    },
)
COSTS = ("parameters", "training_multiply_adds", "images_per_second")
FAMILIES = {"VAEs": LINES[0], "GANs": LINES[1], "both": LINES[2]}
SAMPLES, ACROSS, SIDE = 1000, 4, 5


class Entry(NamedTuple):
    """A model: its name, what was measured of it from all seeds, and what each seed gave."""

    name: str
    evaluation: Mapping[str, Any]
    runs: Sequence[Run]


def family(name: str) -> str:
    """Which of the two families a model is of, by its name."""
    encoder, critic = "vae" in name or "aae" in name, "gan" in name
    return "both" if encoder and critic else "VAEs" if encoder else "GANs"


def entries(bench: Path, peers: Path) -> Iterator[Entry]:
    """Reads what two folders hold, of as many seeds as did not fail."""
    ours = json.loads((bench / "benchmark.json").read_text("utf-8"))
    theirs = json.loads((peers / "peers.json").read_text("utf-8"))
    first = Run(bench / ours[0]["run"])
    allowed = json.loads((peers / "task.json").read_text("utf-8"))["minutes"]
    if first.recipe.training.minutes != allowed:
        sys.exit(f"The budgets differ: {first.recipe.training.minutes} minutes of ours, {allowed} of the peers.")
    for name in dict.fromkeys(row["recipe"] for row in [*ours, *theirs]):
        mine = [row for row in ours if row["recipe"] == name]
        rows = mine or [row for row in theirs if row["recipe"] == name]
        runs = [
            Run(bench / row["run"])
            if mine
            else Made(peers / f"{row['run']}.npz", first.recipe, conditional=name in CONDITIONAL)
            for row in rows
        ]
        measured = [{"measures": row["measures"] | regions(run)} for row, run in zip(rows, runs, strict=True)]
        found = pooled(measured)
        assert found, f"{name} was measured from every seed"
        yield Entry(name, found, runs)


def regions(run: Run) -> dict[str, dict[str, Any]]:
    """Sharpness of samples in the middle half of the picture and in the frame around it, as a share of the images'."""
    images = run.images(run.choose_images("test", SAMPLES))
    low, high = images.shape[1] // 4, images.shape[1] * 3 // 4
    samples = run.sample(SAMPLES, seed=0)

    def edge(part: np.ndarray) -> np.ndarray:
        strips = (part[:, :low], part[:, high:], part[:, low:high, :low], part[:, low:high, high:])
        mean: np.ndarray = np.mean([laplacian_variance(strip) for strip in strips], axis=0)
        return mean

    def centre(part: np.ndarray) -> np.ndarray:
        return laplacian_variance(part[:, low:high, low:high])

    return {
        name: Value.mean(of(samples) / of(images).mean())._asdict()
        for name, of in (("sharpness_centre", centre), ("sharpness_edge", edge))
    }


def tables(found: Sequence[Entry]) -> str:
    """The models by their distance, with standard errors over the seeds; the best by `ranked` is bold."""
    found = sorted(found, key=lambda entry: entry.evaluation["measures"]["fid"]["value"])
    rows = ranked([entry.evaluation for entry in found])
    best = {(row.name, i) for row in rows for i, cell in enumerate(row.cells) if cell.best}
    return "\n".join(
        table(
            [
                {"model": f"`{entry.name}`"}
                | {head: _cell(entry, name, shown, (name, i) in best) for name, (head, shown) in columns.items()}
                for i, entry in enumerate(found)
            ]
        )
        for columns in COLUMNS
    )


def _cell(entry: Entry, name: str, shown: str, best: bool) -> str:
    if name not in entry.evaluation["measures"]:
        return ""
    value = Value(**entry.evaluation["measures"][name])
    text = shown.format(value.value)
    if value.stderr and name not in COSTS:
        text += f" ± {shown.format(value.stderr)}"
    return f"**{text}**" if best else text


def samples(found: Sequence[Entry], budget: str) -> Figure:
    """A panel of samples of the first seed for each model."""
    down = -(-len(found) // ACROSS)
    drawn = new_figure(2.6 * ACROSS, 0.6 + 2.9 * down)
    panels = drawn.subplots(down, ACROSS, squeeze=False).ravel()
    for ax in panels[len(found) :]:
        ax.set_axis_off()
    for ax, entry in zip(panels, found, strict=False):
        show_tiles(ax, entry.runs[0].sample(SIDE * SIDE, seed=1), SIDE)
        ax.set_title(entry.name, color=FAMILIES[family(entry.name)])
    heading(drawn, f"After {budget} each", "the first samples of the first seed, not chosen")
    return drawn


def diversity(found: Sequence[Entry], budget: str) -> Figure:
    """Sharpness against coverage: the two claims that are made of the families."""
    drawn = new_figure(8.2, 5)
    ax = drawn.subplots()
    for entry in found:
        x, y = (Value(**entry.evaluation["measures"][name]) for name in ("coverage", "sharpness"))
        color = FAMILIES[family(entry.name)]
        ax.errorbar(x.value, y.value, xerr=x.stderr or 0, yerr=y.stderr or 0, fmt="o", ms=6, lw=1.3, color=color)
    for name in dict.fromkeys(family(entry.name) for entry in found):
        ax.plot([], [], "o", color=FAMILIES[name], label=name)
    ax.axhline(1, color=INK, lw=0.8, ls=":")
    ax.set_yscale("log")
    ax.margins(x=0.14)
    ax.set_xlabel("coverage: share of images that have a sample near them")
    ax.set_ylabel("sharpness, as a share of the images'")
    ax.legend(loc="lower right")
    drawn.draw_without_rendering()  # places in pixels are settled
    _name_points(ax, found)
    heading(drawn, f"Sharp or diverse, after {budget} each", "means over the seeds; bars are standard errors")
    return drawn


def _name_points(ax: Axes, found: Sequence[Entry]) -> None:
    """Names beside their points, each where it covers no other name, no point, and stays inside."""
    points = [
        tuple(entry.evaluation["measures"][name]["value"] for name in ("coverage", "sharpness")) for entry in found
    ]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in ax.transData.transform(points)]
    for entry, point in zip(found, points, strict=True):
        name = ax.annotate(entry.name, point, (0, 0), textcoords="offset points", fontsize=8.5, color=INK)
        for right, up in ((7, 5), (7, -11), (-7, 5), (-7, -11)):  # the last one stays, whatever it covers
            name.set(position=(right, up), ha="left" if right > 0 else "right")
            extent = name.get_window_extent()
            inside = ax.bbox.x0 < extent.x0 and extent.x1 < ax.bbox.x1
            if inside and not any(extent.overlaps(other) for other in taken):
                break
        taken.append(extent)


def main() -> None:
    """Reads the command line and writes the files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.documents.findings")
    parser.add_argument("name", help="what the files are called")
    parser.add_argument("bench", type=Path)
    parser.add_argument("peers", type=Path)
    given = parser.parse_args()
    found = list(entries(given.bench, given.peers))
    minutes = found[0].runs[0].recipe.training.minutes
    FINDINGS.mkdir(parents=True, exist_ok=True)
    (FINDINGS / f"{given.name}-table.md").write_text(tables(found), "utf-8")
    measured = [{"model": entry.name, **entry.evaluation} for entry in found]
    (FINDINGS / f"{given.name}.json").write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
    for draw in (samples, diversity):
        picture = FINDINGS / f"{given.name}-{draw.__name__}.png"
        write_small(partial(draw, found, f"{minutes:g} minutes"), picture)


if __name__ == "__main__":
    main()
