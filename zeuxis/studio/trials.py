"""Sittings of a blind test: the pictures, in an order that tells nothing, and the answers as they are given."""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from zeuxis.data import to_bytes
from zeuxis.errors import UserError
from zeuxis.evaluation.people import Answer, record
from zeuxis.figures.style import on_checks
from zeuxis.run import Run

__all__ = ["Question", "Sitting", "prepare"]


@dataclass(frozen=True)
class Question:
    """One picture, or a pair, to judge.

    Attributes:
        folder: the run that it tests.
        step: of the run's weights.
        pictures: one PNG, or two.
        truths: what each is.
    """

    folder: Path
    step: int
    pictures: tuple[bytes, ...]
    truths: tuple[Literal["real", "made"], ...]


@dataclass
class Sitting:
    """One person's questions, and which is next.

    Attributes:
        id: names the sitting in addresses; it cannot be guessed.
    """

    person: str
    limit: int | None
    questions: list[Question]
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    at: int = 0
    shown: float = 0.0
    right: int = 0

    @property
    def question(self) -> Question | None:
        """The question that is open; None after the last."""
        return self.questions[self.at] if self.at < len(self.questions) else None

    def show(self) -> None:
        """Starts the clock of the open question."""
        self.shown = time.monotonic()

    def answer(self, said: Literal["real", "made"] | int) -> None:
        """Keeps an answer in its run, and goes on to the next question.

        Args:
            said: what the picture is taken for; of a pair, the index of the one that is taken for real.
        """
        question = self.question
        if question is None:
            return
        twins = len(question.pictures) == 2
        if twins != isinstance(said, int):
            return
        took: Literal["real", "made"] = question.truths[said] if isinstance(said, int) else said
        truth: Literal["real", "made"] = "made" if twins else question.truths[0]
        line = Answer(
            test="twin" if twins else "single", person=self.person, session=self.id,
            when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), truth=truth, said=took,
            seconds=round(time.monotonic() - self.shown, 3), limit=self.limit, step=question.step,
        )  # fmt: skip
        record(question.folder, [line])
        self.right += took == "real" if twins else took == truth
        self.at += 1


def prepare(
    runs: Sequence[Run], person: str, count: int, *, twins: bool, limit: int | None, random: np.random.Generator
) -> Sitting:
    """Draws the questions of a sitting: of each run equally many made and real pictures, mixed.

    Args:
        runs: to be judged.
        person: who judges.
        count: pictures, or pairs, of each run.
        twins: pairs of a real and a made picture, in place of single ones.
        limit: milliseconds that a picture is shown; None for no limit.
        random: decides pictures and order.

    Raises:
        UserError: if there is no name, or for a run that makes no images or whose images are not here.
    """
    if not person.strip() or len(person) > 80 or not person.isprintable():
        raise UserError("Give a name, so that several people can be told apart.")
    questions: list[Question] = []
    for run in runs:
        made_count = count if twins else count // 2
        indices = run.choose_images("test")
        if len(indices) < made_count:
            indices = np.concatenate([indices, run.choose_images("train")])
        made_count = min(made_count, len(indices))
        made = to_bytes(_made(run, made_count, random))
        real = to_bytes(run.images(random.permutation(indices)[:made_count]))
        for one, other in zip(made, real, strict=True):
            if twins:
                first = bool(random.integers(2))
                pair = (png(one), png(other)) if first else (png(other), png(one))
                questions.append(Question(run.path, run.step, pair, ("made", "real") if first else ("real", "made")))
            else:
                questions.append(Question(run.path, run.step, (png(one),), ("made",)))
                questions.append(Question(run.path, run.step, (png(other),), ("real",)))
    order = random.permutation(len(questions))
    return Sitting(person.strip(), limit, [questions[i] for i in order])


def _made(run: Run, count: int, random: np.random.Generator) -> np.ndarray:
    condition = run.in_turn(max(count, 1000))
    if condition is not None:  # classes at random, not in turn
        condition = random.permutation(condition)[:count]
    latents = run.latents_of_samples(count, int(random.integers(2**31)), condition=condition)
    return run.decode(latents, condition)


def png(image: np.ndarray) -> bytes:
    """Returns one image of bytes as a PNG, on checks if it is transparent; real and made ones are written alike."""
    (image,) = on_checks(image[None])
    with io.BytesIO() as file:
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "PNG")
        return file.getvalue()
