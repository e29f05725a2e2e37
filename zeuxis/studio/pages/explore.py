"""Explore: through a latent space by pointer, keys, sliders and pins. The page itself is `static/explore.js`."""

from __future__ import annotations

from nicegui import run as background
from nicegui import ui

from zeuxis.pretrained import cards, unpack
from zeuxis.studio.parts import strip
from zeuxis.studio.shell import Tag, button, link, page, told
from zeuxis.studio.state import PATIENCE, SLOW, Studio, address
from zeuxis.studio.trusting import asked

__all__ = ["register"]

# Runs that the page offers.
OFFERED = 60


def register(studio: Studio) -> None:
    """Adds the pages."""

    @ui.page("/explore/{name}", response_timeout=PATIENCE)
    async def explore_run(name: str) -> None:
        with page(f"Explore {name}", "Explore"):
            with Tag("div", class_="between", style="margin-bottom:.6rem"):
                Tag("h1", name)
                with Tag("div", class_="line"):
                    link("The run", "run", name, class_="button")
                    link("Another", "explore", class_="button")
            if not await asked(studio, name):
                return
            await studio.models.do(SLOW, studio.explorer, name)
            Tag("div", "Opening the model…", id="explore", data_run=name)
            ui.add_body_html('<script type="module" src="/studio/explore.js"></script>')

    @ui.page("/explore", response_timeout=PATIENCE)
    async def choose_run() -> None:
        with page("Explore", "Explore"):
            Tag("h1", "Explore")
            Tag("p", "Choose a model to move through.", class_="lead")
            listed = await background.io_bound(studio.shelf.entries) or []
            with Tag("div", class_="wall"):
                for entry in sorted(listed, key=lambda e: (not e.star, e.name))[:OFFERED]:
                    if entry.state == "broken":
                        continue
                    with Tag("article", class_="card run"):
                        with link("", "explore", entry.name, class_="strip", aria_label=f"Explore {entry.name}"):
                            if entry.readable:
                                strip(studio, entry.name)
                        with Tag("h3"):
                            link(entry.name, "explore", entry.name)
                for card in cards():
                    if f"pretrained-{card.name}" in {entry.name for entry in listed}:
                        continue
                    with Tag("article", class_="card"):
                        Tag("h3", card.name)
                        Tag("p", f"{card.description}.", class_="small muted")

                        def opened(name: str = card.name) -> None:
                            with told():
                                ui.navigate.to(address("explore", unpack(name, studio.shelf.runs).name))

                        button("Open", opened, aria_label=f"Open {card.name}")
