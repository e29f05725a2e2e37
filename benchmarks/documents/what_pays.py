"""Writes the table of docs/findings/what-pays.md: one change to a recipe at a time, in a benchmark of several seeds.

    zeuxis benchmark --models AS-IT-IS.toml,CHANGED.toml,... --images 20000 --seeds 3 --out runs/what-pays
    python -m benchmarks.documents.what_pays runs/what-pays

The first model is the recipe as it is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.documents.findings import FINDINGS
from benchmarks.documents.page import publish
from zeuxis.evaluation.measure import Value
from zeuxis.evaluation.ranking import differ, pooled
from zeuxis.run import Run


def changes(folder: Path) -> list[dict[str, Any]]:
    """Returns a row of the table for each model of a benchmark, nearest to the images first."""
    entries = json.loads((folder / "benchmark.json").read_text("utf-8"))
    names = list(dict.fromkeys(entry["recipe"] for entry in entries))
    runs = [Run(folder / next(entry["run"] for entry in entries if entry["recipe"] == name)) for name in names]
    rows = []
    values: dict[str, dict[str, Value]] = {}
    for name in names:
        evaluation = pooled([{"measures": entry["measures"]} for entry in entries if entry["recipe"] == name])
        assert evaluation, f"{name} was measured from every seed"
        values[name] = {key: Value(**evaluation["measures"][key]) for key in ("fid", "coverage")}
    plain = values[names[0]]
    for name, run in zip(names, runs, strict=True):
        own = values[name]
        verdict = "open"
        if differ(own["fid"], plain["fid"]):
            verdict = "**nearer**" if own["fid"].value < plain["fid"].value else "farther"
        rows.append(
            {
                "change": run.recipe.description,
                "Frechet distance": f"{own['fid'].value:.1f} ± {own['fid'].stderr or 0:.1f}",
                "coverage": f"{own['coverage'].value:.2f} ± {own['coverage'].stderr or 0:.2f}",
                "than the recipe as it is": "" if name == names[0] else verdict,
            }
        )
    return sorted(rows, key=lambda row: float(row["Frechet distance"].split()[0]))


def main() -> None:
    """Reads the command line and writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="of `zeuxis benchmark`")
    publish("what-pays-table", changes(parser.parse_args().folder), FINDINGS)


if __name__ == "__main__":
    main()
