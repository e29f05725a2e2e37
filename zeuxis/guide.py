"""Which recipe? The recipes of the package in groups, each with a sentence on whom it is for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from zeuxis.recipe import Recipe, load_recipe, recipe_names

__all__ = ["Group", "groups", "origin_in_words"]

# The reports whose systems the recipes are, by the letter of their codes: the report in words, and what
# `zeuxis reproduce` calls it.
REPORTS = {
    "D": ("the report on digits", "digits"),
    "A": ("the first report on faces", "faces"),
    "B": ("the second report on faces", "faces-2"),
    "F": ("the report on flowers", "flowers"),
    "S": ("the study of digits and clothes", "study"),
}
CODE = re.compile(rf"\b([{''.join(REPORTS)}])(\d+)\b")
NEWER = "beyond "


@dataclass(frozen=True)
class Group:
    """Recipes that belong together.

    Attributes:
        title: a heading.
        text: whom they are for, in a sentence or two.
        recipes: in the order in which to look at them.
    """

    title: str
    text: str
    recipes: list[Recipe]


def groups(names: Iterable[str] = ()) -> list[Group]:
    """Returns the recipes of the package in groups, those to start with first; only these names, if any are given."""
    chosen = set(names) or set(recipe_names())
    recipes = [load_recipe(name) for name in recipe_names() if name in chosen]
    start = [recipe for recipe in recipes if recipe.origin.startswith(NEWER) and recipe.data.source != "digits"]
    kinds: dict[str, list[Recipe]] = {title: [] for title, _ in STARTS}
    # What makes images by itself first, then what is a part of something.
    for recipe in sorted(start, key=lambda recipe: recipe.model.name.startswith(("ae", "latent"))):
        kinds[_kind(recipe)].append(recipe)
    listed = [Group(title, text, kinds[title]) for title, text in STARTS]
    for letter, (words, name) in REPORTS.items():
        own = [recipe for recipe in recipes if re.fullmatch(rf"{letter}\d+", recipe.origin)]
        listed.append(Group(
            f"Systems of {words}",
            f"As published, with as many parameters where a report counts them. `zeuxis reproduce {name}` trains all.",
            sorted(own, key=lambda recipe: (recipe.origin, recipe.name)),
        ))  # fmt: skip
    grouped = {recipe.name for group in listed for recipe in group.recipes}
    listed.append(Group(
        "Digits, tests and judges",
        "Small recipes to learn with, in seconds to minutes; variants; and the classifiers that samples are judged by.",
        [recipe for recipe in recipes if recipe.name not in grouped],
    ))  # fmt: skip
    return [group for group in listed if group.recipes]


STARTS = (
    (
        "Start here: small grey images",
        "For digits, letters, icons and other grey images of about 28 pixels. Your own: --data PATH --size PIXELS.",
    ),
    (
        "Start here: small pictures in colour",
        "For pictures that show what matters at about 32 pixels. Your own: --data PATH, larger with --size 64.",
    ),
    (
        "Start here: faces and other photographs",
        "For photographs at 64 pixels; give a CPU an hour or more. Your own: --data PATH --size 64, 96 or 128. The "
        "latent flow takes two steps: `modern-ae-64` first, whose images and size it keeps, then "
        "`modern-latent-flow-64`.",
    ),
)


def _kind(recipe: Recipe) -> str:
    """Returns the title of the group that a recipe to start with belongs to."""
    if recipe.data.channels == 1:
        return STARTS[0][0]
    return STARTS[1 if max(recipe.data.size) <= 32 else 2][0]


def origin_in_words(origin: str) -> str:
    """Returns where a system was first described, in words: `F3` is system 3 of the report on flowers."""
    words = CODE.sub(lambda match: f"system {match[2]} of {REPORTS[match[1]][0]}", origin)
    return f"newer than {words.removeprefix(NEWER)}" if words.startswith(NEWER) else words
