"""Takes every measure that applies to a run, and writes what they found beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from zeuxis.errors import UserError, one_of, require_within
from zeuxis.evaluation.judge import Judge, judge_name, judge_of
from zeuxis.evaluation.measure import Material, by_name, measures
from zeuxis.files import write_file
from zeuxis.progress import bar
from zeuxis.run import LAST_SEED, MOST_LATENTS, Run

__all__ = ["applicable", "evaluate", "evaluated", "read_evaluation"]

FILE = "evaluation.json"
# An evaluation of fewer samples would mean nothing.
FEWEST = 100
# Measures that need further latents draw them from the seeds after the one that is given.
MORE_SEEDS = 100


def applicable(run: Run, judge: Judge | None = None) -> list[str]:
    """Returns the names of all that can be measured of a run, by this judge or by whom `judge_of` finds."""
    material = Material(run, judge=judge or judge_of(run))
    return [name for each in measures() if each.applies(material) for name in each.gives]


def evaluate(
    run: Run,
    *,
    samples: int = 10_000,
    seed: int = 0,
    judge: Judge | None = None,
    only: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Any]:
    """Measures a run and writes `evaluation.json` into its folder.

    Args:
        run: what to measure.
        samples: images that it makes for it.
        seed: of their latents.
        judge: in whose features distances are measured; else whom `judge_of` finds.
        only: names of measures; else all that apply. Others that were taken in the same way are kept.
        progress: show a bar.

    Returns:
        What is written: the run's name, the features, samples, seed, and the measures by name.

    Raises:
        UserError: for too few samples, a judge of other images, or a measure that is not known.
    """
    require_within("The number of samples", samples, FEWEST, MOST_LATENTS)
    require_within("A seed", seed, 0, LAST_SEED - MORE_SEEDS)
    judge = judge or judge_of(run)
    if isinstance(judge, Run) and judge.recipe.data.shape != run.recipe.data.shape:
        raise UserError(
            f"{judge.path} cannot judge {run.path}: it takes images of {judge.recipe.data.shape}, and the run makes "
            f"{run.recipe.data.shape}."
        )
    material = Material(run, samples=samples, seed=seed, judge=judge)
    names = applicable(run, judge)
    for name in only:
        if name not in by_name():
            raise one_of("measure", name, by_name())
        if name not in names:
            raise UserError(f"{name} cannot be measured of {run.name}; what can: {', '.join(sorted(names))}.")
    wanted = [each for each in measures() if set(only or names) & set(each.gives) & set(names)]
    found: dict[str, dict[str, Any]] = {}
    with bar(f"evaluating {run.name}", len(wanted), visible=progress) as advance:
        for each in wanted:
            found |= {name: value._asdict() for name, value in each.take(material).items()}
            advance(1)
    how = _how(run, judge, samples, seed)
    written = {"run": run.name, **how, "measures": (_standing(run, how) if only else {}) | found}
    write_file(run.path / FILE, json.dumps(written, indent=1) + "\n")
    return written


def evaluated(run: Run, *, samples: int, only: Sequence[str] = (), progress: bool = True) -> dict[str, Any]:
    """What `evaluate` gives with the judge of a run, but measured only where it does not stand beside it already.

    Args:
        run: what to measure.
        samples: images that it makes for it.
        only: names of measures; else all that apply.
        progress: show a bar.
    """
    judge = judge_of(run)
    wanted = list(only) or applicable(run, judge)
    how = _how(run, judge, samples, seed=0)
    standing = _standing(run, how)
    missing = [name for name in wanted if name not in standing]
    if missing:
        return evaluate(run, samples=samples, judge=judge, only=missing, progress=progress)
    return {"run": run.name, **how, "measures": standing}


def _how(run: Run, judge: Judge, samples: int, seed: int) -> dict[str, Any]:
    return {"step": run.step, "features": judge_name(judge), "samples": samples, "seed": seed}


def _standing(run: Run, how: dict[str, Any]) -> dict[str, Any]:
    """Measures that stand beside a run, if they were taken in this way."""
    found = read_evaluation(run) or {}
    measured: dict[str, Any] = found["measures"] if all(found.get(key) == how[key] for key in how) else {}
    return measured


def read_evaluation(run: Run) -> dict[str, Any] | None:
    """Returns what was last measured of a run; None where nothing was, or of an earlier checkpoint."""
    try:
        found = json.loads((run.path / FILE).read_text("utf-8"))
        return found if found["step"] == run.step else None
    except (OSError, ValueError, KeyError):
        return None
