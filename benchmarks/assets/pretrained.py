"""Makes a pretrained run of the package from a trained run.

python -m benchmarks.assets.pretrained digits-flow runs/digits-flow-1 --images "..." --licence "..."
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import tomli_w

import zeuxis.pretrained as package
from zeuxis.evaluation.evaluate import evaluate
from zeuxis.evaluation.measure import as_text, by_name
from zeuxis.export.packing import pack as pack_run
from zeuxis.run import Run

FOLDER = Path(package.__file__).parent
SAMPLES = 2000
# What a card tells, as far as it was measured.
TOLD = ("general_fid", "general_fid_floor", "fid", "fid_floor", "coverage", "label_agreement", "test_mse")


def pack(run: Run, target: Path, images: str, licence: str) -> None:
    """Writes a packed run and its card."""
    measures = evaluate(run, samples=SAMPLES)["measures"]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    pack_run(run, target)
    told = ", ".join(f"{name} {as_text(measures[name]['value'])}" for name in TOLD if name in measures)
    features = next((f" in the features of {measures[n]['features']}" for n in TOLD if n in measures
                     and measures[n]["features"]), "")  # fmt: skip
    card = {
        "description": run.recipe.description, "images": images, "licence": licence,
        "measured": f"{told}{features}, {SAMPLES:,} samples",
    }  # fmt: skip
    assert set(TOLD) <= by_name().keys()
    (target / "card.toml").write_text(tomli_w.dumps(card), "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the pretrained run")
    parser.add_argument("run", type=Path, help="folder of the trained run")
    parser.add_argument("--images", required=True, help="what it was trained on")
    parser.add_argument("--licence", required=True, help="of these images")
    arguments = parser.parse_args()
    pack(Run(arguments.run), FOLDER / arguments.name, arguments.images, arguments.licence)
    print(FOLDER / arguments.name)
