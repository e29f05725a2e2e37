"""Writes the table of docs/findings/what-pays.md: one change to a recipe at a time, in a benchmark of several seeds.

    zeuxis benchmark --models AS-IT-IS.toml,CHANGED.toml,... --images 20000 --seeds 3 --out runs/what-pays
    python -m benchmarks.documents.what_pays runs/what-pays

The first model is the recipe as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.documents.findings import FINDINGS, by_recipe, over_seeds
from benchmarks.documents.page import publish
from zeuxis.evaluation.measure import Value
from zeuxis.evaluation.ranking import differ
from zeuxis.run import Run


def changes(folder: Path) -> list[dict[str, Any]]:
    """Returns a row of the table for each model of a benchmark, nearest to the images first."""
    rows, plain = [], None
    for name, own in by_recipe(folder / "benchmark.json").items():
        measures = over_seeds(name, own)["measures"]
        distance, coverage = (Value(**measures[key]) for key in ("fid", "coverage"))
        plain = plain or distance
        verdict = "" if distance is plain else "open"
        if differ(distance, plain):
            verdict = "**nearer**" if distance.value < plain.value else "farther"
        row = {
            "change": Run(folder / own[0]["run"]).recipe.description,
            "Frechet distance": f"{distance.value:.1f} ± {distance.stderr or 0:.1f}",
            "coverage": f"{coverage.value:.2f} ± {coverage.stderr or 0:.2f}",
            "than the recipe as it is": verdict,
        }
        rows.append((distance.value, row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def main() -> None:
    """Reads the command line and writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="of `zeuxis benchmark`")
    publish("what-pays-table", changes(parser.parse_args().folder), FINDINGS)


if __name__ == "__main__":
    main()
