"""Takes every measure that applies to a run, and writes what they found beside it."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zeuxis.errors import UserError, one_of, quoted, require_within
from zeuxis.evaluation.judge import Judge, RandomFeatures, find_judge, find_or_train_judge, judge_name
from zeuxis.evaluation.measure import Material, Value, by_name, measures
from zeuxis.files import why, write_file
from zeuxis.progress import bar, say
from zeuxis.run import LAST_SEED, MOST_LATENTS, Run

__all__ = ["Evaluation", "applicable", "evaluate", "evaluate_cached", "read_evaluation"]

FILE = "evaluation.json"
# An evaluation of fewer samples would mean nothing.
FEWEST = 100
# Measures that need further latents draw them from the seeds after the one that is given.
MORE_SEEDS = 100

# No figure is as large, and what is computed from figures below it stays finite.
Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Figure(_Section):
    """A figure as it stands in an evaluation; attributes as of `Value`."""

    value: Number
    stderr: Annotated[Number, Field(ge=0)] | None
    n: Count
    features: str | None
    at_least: bool = False
    groups: Count = 0


class Evaluation(_Section):
    """What `evaluation.json` holds.

    Attributes:
        run: the run's name.
        step: of the weights that were measured.
        features: in which distances were measured.
        samples: images that the run made for it.
        seed: of their latents.
        measures: figures by name.
        left_out: why a figure could not be had, by name.
    """

    run: str
    step: Count
    features: str
    samples: Count
    seed: int
    measures: dict[str, Figure]
    left_out: dict[str, Annotated[str, Field(max_length=500)]] = {}

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Evaluation:
        for name, figure in self.measures.items():
            if figure.features not in (None, self.features) and not name.startswith("general_"):
                raise ValueError(f"{name} is in other features than the evaluation")
        return self


def applicable(run: Run, judge: Judge | None = None) -> list[str]:
    """Returns the names of all that can be measured of a run; trains nothing.

    Args:
        run: what would be measured.
        judge: by whom; else whom `find_judge` finds. Where a classifier has yet to be trained, what tells classes is
            not listed.
    """
    if judge is None:
        judge = find_judge(run.recipe.data, run.classes, run.environment["data"]["fingerprint"])
    material = Material(run, judge=judge or RandomFeatures(run.recipe.data.shape))
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
        judge: in whose features distances are measured; else whom `find_or_train_judge` finds.
        only: names of measures; else all that apply. Others that were taken in the same way are kept.
        progress: show a bar.

    Returns:
        What is written, as of `Evaluation`.

    Raises:
        UserError: for too few samples, a judge of other images, or a measure that is not known.
    """
    require_within("The number of samples", samples, FEWEST, MOST_LATENTS)
    require_within("A seed", seed, 0, LAST_SEED - MORE_SEEDS)
    judge = judge or find_or_train_judge(run)
    if isinstance(judge, Run) and judge.recipe.data.shape != run.recipe.data.shape:
        raise UserError(
            f"{judge.path} cannot judge {run.path}: it takes images of {judge.recipe.data.shape}, and the run makes "
            f"{run.recipe.data.shape}."
        )
    names = applicable(run, judge)
    for name in only:
        if name not in by_name():
            raise one_of("measure", name, by_name())
        if name not in names:
            raise UserError(f"{name} cannot be measured of {run.name}; what can: {', '.join(sorted(names))}.")
    standing = _standing(run, judge, samples, seed) if only else None
    return _measured(Material(run, samples=samples, seed=seed, judge=judge), only or names, standing, progress)


def evaluate_cached(run: Run, *, samples: int, only: Sequence[str] = (), progress: bool = True) -> dict[str, Any]:
    """Cached `evaluate`: measures, with the run's own judge, only what does not stand beside the run already.

    Args:
        run: what to measure.
        samples: images that it makes for it.
        only: names of measures; else all that apply.
        progress: show a bar.
    """
    judge = find_or_train_judge(run)
    names = list(only) or applicable(run, judge)
    standing = _standing(run, judge, samples, seed=0)
    missing = [name for name in names if not standing or name not in {**standing["measures"], **standing["left_out"]}]
    if standing and not missing:
        return standing
    return _measured(Material(run, samples=samples, seed=0, judge=judge), missing, standing, progress)


def read_evaluation(run: Run) -> dict[str, Any] | None:
    """Returns what was last measured of a run, as of `Evaluation`; None where nothing was.

    An evaluation that is damaged, or of an earlier checkpoint, is left out too, with a notice that says so.
    """
    path = run.path / FILE
    try:
        found = Evaluation.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        say(f"{path} cannot be read, so it is left out: {why(error)}.")
        return None
    except ValidationError as error:
        say(f"{path} is damaged, so it is left out: {_first_of(error)}. `zeuxis evaluate` measures again.")
        return None
    known = by_name()
    if unknown := sorted({*found.measures, *found.left_out} - known.keys()):
        names = quoted(", ".join(unknown))
        say(f"{path}: {names} cannot be shown: there is no such measure here, or its plugin is not loaded.")
        for name in unknown:
            found.measures.pop(name, None)
            found.left_out.pop(name, None)
    if found.step != run.step:
        say(
            f"{path} is left out: it is of step {found.step:,}, and the weights that are used are of step {run.step:,}."
        )
        return None
    return found.model_dump()


def _measured(
    material: Material, names: Sequence[str], standing: dict[str, Any] | None, progress: bool
) -> dict[str, Any]:
    """Takes measures and writes what they found, together with what stands already."""
    run = material.run
    wanted = [each for each in measures() if set(names) & set(each.gives) and each.applies(material)]
    found: dict[str, dict[str, Any]] = {"measures": {}, "left_out": {}}
    with bar(f"evaluating {run.name}", len(wanted), visible=progress) as advance:
        for each in wanted:
            with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a mean of nothing is told below
                figures = each.take(material)
            for name, figure in figures.items():
                if isinstance(figure, Value) and math.isfinite(figure.value):
                    found["measures"][name] = _honest(figure)._asdict()
                else:
                    found["left_out"][name] = figure if isinstance(figure, str) else f"it comes out as {figure.value}"
            advance(1)
    taken = {name for each in wanted for name in each.gives}
    for part, figures in found.items():
        kept = (standing or {}).get(part, {})
        found[part] = {name: figure for name, figure in kept.items() if name not in taken} | figures
    assert material.judge is not None
    written = {"run": run.name, **_how(run, material.judge, material.n, material.seed), **found}
    write_file(run.path / FILE, json.dumps(written, indent=1, allow_nan=False) + "\n")
    return written


def _honest(figure: Value) -> Value:
    """The figure without an error that is no number, or 0: parts that are alike do not tell how others differ."""
    known = figure.stderr is not None and 0 < figure.stderr < math.inf
    return figure if known else figure._replace(stderr=None)


def _how(run: Run, judge: Judge, samples: int, seed: int) -> dict[str, Any]:
    return {"step": run.step, "features": judge_name(judge), "samples": samples, "seed": seed}


def _standing(run: Run, judge: Judge, samples: int, seed: int) -> dict[str, Any] | None:
    """The evaluation that stands beside a run, if it was taken in this way."""
    found = read_evaluation(run)
    how = _how(run, judge, samples, seed)
    return found if found and all(found[key] == how[key] for key in how) else None


def _first_of(error: ValidationError) -> str:
    """The first of the faults, in words that name its place."""
    fault = error.errors()[0]
    place = ".".join(map(str, fault["loc"]))
    text = fault["msg"].removeprefix("Value error, ")
    return f"at {place}, {text[:1].lower()}{text[1:]}" if place else text
