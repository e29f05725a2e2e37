"""Computes every measure that applies to a run and writes the figures into its folder."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zeuxis.errors import UserError, one_of, quoted, require_within
from zeuxis.evaluation.judge import Judge, RandomFeatures, find_judge, find_or_train_judge, judge_name, judged
from zeuxis.evaluation.measure import ROUNDING, Material, Value, by_name, measures
from zeuxis.evaluation.people import GIVES, figures_of
from zeuxis.files import regular, why, write_file
from zeuxis.progress import bar, say
from zeuxis.run import LAST_SEED, MOST_LATENTS, Run
from zeuxis.system import freed_memory_kept

__all__ = ["Evaluation", "applicable", "evaluate", "evaluate_cached", "read_evaluation"]

FILE = "evaluation.json"
# Fewest samples of an evaluation; figures from fewer would mean nothing.
FEWEST = 100
# Measures that need further latents sample them with the seeds that follow the evaluation's.
MORE_SEEDS = 100

# Real figures are far smaller, and what is computed from figures in these limits stays finite.
Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Figure(_Section):
    """A figure as stored in an evaluation, with the attributes of `Value`."""

    value: Number
    stderr: Annotated[Number, Field(ge=0)] | None
    n: Count
    features: str | None
    at_least: bool = False
    groups: Count = 0


class Evaluation(_Section):
    """The contents of `evaluation.json`.

    Attributes:
        run: the run's name.
        step: of the weights that were measured.
        features: name of the features in which distances were measured.
        samples: number of images that the run generated for it.
        seed: of their latents.
        sampling: the options by which they were sampled; None if the evaluation does not tell.
        judge: digest of the weights of the run that is the judge; empty for other judges, and if it does not tell.
        measures: figures by name.
        left_out: by name, the reasons why figures could not be computed.
    """

    run: str
    step: Count
    features: str
    samples: Count
    seed: int
    sampling: dict[str, Any] | None = None
    judge: str = ""
    measures: dict[str, Figure]
    left_out: dict[str, Annotated[str, Field(max_length=500)]] = {}

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Evaluation:
        for name, figure in self.measures.items():
            if figure.features not in (None, self.features) and not name.startswith("general_"):
                raise ValueError(f"{name} is in other features than the rest of the evaluation")
        return self


def applicable(run: Run, judge: Judge | None = None) -> list[str]:
    """Returns the names of all figures that can be computed for a run; trains nothing.

    Args:
        run: the run.
        judge: the judge; None for the one that `find_judge` finds. If a classifier has yet to be trained, figures that
            need classes are not listed.
    """
    if judge is None:
        judge = find_judge(run.recipe.data, run.classes, run.environment["data"]["fingerprint"])
    material = Material(run, judge=judge or RandomFeatures(run.recipe.data.shape))
    return [name for measure in measures() if measure.applies(material) for name in measure.gives]


def evaluate(
    run: Run,
    *,
    samples: int = 2000,
    seed: int = 0,
    judge: Judge | None = None,
    only: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Any]:
    """Measures a run and writes `evaluation.json` into its folder.

    Args:
        run: the run to measure.
        samples: number of images to generate.
        seed: of their latents.
        judge: in whose features distances are measured; None for the one that `find_or_train_judge` finds.
        only: names of figures; empty for all that apply. Other figures of an earlier evaluation with the same settings
            are kept.
        progress: whether to show a progress bar.

    Returns:
        The evaluation that was written, with the keys of `Evaluation`.

    Raises:
        UserError: for too few samples, a judge of images of another shape, or an unknown measure.
    """
    require_within("The number of samples", samples, FEWEST, MOST_LATENTS)
    require_within("A seed", seed, 0, LAST_SEED - MORE_SEEDS)
    judge = judge or find_or_train_judge(run)
    if isinstance(judge, Run) and judge.recipe.data.shape != judged(run.recipe.data).shape:
        raise UserError(
            f"{judge.path} cannot judge {run.path}: it takes images of {judge.recipe.data.in_words}, and the run "
            f"generates {run.recipe.data.in_words}."
        )
    names = applicable(run, judge)
    for name in only:
        if name not in by_name():
            raise one_of("measure", name, by_name())
        if name not in names:
            raise UserError(f"{name} does not apply to {run.name}; these do: {', '.join(sorted(names))}.")
    earlier = _earlier(run, judge, samples, seed) if only else None
    return _measured(Material(run, samples=samples, seed=seed, judge=judge), only or names, earlier, progress)


def evaluate_cached(run: Run, *, samples: int, only: Sequence[str] = (), progress: bool = True) -> dict[str, Any]:
    """Cached `evaluate` with the run's own judge: computes only figures that `evaluation.json` does not yet hold.

    Args:
        run: the run to measure.
        samples: number of images to generate.
        only: names of figures; empty for all that apply.
        progress: whether to show a progress bar.
    """
    judge = find_or_train_judge(run)
    names = list(only) or applicable(run, judge)
    earlier = _earlier(run, judge, samples, seed=0)
    missing = [name for name in names if not earlier or name not in {**earlier["measures"], **earlier["left_out"]}]
    if earlier and not missing:
        return earlier
    return _measured(Material(run, samples=samples, seed=0, judge=judge), missing, earlier, progress)


def read_evaluation(run: Run) -> dict[str, Any] | None:
    """Returns a run's stored evaluation, with the keys of `Evaluation`; None if there is none.

    An evaluation that is damaged, or of another checkpoint, is left out too, with a notice.
    """
    path = run.path / FILE
    try:
        evaluation = Evaluation.model_validate_json(regular(path).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        say(f"{path} cannot be read, so it is left out: {why(error)}.")
        return None
    except ValidationError as error:
        say(f"{path} is damaged, so it is left out: {_first_of(error)}. `zeuxis evaluate` measures again.")
        return None
    known = by_name()
    if unknown := sorted({*evaluation.measures, *evaluation.left_out} - known.keys()):
        names = quoted(", ".join(unknown))
        say(f"{path}: {names} cannot be shown: there is no such measure, or its plugin is not loaded.")
        for name in unknown:
            evaluation.measures.pop(name, None)
            evaluation.left_out.pop(name, None)
    # People answer when they like, so their figures are always read anew.
    kept = {name: figure for name, figure in evaluation.measures.items() if name not in GIVES}
    evaluation.measures = kept | {name: Figure(**value._asdict()) for name, value in figures_of(run).items()}
    if evaluation.step != run.step:
        say(f"{path} is left out: it is of step {evaluation.step:,}, but the weights in use are of step {run.step:,}.")
        return None
    if evaluation.sampling is not None and evaluation.sampling != run.sampling:
        say(f"{path} is left out: it is of samples with {_told(evaluation.sampling)}, not {_told(run.sampling)}.")
        return None
    return evaluation.model_dump()


def _measured(
    material: Material, names: Sequence[str], earlier: dict[str, Any] | None, progress: bool
) -> dict[str, Any]:
    """Computes measures and writes their figures, together with those of an earlier evaluation."""
    run = material.run
    selected = [measure for measure in measures() if set(names) & set(measure.gives) and measure.applies(material)]
    results: dict[str, dict[str, Any]] = {"measures": {}, "left_out": {}}
    with freed_memory_kept(), bar(f"evaluating {run.name}", len(selected), visible=progress) as advance:
        for measure in selected:
            # A mean of no values warns; it is reported below instead.
            with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
                figures = measure.take(material)
            for name, figure in figures.items():
                if isinstance(figure, Value) and math.isfinite(figure.value):
                    results["measures"][name] = _honest(figure)._asdict()
                else:
                    results["left_out"][name] = figure if isinstance(figure, str) else f"it comes out as {figure.value}"
            advance(1)
    computed = {name for measure in selected for name in measure.gives}
    for part, figures in results.items():
        before = (earlier or {}).get(part, {})
        results[part] = {name: figure for name, figure in before.items() if name not in computed} | figures
    assert material.judge is not None
    evaluation = {"run": run.name, **_settings(run, material.judge, material.n, material.seed), **results}
    write_file(run.path / FILE, json.dumps(evaluation, indent=1, allow_nan=False) + "\n")
    return evaluation


def _honest(figure: Value) -> Value:
    """Returns the figure without its standard error if that is not finite, or 0 up to rounding: a false certainty."""
    known = figure.stderr is not None and ROUNDING * abs(figure.value) < figure.stderr < math.inf
    return figure if known else figure._replace(stderr=None)


def _settings(run: Run, judge: Judge, samples: int, seed: int) -> dict[str, Any]:
    return {
        "step": run.step, "features": judge_name(judge), "samples": samples, "seed": seed, "sampling": run.sampling,
        "judge": judge.weights if isinstance(judge, Run) else "",
    }  # fmt: skip


def _earlier(run: Run, judge: Judge, samples: int, seed: int) -> dict[str, Any] | None:
    """Returns the stored evaluation of a run if it has these settings, as far as it tells them, else None."""
    evaluation = read_evaluation(run)
    settings = _settings(run, judge, samples, seed)
    same = evaluation and all(evaluation[key] in (value, None, "") for key, value in settings.items())
    return evaluation if same else None


def _told(options: Mapping[str, Any]) -> str:
    """Returns options of sampling as text: `solver=heun, solver_steps=20`."""
    return quoted(", ".join(f"{name}={value}" for name, value in options.items())) or "no options"


def _first_of(error: ValidationError) -> str:
    """Returns the first validation error as text with its location."""
    fault = error.errors()[0]
    location = ".".join(map(str, fault["loc"]))
    text = fault["msg"].removeprefix("Value error, ")
    return f"at {location}, {text[:1].lower()}{text[1:]}" if location else text
