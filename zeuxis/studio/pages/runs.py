"""The wall of runs: what there is, how far it is, and order among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from nicegui import run as background
from nicegui import ui

from zeuxis.errors import UserError
from zeuxis.listing import SORTS, Entry, annotate, remove, rename
from zeuxis.pretrained import cards, unpack
from zeuxis.studio.parts import strip
from zeuxis.studio.shell import (
    Tag,
    badge,
    button,
    dialog,
    each,
    link,
    page,
    select,
    tell,
    text_input,
    told,
)
from zeuxis.studio.state import PATIENCE, Studio, address

__all__ = ["register"]

# Cards on a page, and seconds between two looks at the folders.
CARDS, EVERY = 24, 2.0
WORDS = {
    "date": "newest first", "name": "by name", "distance": "by distance", "mse": "by test error", "state": "by state",
    "recipe": "by recipe", "size": "largest first", "step": "most steps first",
}  # fmt: skip


@dataclass
class View:
    """What one page shows of the runs."""

    sort: str = "date"
    text: str = ""
    first: int = 0
    ticked: dict[str, None] = field(default_factory=dict)


def register(studio: Studio) -> None:
    """Adds the page."""

    @ui.page("/", response_timeout=PATIENCE)
    async def runs_page() -> None:
        view = View()
        with page("Runs", "Runs"):
            with Tag("div", class_="between"):
                with Tag("div"):
                    Tag("h1", "Runs")
                    count = Tag("p", "Reading the runs…", class_="lead")
                with Tag("div", class_="line"):
                    chosen = Tag("span", class_="muted small")
                    compare = button("Compare", lambda: ui.navigate.to(address("compare", view.ticked)), disabled=True)
                    blind = button("Blind test", lambda: ui.navigate.to(address("blind", view.ticked)), disabled=True)
                    link("Train", "train", class_="button main")
            with Tag("div", class_="line", role="search", style="margin:.3rem 0 1rem"):
                text_input(
                    "", lambda text: changed(text=text), "search", placeholder="Filter",
                    title="By name, recipe, model, data, state or note",
                    aria_label="Show only runs that mention",
                )  # fmt: skip
                select(WORDS, view.sort, lambda key: changed(sort=key), aria_label="Order of the runs")  # fmt: skip
            wall = Tag("div", class_="wall")
            pager = Tag("div", class_="line", style="margin-top:1rem")
            ready = Tag("section", aria_label="Pretrained models")
        seen: list[object] = []

        def changed(**values: str) -> None:
            for name, value in values.items():
                setattr(view, name, value)
            view.first = 0
            draw(studio.shelf.known())

        def turn(by: int) -> None:
            view.first += by
            draw(studio.shelf.known())

        def ticking(name: str, on: bool, box: Tag) -> None:
            box.classes(toggle="ticked")
            if on:
                view.ticked[name] = None
            else:
                view.ticked.pop(name, None)
            count_ticked()

        def count_ticked() -> None:
            number = len(view.ticked)
            chosen.set_text(f"{number} ticked" if number else "")
            for made, least in ((compare, 2), (blind, 1)):
                made.props.set_bool("disabled", number < least)

        def draw(listed: list[Entry]) -> None:
            shown = ordered(listed, view)
            view.first = max(min(view.first, (len(shown) - 1) // CARDS * CARDS), 0)
            part = shown[view.first : view.first + CARDS]
            waiting = [job for job in studio.jobs.all() if job.kind == "train" and job.run not in studio.shelf.names()]
            failures = [(job, studio.jobs.failure(job)) for job in waiting]
            jobs = [(job.id, words, studio.jobs.output(job)) for job, words in failures]
            state = [view.first, len(listed), len(shown), part, jobs, [studio.shelf.version(e.name) for e in part]]
            if state == seen:
                return
            seen[:] = state
            for name in view.ticked.keys() - {entry.name for entry in listed}:
                view.ticked.pop(name)
            count_ticked()
            training = sum(entry.state == "running" for entry in listed)
            words = f"No runs yet in {studio.shelf.runs}. Open a pretrained model below, or train one."
            if listed:
                words = f"{len(listed):,} run{'s' * (len(listed) != 1)} in {studio.shelf.runs}"
            words += f", {training} training now" if training else ""
            count.set_text(words + (f"; {len(shown):,} mention “{view.text}”" if view.text else ""))
            wall.clear()
            with wall:
                for job, failure in failures:
                    if failure or studio.jobs.alive(job):
                        with Tag("article", class_="card"):
                            Tag("h3", job.run)
                            badge("broken" if failure else "starting")
                            words = studio.jobs.output(job).rpartition("\n")[2] or "Looking at the images…"
                            Tag("p", failure or words, class_="small muted")
                            if failure:
                                button(
                                    "Dismiss",
                                    each(partial(studio.jobs.forget, job), lambda: draw(studio.shelf.known())),
                                )
                for entry in part:
                    card(entry)
            pager.clear()
            if len(shown) > CARDS:
                with pager:
                    button("Previous", lambda: turn(-CARDS), disabled=view.first == 0)
                    Tag("span", f"{view.first + 1} to {view.first + len(part)} of {len(shown):,}", class_="muted")
                    button("Next", lambda: turn(CARDS), disabled=view.first + CARDS >= len(shown))
            ready.clear()
            offered = [c for c in cards() if f"pretrained-{c.name}" not in {e.name for e in listed}]
            if offered and not view.text:
                with ready:
                    Tag("h2", "Pretrained, to try at once")
                    with Tag("div", class_="wall"):
                        for offer in offered:
                            with Tag("article", class_="card"):
                                Tag("h3", offer.name)
                                Tag("p", f"{offer.description}.", class_="small muted", title=f"{offer.measured}.")
                                button("Open", partial(opened, offer.name), aria_label=f"Open {offer.name}")

        def opened(name: str) -> None:
            with told():
                ui.navigate.to(address("explore", unpack(name, studio.shelf.runs).name))

        def card(entry: Entry) -> None:
            name = entry.name
            with Tag("article", class_=f"card run {'ticked' if name in view.ticked else ''}") as box:
                with link("", "run", name, class_="strip", aria_label=f"Open {name}"):
                    if entry.readable:
                        strip(studio, name)
                with Tag("div", class_="line", style="flex-wrap:nowrap"):
                    with Tag("h3"):
                        link(name, "run", name)
                    badge(entry.state)
                Tag("div", " · ".join(filter(None, (entry.recipe, entry.data))), class_="small muted")
                if entry.unit:
                    Tag("progress", value=min(entry.used / entry.budget, 1.0), max=1, aria_label=f"Progress of {name}")
                with Tag("div", class_="between small"):
                    Tag("span", entry.progress, class_="number muted")
                    if entry.distance is not None:
                        Tag("span", f"distance {entry.distance:.3g}", class_="number")
                    elif entry.test_mse is not None:
                        Tag("span", f"test MSE {entry.test_mse:.4f}", class_="number")
                if entry.note:
                    Tag("p", entry.note, class_="small", style="margin-bottom:0;overflow-wrap:anywhere")
                with Tag("div", class_="line", style="margin-top:auto;gap:.1rem"):
                    made = Tag("input", type="checkbox", checked=name in view.ticked, aria_label=f"Tick {name}")
                    made.heard("change", lambda on: ticking(name, on, box), "e.target.checked")
                    Tag("span", class_="grow")
                    button(
                        "★" if entry.star else "☆", lambda: order(name, star=not entry.star), "plain star",
                        aria_pressed=str(entry.star).lower(), aria_label=f"Star {name}", title="Star",
                    )  # fmt: skip
                    button("Note", lambda: noting(entry), "plain small", aria_label=f"Note on {name}")
                    button("Rename", lambda: renaming(name), "plain small", aria_label=f"Rename {name}")
                    button("Delete", lambda: deleting(name), "plain small", aria_label=f"Delete {name}")

        def order(name: str, **changes: object) -> None:
            with told():
                annotate(studio.shelf.folder(name), **changes)  # type: ignore[arg-type]
            draw(studio.shelf.entries())

        def noting(entry: Entry) -> None:
            words = [entry.note]
            with dialog(f"Note on {entry.name}") as asked:
                area = Tag("textarea", entry.note, rows=4, maxlength=2000, style="width:100%", aria_label="Note")
                area.heard("input", lambda text: words.__setitem__(0, text), "e.target.value")
                with Tag("div", class_="line end"):
                    button("Cancel", asked.close)
                    button("Save", each(asked.close, lambda: order(entry.name, note=words[0])), "main")

        def renaming(name: str) -> None:
            words = [name]
            with dialog(f"Rename {name}") as asked:
                text_input(name, lambda text: words.__setitem__(0, text), aria_label="New name", style="width:100%")

                def confirmed() -> None:
                    asked.close()
                    with told():
                        rename(studio.shelf.folder(name), words[0])
                        tell(f"{name} is now {words[0]}.")
                    draw(studio.shelf.entries())

                with Tag("div", class_="line end", style="margin-top:.8rem"):
                    button("Cancel", asked.close)
                    button("Rename", confirmed, "main")

        def deleting(name: str) -> None:
            words = "Its weights, pictures and numbers are removed from the disk."
            with dialog(f"Delete {name}?", words) as asked, Tag("div", class_="line end"):
                button("Keep it", asked.close)
                button("Delete…", each(asked.close, lambda: really(name)), "danger")

        def really(name: str) -> None:
            with dialog(f"Delete {name} for good?", "This cannot be undone.") as asked:

                def confirmed() -> None:
                    asked.close()
                    with told():
                        remove([studio.shelf.folder(name)])
                        tell(f"{name} is deleted.")
                    draw(studio.shelf.entries())

                with Tag("div", class_="line end"):
                    button("Keep it", asked.close)
                    button("Delete for good", confirmed, "danger")

        async def look() -> None:
            try:
                listed = await background.io_bound(studio.shelf.entries)
            except UserError as error:
                tell(error)
            else:
                if listed is not None:
                    draw(listed)

        ui.timer(0.05, look, once=True)
        ui.timer(EVERY, look)


def ordered(listed: list[Entry], view: View) -> list[Entry]:
    """The runs that a page shows, starred ones first, in its order."""
    text = view.text.strip().lower()
    kept = [e for e in listed if text in f"{e.name} {e.recipe} {e.model} {e.data} {e.state} {e.note}".lower()]
    key, descending = SORTS[view.sort] if view.sort in SORTS else SORTS["date"]
    known = sorted((e for e in kept if getattr(e, key) is not None), key=lambda e: getattr(e, key), reverse=descending)
    return sorted([*known, *(e for e in kept if getattr(e, key) is None)], key=lambda e: not e.star)
