"""Train: choose images, look at them, choose a recipe or let one be chosen, and start a process of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nicegui import run as background
from nicegui import ui

from zeuxis.choosing import choose_recipe
from zeuxis.data import SOURCES, choose, data_dir
from zeuxis.errors import UserError
from zeuxis.files import exists, path_part
from zeuxis.recipe import Recipe, load_recipe, recipe_names
from zeuxis.studio.parts import drop_area, log_of
from zeuxis.studio.shell import Tag, button, caution, page, picture, select, tell, text_input
from zeuxis.studio.state import PATIENCE, Studio, address

__all__ = ["register"]

OWN = "own"
# Sources that the list does not offer: the first is asked for as the user's own, the others want a layout or a name.
HIDDEN = ("folder", "celeba", "hf")
# Recipes to begin with: small, quick, and one of each family.
FIRST = ("digits-vae", "digits-cgan", "digits-flow", "modern-vae-28", "modern-gan-28", "modern-flow-28")
UNITS = {"minutes": "minutes", "epochs": "passes over the images", "steps": "steps"}


@dataclass
class Choices:
    """What is chosen on one page."""

    source: str = "digits"
    place: str = ""
    recipe: str = ""
    unit: str = "minutes"
    amount: str = "10"
    name: str = ""
    text: str = ""
    found: dict[str, Any] = field(default_factory=dict)
    looks: int = 0  # how often images were looked at; the last look is the one that is shown


def register(studio: Studio) -> None:
    """Adds the page."""

    @ui.page("/train", response_timeout=PATIENCE)
    async def train_page() -> None:
        view = Choices()

        def sourced(value: str) -> None:
            view.source = value
            view.looks += 1
            own.set_visibility(value == OWN)
            sheet.clear()
            view.found = {}
            if value == OWN:
                draw_models()
            else:
                ui.timer(0.01, look, once=True)

        def dropped(folder: Path) -> None:
            view.place = str(folder)
            ui.timer(0.01, look, once=True)

        def data() -> str:
            return view.place.strip() if view.source == OWN else view.source

        async def look() -> None:
            view.looks += 1
            mine = view.looks
            sheet.clear()
            with sheet:
                Tag("p", "Looking at the images…", class_="muted")
            found, failure = None, None
            try:
                place = allowed(view.place.strip(), studio) if view.source == OWN else data()
                found = await background.io_bound(studio.sheet, place)
            except UserError as error:
                failure = error
            if mine != view.looks:  # other images have been chosen meanwhile
                return
            view.found = found or {}
            if failure:
                sheet.clear()
                with sheet:
                    caution(failure)
            else:
                draw_sheet()
            draw_models()

        def draw_sheet() -> None:
            found = view.found
            sheet.clear()
            with sheet:
                Tag("p", found["words"])
                with Tag("figure", class_="sheet", style="max-width:40rem"):
                    picture(f"/picture/sheet/{found['key']}", "A sample of the images")
                for note in found["notes"]:
                    caution(note)
                if found["left_out"]:
                    with Tag("details"):
                        Tag("summary", f"{len(found['left_out']):,} files are left out")
                        with Tag("div", class_="scroll", style="max-height:18rem"), Tag("table"), Tag("tbody"):
                            for file, reason in list(found["left_out"].items())[:200]:
                                with Tag("tr"):
                                    Tag("td", file, style="overflow-wrap:anywhere")
                                    Tag("td", reason)

        def draw_models() -> None:
            text = view.text.strip().lower()
            models.clear()
            with models:
                with Tag("div", class_="line", style="margin-bottom:.8rem"):
                    label = "Find a recipe"
                    text_input(view.text, filtered, "search", "change", placeholder=label, aria_label=label)
                    Tag("span", f"Chosen: {view.recipe or 'by Zeuxis, for these images and this time'}", class_="muted")
                with Tag("div", class_="wall", role="radiogroup", aria_label="Recipes"):
                    if not text:
                        card(
                            "",
                            "Let Zeuxis choose",
                            "A flow of the size that your images and the time allow: steady, nothing to balance.",
                        )
                    names = list(FIRST)
                    if text:
                        names = [n for n in recipe_names() if text in f"{n} {studio.recipe(n).description}".lower()]
                    for name in names[:24]:
                        recipe = studio.recipe(name)
                        what = f"{recipe.model.name}, {recipe.data.in_words}"
                        card(name, name, f"{recipe.description}. {what}.", recipe)
                    if not names:
                        Tag("p", "No recipe mentions this.", class_="none")

        def filtered(value: str) -> None:
            view.text = value
            draw_models()

        def card(name: str, heading: str, text: str, recipe: Recipe | None = None) -> None:
            example = studio.example(name) if recipe else None
            # Without pictures it is as tall as its words, not as the row.
            style = "cursor:pointer" if example else "cursor:pointer;align-self:start"
            with Tag("label", class_=f"card run {'ticked' if view.recipe == name else ''}", style=style):
                if example:
                    with Tag("span", class_="strip"):
                        picture(example, "", "pixels", loading="lazy")
                with Tag("span", class_="line", style="flex-wrap:nowrap;margin-top:.7rem"):
                    here = view.recipe == name
                    made = Tag("input", type="radio", name="recipe", value=name, checked=here, aria_label=heading)
                    made.heard("change", partial(chosen, name))
                    Tag("b", heading)
                Tag("span", text, class_="small muted")

        def chosen(name: str) -> None:
            view.recipe = name
            draw_models()

        async def start() -> None:
            words.clear()
            try:
                with words:
                    name = await background.io_bound(prepared, view, studio, data())
            except UserError as error:
                with words:
                    caution(error)
                return
            tell(f"{name} is starting.")
            with words:
                Tag("p", f"{name} is starting; it appears among the runs as soon as its images are read.")
                Tag("a", "To the runs", href="/", class_="button main")
            follow(str(name))

        def follow(name: str) -> None:
            """Goes to the run as soon as it is there; shows why if it cannot start."""

            def check() -> None:
                job = studio.jobs.of(name, "train")
                failure = studio.jobs.failure(job) if job else ""
                if exists(studio.shelf.runs / name / "recipe.toml"):
                    timer.cancel()
                    ui.navigate.to(address("run", name))
                elif job and not studio.jobs.alive(job):
                    timer.cancel()
                    words.clear()
                    with words:
                        caution(failure or "The training ended before it began.")
                        log_of(studio.jobs.output(job))

            with words:
                timer = ui.timer(1.0, check)

        with page("Train", "Train"):
            Tag("h1", "Train")
            Tag("p", "Images, a model, and how long. Training goes on if you close this page.", class_="lead")
            with Tag("section", class_="card", aria_label="Images"):
                Tag("h2", "1. Images", style="margin-top:0")
                sources = {s.name: f"{s.name}: {s.description}" for s in SOURCES.values() if s.name not in HIDDEN}
                sources[OWN] = "your own: a folder or zip on this machine, or files that you drop here"
                select(sources, view.source, sourced, aria_label="Source", style="max-width:min(52rem,100%)")
                own = Tag("div", style="margin-top:.8rem")
                with own:
                    with Tag("div", class_="line"):
                        text_input(
                            "", partial(setattr, view, "place"), placeholder=f"A path, or a name in {data_dir()}",
                            aria_label="Folder, zip or array file on this machine", style="flex:1;min-width:14rem",
                        )  # fmt: skip
                        button("Look at them", look)
                    drop_area(studio, dropped)
                own.set_visibility(False)
                sheet = Tag("div", style="margin-top:.8rem", aria_live="polite")
            with Tag("section", class_="card", aria_label="Model", style="margin-top:1rem"):
                Tag("h2", "2. Model", style="margin-top:0")
                models = Tag("div")
            with Tag("section", class_="card", aria_label="Time", style="margin-top:1rem"):
                Tag("h2", "3. Time", style="margin-top:0")
                with Tag("div", class_="line"):
                    text_input(
                        view.amount, partial(setattr, view, "amount"), "number", min=0, step="any",
                        aria_label="How long", style="width:7rem",
                    )  # fmt: skip
                    select(UNITS, view.unit, partial(setattr, view, "unit"), aria_label="Unit")
                    named = partial(setattr, view, "name")
                    text_input("", named, placeholder="Name (optional)", aria_label="Name of the run")
                    button("Start training", start, "main")
                words = Tag("div", aria_live="polite", style="margin-top:.6rem")
        draw_models()
        ui.timer(0.05, look, once=True)


def allowed(place: str, studio: Studio) -> str:
    """Returns the whole path of a place, relative to the data directory.

    Raises:
        UserError: if it is outside the folders that the studio may read images from.
    """
    if not place:
        raise UserError("Name a folder, a zip or a file of arrays on this machine, or drop images here.")
    try:
        path = Path(place).expanduser()
        real = (path if path.is_absolute() else data_dir() / path).resolve()
    except (OSError, RuntimeError, ValueError):
        raise UserError("This is not a path.") from None
    if not any(real.is_relative_to(root.resolve()) for root in studio.readable):
        shown = ", ".join(str(root) for root in studio.readable)
        raise UserError(
            f"The studio reads images below {shown}, and {real} is not. Start it with --images FOLDER to read there."
        )
    return str(real)


def prepared(view: Choices, studio: Studio, data: str) -> str:
    """Starts the training that a page describes, and returns the run's name.

    Raises:
        UserError: if it cannot be started.
    """
    if view.source == OWN:
        data = allowed(data, studio)
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", view.amount) or not float(view.amount):
        raise UserError(f"How long is a number above 0, such as 10, not '{view.amount}'.")
    arguments = ["train", *([view.recipe] if view.recipe else []), "--data", data, f"--{view.unit}", view.amount]
    if view.unit == "steps" and "." in view.amount:
        raise UserError("Steps are whole.")
    if view.recipe:
        base = load_recipe(view.recipe, choose(data)).name
        arguments += ["--set", "data.convert=true"] if view.source == OWN else []
    else:
        if view.unit != "minutes":
            raise UserError("A recipe that is chosen for the images is chosen for a time too: give minutes.")
        base = choose_recipe(choose(data), minutes=float(view.amount))[0].name
    name = view.name.strip() or studio.free_name(path_part(base))
    studio.jobs.start("train", name, [*arguments, "--name", name, "--runs", str(studio.shelf.runs)])
    return name
