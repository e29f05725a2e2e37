"""Draws a benchmark, alone or beside peers on the same images and budget: tables and pictures for docs/findings.

zeuxis benchmark --models ... --data mnist --minutes 2 --seeds 3 --out runs/bench-mnist
python -m benchmarks.peers --data mnist --minutes 2 --seeds 3 --out runs/peers-mnist
python -m benchmarks.documents.findings mnist runs/bench-mnist --peers runs/peers-mnist
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
from zeuxis.figures.style import INK, LINES, heading, logarithmic, new_figure, show_tiles
from zeuxis.run import Run

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"
# Columns of the two tables: by measure, the head and the format of the figures.
COLUMNS = (
    {
        "parameters": ("parameters", "{:,.0f}"),
        "training_multiply_adds": ("multiply-adds a training image", "{:,.0f}"),
        "images_per_second": ("images/s in training", "{:,.0f}"),
        "general_fid": ("by a general network ↓", "{:.0f}"),
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
FAMILIES = {"VAEs": LINES[0], "GANs": LINES[1], "both": LINES[2], "flows": LINES[3]}
SAMPLES, ACROSS, SIDE = 1000, 4, 5


class Entry(NamedTuple):
    """A model: its name, its measures pooled over all seeds, and the run of each seed."""

    name: str
    evaluation: Mapping[str, Any]
    runs: Sequence[Run]


def family(name: str) -> str:
    """Returns the family of a model by its name: flows, VAEs, GANs, or both of these two."""
    encoder, critic = "vae" in name or "aae" in name, "gan" in name
    return "flows" if "flow" in name else "both" if encoder and critic else "VAEs" if encoder else "GANs"


def by_recipe(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Reads the trainings of a benchmark or of peers, those of each model together."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(file.read_text("utf-8")):
        found.setdefault(row["recipe"], []).append(row)
    return found


def over_seeds(name: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the measures of a model, pooled over its trainings from several seeds."""
    evaluation = pooled(rows)
    assert evaluation, f"{name} was measured from every seed"
    return evaluation


def entries(bench: Path, peers: Path | None) -> Iterator[Entry]:
    """Reads the models of a benchmark and of peers, with all seeds that did not fail."""
    ours = by_recipe(bench / "benchmark.json")
    for name, rows in ours.items():
        yield _entry(name, rows, [Run(bench / row["run"]) for row in rows])
    if peers is None:
        return
    recipe = Run(bench / next(iter(ours.values()))[0]["run"]).recipe
    allowed = json.loads((peers / "task.json").read_text("utf-8"))["minutes"]
    if recipe.training.minutes != allowed:
        sys.exit(f"The budgets differ: {recipe.training.minutes} minutes of ours, {allowed} of the peers.")
    for name, rows in by_recipe(peers / "peers.json").items():
        made = [Made(peers / f"{row['run']}.npz", recipe, conditional=name in CONDITIONAL) for row in rows]
        yield _entry(name, rows, made)


