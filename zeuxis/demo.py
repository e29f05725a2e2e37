"""The demo: three models learn handwriting, and one report compares them."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from zeuxis.progress import console
from zeuxis.recipe import load_recipe
from zeuxis.report import comparison
from zeuxis.run import Run
from zeuxis.training import Display, start

__all__ = ["RECIPES", "run_demo"]

# Sized so that the three take under four minutes together on two cores.
RECIPES = ("digits-vae", "digits-gan", "digits-cgan")


def run_demo(runs: Path) -> Path:
    """Trains the demo's recipes into `runs` and writes their comparison.

    Args:
        runs: folder for the runs; earlier ones stay.

    Returns:
        The path of the report, which is opened where there is a display.
    """
    trained = []
    for name in RECIPES:
        recipe = load_recipe(name)
        console.print(f"[bold]{name}[/]: {recipe.description}")
        folder, finished = start(recipe, runs, Display())
        trained.append(Run(folder))
        if not finished:
            console.print("Stopped: the remaining models are left out.")
            break
    if len(trained) < 2:
        raise KeyboardInterrupt
    path = comparison(trained, runs / "report.html")
    has_display = sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if has_display and sys.stderr.isatty():
        webbrowser.open(path.resolve().as_uri())
    return path
