"""BibTeX of Zeuxis, and of the sources of what a run uses: its model, options, optimisers, data and measures."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from typing import NamedTuple

from zeuxis.evaluation.evaluate import read_evaluation
from zeuxis.evaluation.measure import by_name
from zeuxis.run import Run

__all__ = ["Reference", "bibtex", "references", "uses"]

# A value of 1 is the neutral one of an option that is a factor, such as the KL weight.
NEUTRAL = 1


class Reference(NamedTuple):
    """An entry, and the words for the runs that it belongs to."""

    uses: frozenset[str]
    entry: str


def bibtex(run: Run | None = None) -> str:
    """Returns BibTeX entries, separated by empty lines: of Zeuxis and, for a run, of the sources of what it uses."""
    software = (
        "@misc{zeuxis,\n  author = {{The Zeuxis authors}},\n"
        "  title = {Zeuxis: a Laboratory for Generative Image Models},\n"
        f"  note = {{Software, version {version('zeuxis')}}}, year = {{{datetime.now(UTC).year}}}}}"
    )
    used = uses(run) if run else set()
    measuring = {word for word in used if word.startswith(("measure:", "judge:"))}
    built = [reference.entry for reference in references() if reference.uses & (used - measuring)]
    measured = [reference.entry for reference in references() if reference.uses & measuring]
    measured = [entry for entry in measured if entry not in built]
    # BibTeX takes what stands between entries as a comment.
    return "\n\n".join([software, *built, *["% For its measures:"] * bool(measured), *measured]) + "\n"


def references() -> list[Reference]:
    """Returns all known sources."""
    text = files("zeuxis.report").joinpath("references.bib").read_text("utf-8")
    found = re.findall(r"^(\w+:.*)\n(@.*(?:\n.+)*)", text, flags=re.M)
    return [Reference(frozenset(words.split()), entry) for words, entry in found]


def uses(run: Run) -> set[str]:
    """Returns the words for what a run uses, as in `references.bib`."""
    training, options = run.recipe.training, run.model.options.model_dump()
    words = {f"model:{cls.__module__.rpartition('.')[2]}" for cls in type(run.model).__mro__}
    words |= {f"optimizer:{choice.name}" for choice in (training.optimizer, *training.optimizers.values())}
    words.add(f"data:{run.recipe.data.source}")
    words |= {f"option:{name}" for name, value in options.items() if value and value != NEUTRAL}
    words |= {f"value:{name}={value}" for name, value in options.items() if isinstance(value, str)}
    if loss := getattr(run.model.options, "loss", None):
        words.add(f"loss:{loss.name}")
    evaluation = read_evaluation(run)
    if evaluation:
        measures = by_name()
        words |= {f"measure:{measures[name].take.__module__.rpartition('.')[2]}" for name in evaluation["measures"]}
        words.add(f"judge:{re.split('[^a-z]', evaluation['features'].lower())[0]}")
    return words