def _entry(name: str, rows: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> Entry:
    measured = [{"measures": row["measures"] | regions(run)} for row, run in zip(rows, runs, strict=True)]
    return Entry(name, over_seeds(name, measured), runs)


def regions(run: Run) -> dict[str, dict[str, Any]]:
    """Returns the sharpness of samples in the image's centre and in the frame around it, relative to real images."""
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


def tables(models: Sequence[Entry]) -> str:
    """Returns the tables, sorted by Frechet distance, with standard errors over the seeds; the best are bold."""
    models = sorted(models, key=lambda entry: entry.evaluation["measures"]["fid"]["value"])
    rows = ranked([entry.evaluation for entry in models])
    best = {(row.name, i) for row in rows for i, cell in enumerate(row.cells) if cell.best}
    return "\n".join(
        table(
            [
                {"model": f"`{entry.name}`"}
                | {
                    head: _cell(entry, name, form, (name, i) in best)
                    for name, (head, form) in columns.items()
                    if any(name in each.evaluation["measures"] for each in models)
                }
                for i, entry in enumerate(models)
            ]
        )
        for columns in COLUMNS
    )


def _cell(entry: Entry, name: str, form: str, best: bool) -> str:
    if name not in entry.evaluation["measures"]:
        return ""
    value = Value(**entry.evaluation["measures"][name])
    text = form.format(value.value)
    if value.stderr and name not in COSTS:
        text += f" ± {form.format(value.stderr)}"
    return f"**{text}**" if best else text


def samples(models: Sequence[Entry], budget: str) -> Figure:
    """Returns a figure with a panel of samples of the first seed for each model."""
    across = min(ACROSS, len(models))
    down = -(-len(models) // across)
    figure = new_figure(2.6 * across, 0.6 + 2.9 * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for ax in panels[len(models) :]:
        ax.set_axis_off()
    for ax, entry in zip(panels, models, strict=False):
        show_tiles(ax, entry.runs[0].sample(SIDE * SIDE, seed=1), SIDE)
        ax.set_title(entry.name, color=FAMILIES[family(entry.name)])
    heading(figure, f"After {budget} each", "the first samples of the first seed, not chosen")
    return figure


def diversity(models: Sequence[Entry], budget: str) -> Figure:
    """Returns a figure of sharpness against coverage, in which VAEs and GANs are said to differ."""
    figure = new_figure(8.2, 5)
    ax = figure.subplots()
    for entry in models:
        x, y = (Value(**entry.evaluation["measures"][name]) for name in ("coverage", "sharpness"))
        color = FAMILIES[family(entry.name)]
        ax.errorbar(x.value, y.value, xerr=x.stderr or 0, yerr=y.stderr or 0, fmt="o", ms=6, lw=1.3, color=color)
    for name in dict.fromkeys(family(entry.name) for entry in models):
        ax.plot([], [], "o", color=FAMILIES[name], label=name)
    ax.axhline(1, color=INK, lw=0.8, ls=":")
    logarithmic(ax, "y")
    ax.margins(x=0.14)
    ax.set_xlabel("coverage: share of images that have a sample near them")
    ax.set_ylabel("sharpness, as a share of the images'")
    ax.legend(loc="lower right")
    figure.draw_without_rendering()  # fixes positions in pixels
    _name_points(ax, models)
    heading(figure, f"Sharp or diverse, after {budget} each", "means over the seeds; bars are standard errors")
    return figure


def _name_points(ax: Axes, models: Sequence[Entry]) -> None:
    """Writes names next to their points, each inside the axes and without covering another name or point."""
    points = [
        tuple(entry.evaluation["measures"][name]["value"] for name in ("coverage", "sharpness")) for entry in models
    ]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in ax.transData.transform(points)]
    for entry, point in zip(models, points, strict=True):
        name = ax.annotate(entry.name, point, (0, 0), textcoords="offset points", fontsize=8.5, color=INK)
        for right, up in ((7, 5), (7, -11), (-7, 5), (-7, -11)):  # if none fits, the last is used
            name.set(position=(right, up), ha="left" if right > 0 else "right")
            extent = name.get_window_extent()
            inside = ax.bbox.x0 < extent.x0 and extent.x1 < ax.bbox.x1
            if inside and not any(extent.overlaps(other) for other in taken):
                break
        taken.append(extent)


def main() -> None:
    """Reads the command line and writes the files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.documents.findings")
    parser.add_argument("name", help="beginning of the files' names")
    parser.add_argument("bench", type=Path)
    parser.add_argument("--peers", type=Path)
    arguments = parser.parse_args()
    models = list(entries(arguments.bench, arguments.peers))
    minutes = models[0].runs[0].recipe.training.minutes
    FINDINGS.mkdir(parents=True, exist_ok=True)
    (FINDINGS / f"{arguments.name}-table.md").write_text(tables(models), "utf-8")
    measured = [{"model": entry.name, **entry.evaluation} for entry in models]
    (FINDINGS / f"{arguments.name}.json").write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
    for draw in (samples, diversity):
        picture = FINDINGS / f"{arguments.name}-{draw.__name__}.png"
        write_small(partial(draw, models, f"{minutes:g} minutes"), picture)


if __name__ == "__main__":
    main()
