"""Makes a pretrained run of the package from a trained run.

python -m benchmarks.assets.pretrained digits-flow runs/digits-flow-1 --images "..." --licence "..."
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import tomli_w
import torch

import zeuxis.pretrained as package
from zeuxis.evaluation.evaluate import evaluate
from zeuxis.evaluation.measure import as_text, by_name
from zeuxis.run import Run
from zeuxis.training.checkpoint import Checkpoint, best_checkpoint

FOLDER = Path(package.__file__).parent
# Journal lines that are kept: enough for the curves of a report.
LINES, SAMPLES = 150, 2000
# What a card tells, as far as it was measured.
TOLD = ("general_fid", "general_fid_floor", "fid", "fid_floor", "coverage", "label_agreement", "test_mse")


def pack(run: Run, target: Path, images: str, licence: str) -> None:
    """Writes a run with its weights in half precision, averaged where they are, and a card."""
    measures = evaluate(run, samples=SAMPLES)["measures"]
    shutil.rmtree(target, ignore_errors=True)
    (target / "checkpoints").mkdir(parents=True)
    shutil.copyfile(run.path / "evaluation.json", target / "evaluation.json")
    (target / "recipe.toml").write_text(run.recipe.to_toml(), "utf-8")
    known = {key: run.environment[key] for key in ("versions", "processor", "data")}
    (target / "environment.json").write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    lines, every = run.journal, max(len(run.journal) // LINES, 1)
    kept = [line for i, line in enumerate(lines) if i % every == 0 or line is lines[-1]]
    roles = {"roles": run.journal.roles}
    (target / "journal.jsonl").write_text(
        json.dumps({**kept[0], **roles}) + "\n" + "".join(json.dumps(line) + "\n" for line in kept[1:]), "utf-8"
    )
    path = best_checkpoint(run.path / "checkpoints")
    assert path is not None, "a trained run has a checkpoint"
    weights = {
        f"networks/{name}": value.to(torch.float16) if value.is_floating_point() else value.clone()
        for name, value in run.model.networks.state_dict().items()
    }
    state = Checkpoint.read(path, parts=()).state | {"recipe": run.recipe.model_dump(mode="json", exclude_none=True)}
    written = Checkpoint(weights, state).save(target / "checkpoints")
    written.rename(target / "checkpoints" / "best.safetensors")
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
