"""A report reproduced: its systems trained, its figures drawn, its numbers beside ours, its questions answered.

A plan (`zeuxis/study/reports/NAME.toml`) lists the systems of a report in its order, and its questions. A question's
claims name a measure and two systems, so that our measurements confirm or refute each of them by Welch's test, or leave
it open.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Set
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationError

from zeuxis.errors import UserError, one_of, require_within
from zeuxis.evaluation.evaluate import evaluate_cached
from zeuxis.evaluation.measure import Value, as_text, with_error
from zeuxis.evaluation.ranking import differ
from zeuxis.evaluation.verdict import is_early, training_state
from zeuxis.figures import draw_all, kinds
from zeuxis.files import make_folder, require_place
from zeuxis.models import build_model
from zeuxis.progress import amount, say
from zeuxis.recipe import Recipe, Section, explain, load_recipe
from zeuxis.report import reproduction
from zeuxis.run import Run
from zeuxis.study.benchmark import recipe_for
from zeuxis.study.plan import Part, train_each
from zeuxis.study.pool import backend_on
from zeuxis.training import finished, resolved

__all__ = ["Plan", "read_plan", "reports", "reproduce"]

# The share of a training, at its end, over which a journalled number is averaged, and the blocks behind its error.
TAIL, BLOCKS = 0.1, 5
# Measures that are the same before a training and after it.
UNTRAINED = {"parameters", "multiply_adds", "training_multiply_adds"}


class Number(Section):
    """A number that the report gives."""

    what: str
    reported: float
    measure: str


class Quantity(Section):
    """A number of ours: a measure of a system."""

    measure: str
    of: str


class Claim(Quantity):
    """What is said of two systems: the first has the higher or the lower value of a measure."""

    says: str
    than: str
    is_: Literal["higher", "lower"] = Field(alias="is")


class System(Section):
    """A system of the report: how it is trained, and what the report shows of it."""

    name: str
    title: str
    text: str = ""
    recipe: str = ""
    settings: dict[str, Any] = Field({})
    share: float = Field(1.0, gt=0)
    figures: list[str] = Field([])
    numbers: list[Number] = Field([])


class Question(Section):
    """A question of the report, what it said, and what answers it."""

    ask: str
    said: str
    claims: list[Claim] = Field([])
    values: list[Quantity] = Field([])


class Plan(Section):
    """A report."""

    title: str
    about: str
    systems: list[System] = Field(min_length=1)
    questions: list[Question] = Field([])

    def quantities(self) -> list[tuple[str, str]]:
        """Returns the systems and measures that numbers and questions ask for."""
        asked = [(number.measure, system.name) for system in self.systems for number in system.numbers]
        for question in self.questions:
            asked += [(value.measure, value.of) for value in question.values]
            asked += [(claim.measure, name) for claim in question.claims for name in (claim.of, claim.than)]
        return list(dict.fromkeys((name, measure) for measure, name in asked))


class Answer(NamedTuple):
    """A claim, and what our measurements say of it."""

    claim: str
    verdict: Literal["confirmed", "refuted", "open"]
    why: str


def reports() -> dict[str, Path]:
    """Returns the plans that come with the package, by name."""
    folder = Path(str(files("zeuxis.study") / "reports"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_plan(name: str) -> Plan:
    """Reads a plan by name, or from a TOML file.

    Raises:
        UserError: for an unknown name, and for a file that is no plan.
    """
    path = Path(name) if name.endswith(".toml") else reports().get(name)
    if path is None:
        raise one_of("report", name, reports())
    try:
        plan = Plan.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise UserError(f"The plan {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise explain(error, f"The plan {path}", Plan) from error
    except ValueError as error:
        raise UserError(f"The plan {path} is not valid TOML: {error}.") from error
    names = [system.name for system in plan.systems]
    for asked, _ in plan.quantities():
        if asked not in names:
            raise one_of("system of the plan", asked, names)
    return plan


def reproduce(
    name: str,
    folder: Path,
    *,
    minutes: float | None = None,
    data: str = "",
    ready: Path | None = None,
    samples: int = 2000,
    jobs: int | None = None,
    on: str = "local",
    progress: bool = True,
) -> Path:
    """Trains every system of a report, and writes one page in its order; the same call continues where it was stopped.

    Args:
        name: of the report, or a TOML file with a plan.
        folder: where the runs and `NAME.html` go.
        minutes: of training for all systems together, divided by their shares; by default, each recipe's own budget.
        data: a source, folder or zip of images for all systems, in place of the report's.
        ready: a folder of runs; a finished one that is named like a system, of the same recipe, is taken from there.
        samples: images that each run generates for the measures.
        jobs: trainings at once.
        on: where they train, as of `train_all`.
        progress: show progress.

    Returns:
        The path of the page.

    Raises:
        UserError: for an unknown report, and as in `train_all`.
    """
    plan = read_plan(name)
    make_folder(folder)
    path = require_place(folder / f"{Path(name).stem}.html")
    if minutes is not None:
        require_within("The number of minutes", minutes, 0.01, 1e6)
    shares = sum(system.share for system in plan.systems)
    ready_runs = {system.name: run for system in plan.systems if (run := _ready(system, data, ready))}
    parts = [
        Part(
            system.name,
            _recipe(system, data, {} if minutes is None else {"training.minutes": minutes * system.share / shares}),
        )
        for system in plan.systems
        if system.name not in ready_runs
    ]
    values: dict[tuple[str, str], Value] = {}

    def measure(name: str, run: Run) -> Run:
        asked = [measure for of, measure in plan.quantities() if of == name]
        values.update({(name, measure): value for measure, value in _values(run, asked, samples, progress).items()})
        return run

    runs = {name: measure(name, run) for name, run in ready_runs.items()}
    with (
        backend_on(on, jobs, len(parts)) as backend,
        closing(train_each(parts, folder, len(parts), backend=backend, progress=progress)) as trainings,
    ):
        for part, trained in trainings:
            if isinstance(trained, UserError):
                raise trained
            runs[part.name] = measure(part.name, trained)
    sections = [_section(system, runs[system.name], values, progress) for system in plan.systems]
    early = {name for name, run in runs.items() if is_early(run)}
    questions = [_answered(question, values, early) for question in plan.questions]
    return reproduction(path, plan=plan, sections=sections, questions=questions, samples=samples)


def _recipe(system: System, data: str, budget: Mapping[str, float]) -> Recipe:
    recipe = system.recipe or system.name
    settings = {**system.settings, **budget}
    return recipe_for(recipe, data, None, settings) if data else load_recipe(recipe, settings)


def _ready(system: System, data: str, folder: Path | None) -> Run | None:
    """Returns the finished run of a system on these images in a folder; None if there is none."""
    if folder is None or not (folder / system.name / "recipe.toml").is_file():
        return None
    run = Run(folder / system.name)
    wanted = build_model(resolved(_recipe(system, data, {}), folder), run.classes).recipe
    other = [part for part in ("data", "model", "networks") if getattr(wanted, part) != getattr(run.recipe, part)]
    if other or not finished(run.path):
        reason = f"its settings differ from the report's ({', '.join(other)})" if other else "it is not finished"
        say(f"{run.path} is not taken: {reason}.")
        return None
    return run


def _values(run: Run, asked: list[str], samples: int, progress: bool) -> dict[str, Value]:
    """Returns the values of these measures for a run, without those that it lacks."""
    values: dict[str, Value] = {}
    tables = run.summary["networks"]
    for measure in asked:
        what, _, network = measure.partition(" of ")
        if what == "parameters" and network in tables:
            values[measure] = Value(float(tables[network]["total"]))
        elif "/" in measure and (logged := _at_the_end(run, measure)):
            values[measure] = logged
    if rest := [measure for measure in asked if measure not in values]:
        taken = evaluate_cached(run, samples=samples, only=rest, progress=progress)["measures"]
        values |= {measure: Value(**taken[measure]) for measure in rest if measure in taken}
    return values


def _at_the_end(run: Run, term: str) -> Value | None:
    """Returns the mean of a journalled number over the end of the training, with an error from blocks of lines."""
    _, numbers = run.series(term)
    tail = numbers[-max(BLOCKS, round(TAIL * len(numbers))) :]
    if len(tail) < BLOCKS:
        return None
    blocks = np.array([block.mean() for block in np.array_split(tail, BLOCKS)])
    return Value(float(tail.mean()), float(blocks.std(ddof=1) / BLOCKS**0.5) or None, len(tail), groups=BLOCKS)


def _section(system: System, run: Run, values: Mapping[tuple[str, str], Value], progress: bool) -> dict[str, Any]:
    """Returns what the page shows of a system."""
    applicable = [kind.name for kind in kinds() if kind.applies(run)]
    drawn = draw_all(run, only=[name for name in system.figures if name in applicable] or ["losses"], progress=progress)
    numbers = [
        (number.what, as_text(number.reported), _text(values.get((system.name, number.measure))))
        for number in system.numbers
    ]
    wanted = load_recipe(system.recipe or system.name).training
    unit, budget = wanted.budget
    trained = (
        f"{amount(wanted.used(run.journal[-1]), unit)} (the report: {amount(budget, unit)})"
        if run.journal
        else "nothing"
    )
    return {
        "system": system, "run": run, "figures": drawn, "numbers": numbers, "state": training_state(run),
        "trained": trained,
    }  # fmt: skip


def _answered(question: Question, values: Mapping[tuple[str, str], Value], early: Set[str]) -> dict[str, Any]:
    measured = [
        f"{value.measure.replace('_', ' ')} of {value.of}: {_text(values.get((value.of, value.measure)))}"
        for value in question.values
    ]
    answers = [_answer(claim, values, early) for claim in question.claims]
    return {"question": question, "answers": answers, "values": measured}


def _answer(claim: Claim, values: Mapping[tuple[str, str], Value], early: Set[str] = frozenset()) -> Answer:
    """Says whether our measurements confirm or refute a claim, or leave it open, as they do of systems in `early`."""
    first, second = (values.get((name, claim.measure)) for name in (claim.of, claim.than))
    if first is None or second is None:
        missing = " and ".join(n for n, v in ((claim.of, first), (claim.than, second)) if v is None)
        return Answer(claim.says, "open", f"{claim.measure.replace('_', ' ')} was not measured for {missing}")
    why = f"{claim.measure.replace('_', ' ')}: {_text(first)} against {_text(second)}"
    if first.features != second.features:
        return Answer(claim.says, "open", f"{why}, in different features")
    why += f", by {first.features}" if first.features else ""
    if (young := sorted({claim.of, claim.than} & early)) and claim.measure.split()[0] not in UNTRAINED:
        return Answer(claim.says, "open", f"{why}; it is too early to say: {' and '.join(young)} had few steps")
    exact = not first.stderr and not second.stderr
    if first.value == second.value or not (exact or differ(first, second)):
        return Answer(claim.says, "open", f"{why}, which may be chance")
    holds = (first.value > second.value) == (claim.is_ == "higher")
    return Answer(claim.says, "confirmed" if holds else "refuted", why)


def _text(value: Value | None) -> str:
    return "not measured" if value is None else with_error(value)
