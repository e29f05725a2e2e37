r"""What people make of pictures: blind tests, and votes by eye.

In a blind test a person says of one picture after another whether it is real or made, or which of two, one real and one
made, is the real one. k of n answers give a share, with Wilson's interval

    (k + z^2 / 2 \pm z \sqrt{k (n - k) / n + z^2 / 4}) / (n + z^2),

which holds for few answers and for shares near 0 and 1 as well. Two models are compared by Fisher's exact test, several
pairs with Holm's correction. Answers are lines of JSON in the run's folder, and count for the weights they were given
for.

Sources: S. Zhou et al., HYPE: A Benchmark for Human eYe Perceptual Evaluation of Generative Models, NeurIPS 2019; E. B.
Wilson, Probable inference, the law of succession, and statistical inference, Journal of the American Statistical
Association 22, 1927.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import scipy
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zeuxis.evaluation.measure import Figures, Material, Value, measure
from zeuxis.files import WriteError, regular, why
from zeuxis.run import Run
from zeuxis.system import sync

__all__ = [
    "Answer",
    "Share",
    "Vote",
    "by_person",
    "differences",
    "figures_of",
    "read_answers",
    "read_votes",
    "record",
    "shares",
    "wilson",
]

ANSWERS, VOTES = "blind.jsonl", "votes.jsonl"
LEVEL = 0.05
# Fewest answers that make a figure.
FEWEST = 10


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Answer(_Line):
    """One answer of a blind test.

    Attributes:
        test: `single` for one picture, `twin` for a real and a made one side by side.
        person: who answered.
        session: in which sitting.
        when: date and time, UTC.
        truth: what the picture was; of twins, always `made`.
        said: what the person took it for: `real` for a made picture that deceived.
        seconds: until the answer.
        limit: milliseconds that the picture was shown; None for as long as the person wanted.
        step: of the run's weights.
    """

    test: Literal["single", "twin"]
    person: str = Field(max_length=200)
    session: str = Field(max_length=100)
    when: str = Field(max_length=40)
    truth: Literal["real", "made"]
    said: Literal["real", "made"]
    seconds: float = Field(ge=0, le=1e9)
    limit: int | None = Field(None, ge=1, le=10**7)
    step: int = Field(ge=0)


class Vote(_Line):
    """A vote by eye: this run's pictures over those of other runs, from the same seed."""

    over: list[str] = Field(max_length=100)
    seed: int
    when: str = Field(max_length=40)
    step: int = Field(ge=0)


class Share(NamedTuple):
    """k of n, with Wilson's interval at 95 %."""

    k: int
    n: int

    @property
    def value(self) -> float:
        """k / n; 0 of no answers."""
        return self.k / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval."""
        return wilson(self.k, self.n)


def wilson(k: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Returns Wilson's interval, at 1 - level, of the share that k of n come from; (0, 1) for no answers."""
    if not n:
        return 0.0, 1.0
    z = float(scipy.special.ndtri(1 - level / 2))
    middle, half = k + z * z / 2, z * (k * (n - k) / n + z * z / 4) ** 0.5
    return max((middle - half) / (n + z * z), 0.0), min((middle + half) / (n + z * z), 1.0)


def record(folder: Path, lines: Iterable[Answer | Vote]) -> None:
    """Appends answers, or votes, to a run; each line is whole or absent.

    Raises:
        WriteError: if they cannot be written, or if the file is a link.
    """
    for kind, name in ((Answer, ANSWERS), (Vote, VOTES)):
        content = "".join(json.dumps(line.model_dump()) + "\n" for line in lines if isinstance(line, kind))
        path = folder / name
        if not content:
            continue
        if path.is_symlink():
            raise WriteError(f"{path} is a link, so nothing is written there; remove the link.")
        try:
            with path.open("ab") as file:
                # A process that was killed may have left half a line.
                half = file.tell() and not path.read_bytes().endswith(b"\n")
                file.write(b"\n" * bool(half) + content.encode())
            sync(path)
        except OSError as error:
            raise WriteError(f"{path} cannot be written: {why(error)}.") from error


