"""Environments of the other libraries, and the images that they are trained on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.peers.made import Images
from zeuxis.data import to_bytes
from zeuxis.evaluation.measure import pieces
from zeuxis.recipe import Recipe

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".peers"
# Peers whose samples are conditional on the class.
CONDITIONAL = {"keras-cgan"}
SAMPLES = 2000


def interpreter(library: str) -> Path:
    """Returns the Python of a library's environment, which is installed first if it is missing."""
    folder = ENVIRONMENTS / library
    python = folder / "bin" / "python"
    marker = folder / "installed"
    if not marker.exists():
        print(f"installing {library} into {folder}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / f"{library}.txt"], check=True)
        marker.touch()
    return python


def write_images(path: Path, recipe: Recipe) -> None:
    """Writes the training images, their classes, and the held-out images for the measures."""
    run = Images(path, recipe)
    indices = run.choose_images("train")
    train = np.concatenate([to_bytes(run.images(part)) for part in pieces(indices)])
    labels = run.labels(indices)
    np.savez(path, train=train, labels=np.zeros(0) if labels is None else labels, test=to_bytes(run.held_out(SAMPLES)))
