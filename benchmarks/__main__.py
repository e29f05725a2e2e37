"""Trains the networks of the reports beside other ways to train them, in alternation, and reports ratios.

    python -m benchmarks --peer keras          # or torch, a plain PyTorch loop, or pythae
    make bench                                 # all of them

Every worker is a process of its own that trains the same network at the same batch size on the same images. They take
turns: a round of ours, a round of theirs. What counts is the median over rounds, and the ratio, as machines differ.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.peers.__main__ import interpreter, write_images
from zeuxis.figures.style import INK, LINES, heading, new_figure, write
from zeuxis.models import build_model
from zeuxis.recipe import Recipe, load_recipe

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
# Recipes of the reports, at the batch sizes of the comparison, and who else can train them.
BATCHES = {"mnist-vae-z2": 128, "mnist-gan": 256, "mnist-cgan": 64, "faces-gan-64": 64, "faces-dcgan-64": 64}
PEERS = ("keras", "torch", "pythae")
VAES_ALONE = {"pythae"}
WARM, ROUNDS, SECONDS = 3, 5, 3.0


class Worker:
    """A process that trains a task, round by round."""

    def __init__(self, words: list[str | Path]) -> None:
        quiet = os.environ | {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            "PYTHONPATH": str(HERE.parent),
        }
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet
        )
        self._read()

    def _read(self) -> str:
        assert self.process.stdout and self.process.stderr
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"A worker died: {self.process.stderr.read()[-2000:]}")
        return line

    def train(self, steps: int) -> float:
        """Seconds for so many steps."""
        assert self.process.stdin
        print(steps, file=self.process.stdin, flush=True)
        return float(self._read())

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate()


def described(recipe: Recipe, images: Path, precision: str) -> dict[str, Any]:
    """A recipe as a worker of any library understands it: every size a number, one stack of layers a network."""
    options: Any = recipe.model
    classes = 10 if recipe.model.name == "cgan" else 0
    model = build_model(recipe, tuple(map(str, range(classes))) or None)
    sizes = {"latent": options.latent, "channels": recipe.data.channels, "classes": classes}
    networks = {}
    for name, network in recipe.networks.items():
        layers = [" ".join(str(sizes.get(part, part)) for part in text.split()) for text in network.layers]
        if network.heads:  # of the VAE: mean and log-variance, as one layer
            layers.append(f"dense {2 * options.latent}")
        networks[name] = {"layers": layers, "shape": list(model.net(name).input_shape)}
    optimizer = recipe.training.optimizer
    return {
        "recipe": recipe.name, "networks": networks, "latent": options.latent, "conditional": bool(classes),
        "batch": recipe.training.batch_size, "rate": optimizer.learning_rate, "betas": list(optimizer.betas),
        "generator_updates": getattr(options, "generator_updates", 1), "range": recipe.data.range,
        "images": str(images), "precision": precision,
    }  # fmt: skip


def measure(task: dict[str, Any], peer: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Rounds of ours and of a peer in turn; images a second of both."""
    path = folder / "task.json"
    path.write_text(json.dumps(task), "utf-8")
    python = sys.executable if peer == "torch" else interpreter(peer)
    workers = [
        Worker([sys.executable, "-m", "benchmarks.speed.ours", path]),
        Worker([python, HERE / "speed" / f"with_{peer}.py", path]),
    ]
    steps = []
    for worker in workers:
        worker.train(WARM)
        steps.append(max(math.ceil(WARM * seconds / worker.train(WARM)), 1))
    rates: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for worker, count, found in zip(workers, steps, rates, strict=True):
            found.append(count * task["batch"] / worker.train(count))
    for worker in workers:
        worker.close()
    ours, theirs = map(statistics.median, rates)
    return {
        "recipe": task["recipe"], "peer": peer, "batch": task["batch"], "device": "cpu", "precision": task["precision"],
        "images_per_second": round(ours, 1), "peer_images_per_second": round(theirs, 1),
        "ratio": round(statistics.median(a / b for a, b in zip(*rates, strict=True)), 3),
    }  # fmt: skip


def chart(rows: list[dict[str, Any]]) -> Figure:
    """Ratios as bars, a group for each recipe."""
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    peers = list(dict.fromkeys(row["peer"] for row in rows))
    drawn = new_figure(8.4, 1.0 + 0.62 * len(recipes) * max(len(peers), 2) / 2)
    ax = drawn.subplots()
    high = 0.8 / len(peers)
    for i, peer in enumerate(peers):
        mine = [row for row in rows if row["peer"] == peer]
        places = [recipes.index(row["recipe"]) + (i - (len(peers) - 1) / 2) * high for row in mine]
        ax.barh(places, [row["ratio"] for row in mine], high * 0.9, color=LINES[i], label=peer)
        for place, row in zip(places, mine, strict=True):
            text = f" {row['ratio']:.1f}   {row['images_per_second']:,.0f} to {row['peer_images_per_second']:,.0f}"
            ax.text(row["ratio"], place, text, va="center", fontsize=8.5, color=INK)
    ax.axvline(1, color=INK, lw=0.8, ls=":")
    ax.set_yticks(range(len(recipes)), recipes)
    ax.invert_yaxis()
    ax.margins(x=0.25)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("times as many training images a second")
    ax.legend(loc="lower right")
    heading(drawn, "Training speed beside the peers", "medians of rounds in turn; images a second, ours to theirs")
    return drawn


def main() -> None:
    """Reads the command line, measures, and writes results and chart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--peer", choices=PEERS, action="append", help="else all")
    parser.add_argument("--recipe", choices=BATCHES, action="append", help="else all")
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"), help="of ours")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a round")
    given = parser.parse_args()
    rows = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in given.recipe or BATCHES:
            recipe = load_recipe(name, [f"training.batch_size={BATCHES[name]}"])
            images = folder / f"{recipe.data.source}.npz"
            if not images.exists():
                write_images(images, recipe)
            for peer in given.peer or PEERS:
                if peer in VAES_ALONE and recipe.model.name != "vae":
                    continue
                rows.append(measure(described(recipe, images, given.precision), peer, folder, given.seconds))
                print(json.dumps(rows[-1]), flush=True)
    table = Table("recipe", "peer", box=None, pad_edge=False)
    for head in ("batch", "images/s", "peer's", "ratio"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            row["recipe"], row["peer"], str(row["batch"]), f"{row['images_per_second']:,.0f}",
            f"{row['peer_images_per_second']:,.0f}", f"{row['ratio']:.2f}",
        )  # fmt: skip
    Console().print(table)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    write(lambda: chart(rows), RESULTS.with_suffix(".png"))


if __name__ == "__main__":
    main()