def read_answers(folder: Path, step: int | None = None) -> list[Answer]:
    """Returns the answers in a run, of the weights of a step if one is given; lines that are damaged are left out."""
    return [a for a in _read(folder / ANSWERS, Answer) if step is None or a.step == step]


def read_votes(folder: Path) -> list[Vote]:
    """Returns the votes for a run; lines that are damaged are left out."""
    return list(_read(folder / VOTES, Vote))


def _read(path: Path, kind: type[Any]) -> list[Any]:
    try:
        lines = regular(path).read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError:
            continue
    return found


def shares(answers: Sequence[Answer]) -> dict[str, Share]:
    """Returns what answers say.

    Returns:
        `deceived`: made pictures that were taken for real; `doubted`: real ones that were taken for made; `errors`: all
        that were judged wrongly, of one-by-one tests; `twins`: pairs in which the made picture was taken for the real
        one. Those without answers are left out.
    """
    single = [a for a in answers if a.test == "single"]
    made, real = [a for a in single if a.truth == "made"], [a for a in single if a.truth == "real"]
    twins = [a for a in answers if a.test == "twin"]
    found = {
        "deceived": Share(sum(a.said == "real" for a in made), len(made)),
        "doubted": Share(sum(a.said == "made" for a in real), len(real)),
        "errors": Share(sum(a.said != a.truth for a in single), len(single)),
        "twins": Share(sum(a.said == "real" for a in twins), len(twins)),
    }
    return {name: share for name, share in found.items() if share.n}


def by_person(answers: Sequence[Answer]) -> dict[str, dict[str, Share]]:
    """Returns the shares of each person, by name."""
    people = sorted({answer.person for answer in answers})
    return {person: shares([a for a in answers if a.person == person]) for person in people}


def differences(groups: Mapping[str, Share]) -> list[tuple[str, str, float, bool]]:
    """Tests whether shares differ, in pairs.

    Args:
        groups: shares by name.

    Returns:
        Two names, the p-value of Fisher's exact test, and whether they differ at 5 % by Holm's correction for all
        pairs; smallest p first.
    """
    pairs = []
    for (one, a), (other, b) in combinations(groups.items(), 2):
        p = float(scipy.stats.fisher_exact([[a.k, a.n - a.k], [b.k, b.n - b.k]]).pvalue)
        pairs.append((one, other, p))
    pairs.sort(key=lambda pair: pair[2])
    found, holds = [], True
    for i, (one, other, p) in enumerate(pairs):
        holds = holds and p <= LEVEL / (len(pairs) - i)
        found.append((one, other, p, holds))
    return found


GIVES = {
    "human_deception": "share of its pictures that people took for real in a blind test, 0..1",
    "human_error": "share of pictures, real and made, that people judged wrongly, 0..1; 0.5 is guessing (HYPE)",
    "human_twins": "share of pairs in which people took its picture for the real one, 0..1; 0.5 is guessing",
}
NAMES = {"human_deception": "deceived", "human_error": "errors", "human_twins": "twins"}


def figures_of(run: Run) -> dict[str, Value]:
    """Returns the figures that people's answers give for the weights in use; empty without enough of them."""
    if not (run.path / ANSWERS).exists():
        return {}
    found = shares(read_answers(run.path, run.step))
    values = {}
    for name, key in NAMES.items():
        if key in found and found[key].n >= FEWEST:
            low, high = found[key].interval
            z = float(scipy.special.ndtri(1 - LEVEL / 2))
            values[name] = Value(found[key].value, (high - low) / (2 * z), found[key].n)
    return values


@measure(gives=GIVES, better="high", applies=lambda material: bool(figures_of(material.run)))
def people(material: Material) -> Figures:
    return figures_of(material.run)
