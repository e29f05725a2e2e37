"""Compares the training speed of Zeuxis with that of other libraries on the networks of the reports.

    python -m benchmarks --peer keras          # or torch, a plain PyTorch loop, pythae or jax
    make bench                                 # all of them
    python -m benchmarks --memory              # the memory of each alone, which other work does not change
    python -m benchmarks --device cuda         # against plain PyTorch on a GPU, with captured steps
    python -m benchmarks --device cuda --digits --out gpu      # ten recipes on the digits; the pages stay as they are

Each worker is a separate process that trains the same network with the same batch size on the same images: Zeuxis in
both precisions, the others in float32, their default. The workers take turns, a round each. Results are medians over
the rounds, and ratios, because machines differ. Memory is the most that a worker has held, libraries included.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.documents.gallery import write_small
from benchmarks.documents.page import PAGE, publish
from benchmarks.peers.environments import interpreter, write_images
from benchmarks.speed.worker import BATCHES, ON_DIGITS, PLAINER, RESULTS, TEN, Worker
from zeuxis.figures.style import INK, LINES, heading, logarithmic, new_figure
from zeuxis.models import build_model
from zeuxis.recipe import load_recipe
from zeuxis.training.hardware import describe_machine
from zeuxis.training.optimizers import optimizer_of

HERE = Path(__file__).parent
PEERS = ("keras", "torch", "pythae", "jax")
VAES_ALONE = {"pythae"}
ON_GPU = ("torch", "torch-compiled")
PRECISIONS = ("float32", "bfloat16")
WARM, ROUNDS, SECONDS = 3, 5, 3.0
# A peer whose step takes longer, in seconds, is left out: its rounds would take an hour.
SLOWEST = 20.0
# The largest ratio that a chart shows on a linear scale.
WIDEST = 10


def described(name: str, images: Path, device: str = "cpu", settings: Sequence[str] = ()) -> dict[str, Any]:
    """Returns a recipe as a task for workers of any library: sizes as numbers, one stack of layers per network."""
    overrides = [f"training.batch_size={TEN[name]}", f"training.device={device}", *PLAINER.get(name, ()), *settings]
    if device == "cuda":
        overrides.append("training.capture=true")
    recipe = load_recipe(name, overrides)
    options: Any = recipe.model
    classes = 10 if recipe.model.name == "cgan" else 0
    model = build_model(recipe, tuple(map(str, range(classes))) or None)
    sizes = {"latent": options.latent, "channels": recipe.data.channels, "classes": classes}
    networks = {}
    for part, network in recipe.networks.items():
        layers = [" ".join(str(sizes.get(word, word)) for word in text.split()) for text in network.layers]
        if network.heads:  # the VAE's mean and log-variance, as one layer
            layers.append(f"dense {2 * options.latent}")
        if part == "discriminator" and layers[-1] == "sigmoid":  # its loss takes logits
            layers.pop()
        networks[part] = {"layers": layers, "shape": list(model.net(part).input_shape)}
    optimizer = optimizer_of(recipe)[1]
    return {
        "recipe": name, "overrides": overrides, "networks": networks, "latent": options.latent,
        "conditional": bool(classes), "batch": recipe.training.batch_size, "rate": optimizer.learning_rate,
        "betas": list(optimizer.model_dump()["betas"]), "generator_updates": getattr(options, "generator_updates", 1),
        "range": recipe.data.range, "images": str(images), "device": device,
    }  # fmt: skip


def measure(task: dict[str, Any], peers: Sequence[str], folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Runs rounds of Zeuxis, in both precisions, and of the peers in turn; returns rows of images per second.

    A peer whose step takes too long has no row, and a sentence says so.
    """
    workers = {name: Worker(words, folder / f"{name}.log") for name, words in _commands(task, peers, folder).items()}
    steps = {}
    for name, worker in list(workers.items()):
        worker.train(1)
        step = worker.train(1)
        if name in peers and step > SLOWEST:
            print(f"{task['recipe']}: a step of {name} takes {step:.0f} seconds, so it is left out.", file=sys.stderr)
            workers.pop(name).close()
            continue
        worker.train(WARM)
        steps[name] = max(math.ceil(WARM * seconds / worker.train(WARM)), 1)
    rates: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(ROUNDS):
        for name, worker in workers.items():
            rates[name].append(steps[name] * task["batch"] / worker.train(steps[name]))
    peaks = {name: worker.peak() for name, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    return [
        {
            "recipe": task["recipe"], "peer": peer, "batch": task["batch"], "device": task["device"],
            "precision": precision,
            "images_per_second": round(statistics.median(rates[precision]), 1),
            "peer_images_per_second": round(statistics.median(rates[peer]), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(rates[precision], rates[peer], strict=True)), 3),
            "mib": peaks[precision], "peer_mib": peaks[peer],
        }
        for peer in peers
        if peer in rates
        for precision in PRECISIONS
    ]  # fmt: skip


