"""Says in plain sentences what the numbers of an evaluation mean, and how far the training is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeuxis.progress import amount, in_words
from zeuxis.run import Run
from zeuxis.stores import in_use
from zeuxis.training.monitors import FEW_STEPS, too_early

__all__ = ["is_early", "training_state", "verdict"]

# Up to which multiple of the floor samples are called so; beyond the last, they are far from the images.
CLOSENESS = ((1.3, "as close to the images as other real images are"), (3.0, "close to the images"),
             (10.0, "some way from the images"))  # fmt: skip
# From this share of the way from the floor to the distance of noise on, little has been learned.
LIKE_NOISE = 0.6
# Below this multiple of the floor, samples are closer to the training images than real ones.
COPIES = 0.7
NO_COPIES = "There is no sign that single images were copied."
LOOK = "Look at the nearest training images for copies."
# Shares that are worth a sentence.
LOW_COVERAGE, LOW_AGREEMENT, MANY_SUSPECTS = 0.6, 0.9, 0.05


def verdict(run: Run, evaluation: Mapping[str, Any]) -> list[str]:
    """Returns sentences on the samples of a run, most important first.

    Args:
        run: that was measured.
        evaluation: as `evaluate` returns it.
    """
    figures: Mapping[str, Mapping[str, Any]] = evaluation["measures"]
    values = {name: float(figure["value"]) for name, figure in figures.items()}
    sentences = _distance(values)
    if sentences and str(evaluation["features"]).startswith("random") and "general_fid" not in values:
        sentences.append(
            "This distance compares edges, textures and colours only: it does not tell whether the samples show what "
            "the images show. `--judge efficientnet` does, for photographs."
        )
    classes = len(run.classes)
    covered = values.get("classes_covered", classes)
    if covered < classes:
        sentences.append(f"They show {covered:.0f} of the {classes} classes.")
    coverage = values.get("general_coverage", values.get("coverage", 1.0))
    if coverage < LOW_COVERAGE:
        sentences.append(f"Only {coverage:.0%} of the images have a sample in their neighbourhood: variety is missing.")
    if (agreement := values.get("label_agreement", 1.0)) < LOW_AGREEMENT:
        real = values.get("label_agreement_real")
        scale = f"; of held-out images, the judge names {real:.0%} rightly" if real is not None else ""
        sentences.append(f"{agreement:.0%} of the samples show the class that was asked for{scale}.")
    if (suspects := values.get("suspects", 0.0)) > MANY_SUSPECTS:
        sentences.append(f"{suspects:.0%} of the samples lie suspiciously close to a training image.")
    return sentences


def _distance(values: Mapping[str, float]) -> list[str]:
    name = "general_fid" if "general_fid" in values else "fid"
    distance, floor, noise = (values.get(key) for key in (name, f"{name}_floor", f"{name}_noise"))
    if distance is None:
        return []
    nearest = floor or 0.0
    if noise and distance - nearest > LIKE_NOISE * (noise - nearest):
        far = "nearly as far from the images as" if distance < noise else "farther from the images than"
        return [f"The samples are {far} noise is ({distance:.3g} and {noise:.3g}): little has been learned yet."]
    if not floor or floor <= 0:
        return []
    ratio = distance / floor
    if ratio < COPIES:
        return [
            f"The samples are closer to the images than other real images are: their distance is {ratio:.2g} times "
            f"theirs. {NO_COPIES if values.get('copying_features', 1.0) < 0.6 else LOOK}"
        ]
    closeness = next((words for most, words in CLOSENESS if ratio <= most), "far from the images")
    if ratio <= 1:
        return [f"The samples are {closeness}: their distances are {distance:.3g} and {floor:.3g}."]
    return [f"The samples are {closeness}: their distance is {ratio:.2g} times that of real images."]


def is_early(run: Run) -> bool:
    """Whether a run has so few steps, from random weights, that what it draws says nothing of its recipe."""
    return bool(run.journal) and run.journal[-1]["step"] < FEW_STEPS and "from_run" not in run.environment


def training_state(run: Run) -> list[str]:
    """Returns sentences on how much of the budget is trained, what the rest takes, which weights are used, and what
    cannot be said yet."""
    if not run.journal:
        return []
    last, options = run.journal[-1], run.recipe.training
    (unit, whole), used, sentences = options.budget, options.used(last), []
    if 0 < used < 0.99 * whole:
        minutes = last["seconds"] / 60 * (whole / used - 1)
        done = amount(used, unit).removesuffix(f" {unit}")
        sentences.append(
            f"{done} of the recipe's {amount(whole, unit)} are trained; at this speed the rest takes "
            f"{in_words(60 * minutes)}."
        )
    if run.generates and is_early(run):
        sentences.append(
            f"It was trained for only {amount(last['step'], 'steps')}. Before some {FEW_STEPS}, most models draw "
            "little but noise; resume the run with a larger budget."
        )
    if not run.trained:
        sentences.append(
            "There is no checkpoint yet: samples, measures and figures that need weights are left out until there is."
        )
    elif run.step != last["step"]:
        which = f"which had the lowest {options.watched} in the tests" if options.watched else "the newest saved"
        state = "is" if in_use(run.path) else "ended"
        sentences.append(
            f"The weights of step {run.step:,} are used, {which}; training {state} at step {last['step']:,}."
        )
    if early := too_early(run.journal, run.journal.roles):
        sentences.append(early)
    return sentences
