"""The demo: trains a model of each family on handwritten digits and compares them in one report."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

from zeuxis.errors import UserError
from zeuxis.progress import say
from zeuxis.recipe import load_recipe
from zeuxis.report import comparison
from zeuxis.run import Run
from zeuxis.system import has_display
from zeuxis.training import start

__all__ = ["MINUTES", "run_demo"]

# Minutes of training per recipe: enough for recognisable digits on two cores, and less than four minutes in total,
# including the report.
MINUTES = {"digits-vae": 0.5, "digits-cgan": 1.0, "digits-flow": 1.2}


def run_demo(runs: Path, *, minutes: float | None = None) -> Path:
    """Trains the demo's recipes into `runs` and writes a report that compares them.

    Args:
        runs: folder for the runs; earlier runs are kept.
        minutes: training time of all models together; None for what gives recognisable digits.

    Returns:
        The path of the report, which is opened in a browser if there is a display.

    Raises:
        UserError: if it is stopped before all models are trained.
    """
    trained = []
    share = 1.0 if minutes is None else minutes / sum(MINUTES.values())
    for name, own in MINUTES.items():
        recipe = load_recipe(name, {"training.minutes": own * share})
        say(recipe.description, lead=f"{name}  ")
        folder, finished = start(recipe, runs)
        trained.append(Run(folder))
        if not finished:
            raise UserError(f"The demo was stopped; its runs are kept in {runs}.")
    path = comparison(trained, runs / "report.html").path
    if has_display() and sys.stderr.isatty():
        webbrowser.open(path.resolve().as_uri())
    return path