def _commands(task: dict[str, Any], peers: Sequence[str], folder: Path) -> dict[str, list[str | Path]]:
    """Returns the command line of each worker, ours by their precision."""
    path = folder / "task.json"
    path.write_text(json.dumps(task), "utf-8")
    commands: dict[str, list[str | Path]] = {
        precision: [sys.executable, "-m", "benchmarks.speed.ours", path, precision] for precision in PRECISIONS
    }
    for peer in peers:
        library, *words = peer.split("-")
        python = sys.executable if library == "torch" else interpreter(library)
        commands[peer] = [python, HERE / "speed" / f"with_{library}.py", path, *words]
    return commands


def memory(task: dict[str, Any], peers: Sequence[str], folder: Path) -> dict[str, int | None]:
    """Returns the most memory that each worker, alone, holds in a few steps, in MiB by its name."""
    peaks = {}
    for name, words in _commands(task, peers, folder).items():
        worker = Worker(words, folder / f"{name}.log")
        worker.train(WARM)
        peaks[name] = worker.peak()
        worker.close()
    return peaks


def is_fastest(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    """Returns whether no other peer of this recipe is faster beside ours: the one that counts."""
    same = [other for other in rows if all(other[name] == row[name] for name in ("recipe", "device", "precision"))]
    return bool(row["ratio"] == min(other["ratio"] for other in same))


def chart(rows: list[dict[str, Any]], hardware: str) -> Figure:
    """Returns a chart of the ratios: bars for bfloat16, grouped by recipe, with ticks for float32."""
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    peers = list(dict.fromkeys(row["peer"] for row in rows))
    figure = new_figure(8.4, 1.2 + 0.3 * len(recipes) * (len(peers) + 1))
    ax = figure.subplots()
    height = 0.8 / len(peers)
    for i, peer in enumerate(peers):
        for row in (row for row in rows if row["peer"] == peer):
            y = recipes.index(row["recipe"]) + (i - (len(peers) - 1) / 2) * height
            if row["precision"] == "float32":
                ax.plot([row["ratio"]] * 2, [y - height / 2, y + height / 2], color=INK, lw=2)
                continue
            ax.barh(y, row["ratio"], height * 0.9, color=LINES[i])
            text = f" {row['ratio']:.1f}   {row['images_per_second']:,.0f} to {row['peer_images_per_second']:,.0f}"
            if is_fastest(row, rows):
                text += "   fastest peer"
            ax.text(row["ratio"], y, text, va="center", fontsize=8.5, color=INK)
        ax.barh(0, 0, color=LINES[i], label=f"against {peer}")
    ax.plot([], [], color=INK, lw=2, label="ours in float32")
    ax.axvline(1, color=INK, lw=0.8, ls=":")
    if max(row["ratio"] for row in rows) > WIDEST:
        logarithmic(ax, "x")
        ax.set_xlim(0.5, 4 * max(row["ratio"] for row in rows))
    ax.set_yticks(range(len(recipes)), recipes)
    ax.invert_yaxis()
    ax.margins(x=0.25)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("times as many training images a second, ours in bfloat16, the others in float32")
    ax.legend(loc="lower right")
    heading(figure, "Training speed beside the peers", f"medians of rounds in turn, on {hardware}; images a second")
    return figure


def write_pages(rows: list[dict[str, Any]], device: str, page: Path) -> None:
    """Writes the table and the chart of the speeds on a device into a folder."""
    recipes, known = list(TEN), list(dict.fromkeys([*PEERS, *ON_GPU]))
    on_device = [row for row in rows if row["device"] == device]
    on_device.sort(key=lambda row: (recipes.index(row["recipe"]), known.index(row["peer"])))
    name = "speed" if device == "cpu" else f"speed-{device}"
    publish(
        name,
        [
            {
                "recipe": row["recipe"], "batch": row["batch"], "peer": row["peer"], "ours in": row["precision"],
                "images/s": f"{row['images_per_second']:,.0f}", "the peer's": f"{row['peer_images_per_second']:,.0f}",
                "ratio": f"**{row['ratio']:.2f}**" if is_fastest(row, on_device) else f"{row['ratio']:.2f}",
                "MiB": _mib(row.get("mib")), "the peer's MiB": _mib(row.get("peer_mib")),
            }
            for row in on_device
        ],
        page,
    )  # fmt: skip
    machine = describe_machine(torch.device(device))
    hardware = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    write_small(lambda: chart(on_device, hardware), page / f"{name}.png")


def _mib(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def main() -> None:
    """Reads the command line, measures, and writes the results and the chart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--peer", choices=sorted({*PEERS, *ON_GPU}), action="append", help="may be repeated")
    parser.add_argument("--recipe", choices=TEN, action="append", help="may be repeated; default: five, or ten")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda, on which only PyTorch is a peer")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of a round")
    parser.add_argument("--digits", action="store_true", help="train ten recipes on the digits, which need no data set")
    parser.add_argument("--memory", action="store_true", help="measure the memory of each, and keep the speeds")
    parser.add_argument("--out", type=Path, help="folder for results and pictures; default: those of the documentation")
    arguments = parser.parse_args()
    settings = ON_DIGITS if arguments.digits else ()
    results = arguments.out / RESULTS.name if arguments.out else RESULTS
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    if results.exists():  # results that are not measured again are kept
        rows = {_key(row): row for row in json.loads(results.read_text("utf-8"))}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in arguments.recipe or (TEN if arguments.digits else BATCHES):
            recipe = load_recipe(name, settings)
            images = folder / f"{recipe.data.source}-{recipe.data.size.setting}-{recipe.data.channels}.npz"
            if not images.exists():
                write_images(images, recipe)
            peers = arguments.peer or (PEERS if arguments.device == "cpu" else ON_GPU)
            peers = [peer for peer in peers if recipe.model.name == "vae" or peer not in VAES_ALONE]
            task = described(name, images, arguments.device, settings)
            if arguments.memory:
                kept = [row for row in rows.values() if row["recipe"] == name and row["device"] == arguments.device]
                peaks = memory(task, [peer for peer in peers if peer in {row["peer"] for row in kept}], folder)
                measured = [row | {"mib": peaks[row["precision"]], "peer_mib": peaks[row["peer"]]}
                            for row in kept if row["peer"] in peaks]  # fmt: skip
            else:
                measured = measure(task, peers, folder, arguments.seconds)
            for row in measured:
                rows[_key(row)] = row
                print(json.dumps(row), flush=True)
            results.parent.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps(list(rows.values()), indent=1) + "\n", "utf-8")
    write_pages(list(rows.values()), arguments.device, arguments.out or PAGE)


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("recipe", "peer", "device", "precision"))


if __name__ == "__main__":
    main()
