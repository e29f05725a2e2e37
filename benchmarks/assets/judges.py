"""Makes the judges that come with the package from trained classifiers.

zeuxis train mnist-cnn && python -m benchmarks.assets.judges runs/mnist-cnn-1
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

import zeuxis.evaluation.judges as package
from zeuxis.run import Run
from zeuxis.training.checkpoint import Checkpoint, best_checkpoint

FOLDER = Path(package.__file__).parent


def cut_down(run: Run, target: Path) -> None:
    """Writes only what is needed to use a run: recipe, tests, and weights in float16."""
    shutil.rmtree(target, ignore_errors=True)
    (target / "checkpoints").mkdir(parents=True)
    shutil.copyfile(run.path / "recipe.toml", target / "recipe.toml")
    known = {key: run.environment[key] for key in ("versions", "processor", "data")}
    (target / "environment.json").write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    tests = [line for line in run.journal if {*run.names_of("test")} & line.keys()]
    (target / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in tests), "utf-8")
    path = best_checkpoint(run.path / "checkpoints")
    assert path is not None, "a trained run has a checkpoint"
    whole = Checkpoint.read(path)
    weights = {
        name: tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        for name, tensor in whole.tensors.items()
        if name.startswith("networks/")
    }
    saved = Checkpoint(weights, whole.state).save(target / "checkpoints")
    saved.rename(target / "checkpoints" / "best.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of classifiers")
    for path in parser.parse_args().runs:
        run = Run(path)
        cut_down(run, FOLDER / run.recipe.name)
        print(FOLDER / run.recipe.name)
