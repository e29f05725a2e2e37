"""Trains other libraries' models on our images, for as long as ours, and measures what they make with our measures.

    python -m benchmarks.peers --data mnist --minutes 2 --seeds 3 --out runs/peers-mnist

Each library has an environment of its own, made when it is first needed. What stands in the folder is not repeated.
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
# Written for one size of image.
DIGITS_ALONE = {"keras-vae", "keras-cgan"}


def _sum(path: Path) -> str:
    with np.load(path) as arrays:
        return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


def main() -> None:
    """Trains and measures every peer from every seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    recipe = recipe_for("vae", given.data, None, {})
    given.out.mkdir(parents=True, exist_ok=True)
    images = given.out / "images.npz"
    if not images.exists():
        write_images(images, recipe)
    asked = {"data": given.data, "images": _sum(images), "minutes": given.minutes, "samples": SAMPLES}
    task = given.out / "task.json"
    if task.exists() and json.loads(task.read_text("utf-8")) != asked:
        sys.exit(f"{given.out} holds what was made of another task, {task.read_text('utf-8')}; choose another folder.")
    task.write_text(json.dumps(asked) + "\n", "utf-8")
    fitting = [peer for peer in given.peers.split(",") if recipe.data.size == 28 or peer not in DIGITS_ALONE]
    rows = []
    for seed in range(given.seeds):
        for peer in fitting:
            library, _, model = peer.partition("-")
            made = given.out / f"{peer}-seed-{seed}.npz"
            found = made.with_suffix(".json")
            if not made.exists():
                print(made.stem)
                words = [interpreter(library), HERE / f"with_{library}.py", model, images, made]
                options = [f"--minutes={given.minutes}", f"--seed={seed}", f"--samples={SAMPLES}"]
                done = subprocess.run([*words, *options], capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{made.stem} is left out, it failed: {done.stderr[-2000:]}")
                    continue
            if not found.exists():
                measured = json.dumps(Made(made, recipe, conditional=peer in CONDITIONAL).measured())
                write_file(found, measured)
            rows.append({
                "recipe": peer, "seed": seed, "run": made.stem, "measures": json.loads(found.read_text("utf-8")),
            })  # fmt: skip
    write_file(given.out / "peers.json", json.dumps(rows, indent=1) + "\n")
    print(given.out / "peers.json")


if __name__ == "__main__":
    main()
