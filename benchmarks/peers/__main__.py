"""Trains other libraries' models on the same images for the same time, and measures their samples with Zeuxis.

    python -m benchmarks.peers --data mnist --minutes 2 --seeds 3 --out runs/peers-mnist

Each library has its own environment, which is installed on first use. Results that are already in the folder are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.peers.environments import CONDITIONAL, SAMPLES, interpreter, write_images
from benchmarks.peers.made import Made
from zeuxis.files import write_file
from zeuxis.study.benchmark import recipe_for

HERE = Path(__file__).parent
PEERS = ("keras-vae", "keras-dcgan", "keras-cgan", "pythae-vae", "pythae-aae", "pythae-vaegan")
# Peers written for images of 28 pixels only.
DIGITS_ALONE = {"keras-vae", "keras-cgan"}


def _sum(path: Path) -> str:
    with np.load(path) as arrays:
        return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


def main() -> None:
    """Trains and measures every peer with every seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    recipe = recipe_for("vae", arguments.data, None, {})
    arguments.out.mkdir(parents=True, exist_ok=True)
    images = arguments.out / "images.npz"
    if not images.exists():
        write_images(images, recipe)
    settings = {"data": arguments.data, "images": _sum(images), "minutes": arguments.minutes, "samples": SAMPLES}
    task = arguments.out / "task.json"
    if task.exists() and json.loads(task.read_text("utf-8")) != settings:
        sys.exit(f"{arguments.out} holds results of another task, {task.read_text('utf-8')}; choose another folder.")
    task.write_text(json.dumps(settings) + "\n", "utf-8")
    fitting = [
        peer for peer in arguments.peers.split(",") if recipe.data.size.setting == 28 or peer not in DIGITS_ALONE
    ]
    rows = []
    for seed in range(arguments.seeds):
        for peer in fitting:
            library, _, model = peer.partition("-")
            output = arguments.out / f"{peer}-seed-{seed}.npz"
            measures = output.with_suffix(".json")
            if not output.exists():
                print(output.stem)
                words = [interpreter(library), HERE / f"with_{library}.py", model, images, output]
                options = [f"--minutes={arguments.minutes}", f"--seed={seed}", f"--samples={SAMPLES}"]
                process = subprocess.run([*words, *options], capture_output=True, text=True, check=False)
                if process.returncode:
                    print(f"{output.stem} failed and is left out: {process.stderr[-2000:]}")
                    continue
            if not measures.exists():
                measured = json.dumps(Made(output, recipe, conditional=peer in CONDITIONAL).measured())
                write_file(measures, measured)
            rows.append({
                "recipe": peer, "seed": seed, "run": output.stem, "measures": json.loads(measures.read_text("utf-8")),
            })  # fmt: skip
    write_file(arguments.out / "peers.json", json.dumps(rows, indent=1) + "\n")
    print(arguments.out / "peers.json")


if __name__ == "__main__":
    main()
