"""The blind test: real or made? And the twin test: which of two is real?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from nicegui import run as background
from nicegui import ui
from nicegui.events import KeyEventArguments

from zeuxis.errors import UserError
from zeuxis.evaluation.people import Share, by_person, differences, read_answers, shares
from zeuxis.run import Run
from zeuxis.studio.parts import table
from zeuxis.studio.shell import Tag, button, caution, each, page, picture, select, tell, text_input, tick
from zeuxis.studio.state import PATIENCE, SLOW, Studio
from zeuxis.studio.trials import Sitting, prepare

__all__ = ["register"]

TIMES = {"": "as long as I want", "1000": "1 second", "500": "half a second", "250": "a quarter of a second"}
TESTS = {"single": "one by one: real or made?", "twin": "twins: which of two is real?"}
COUNTS = {"10": "10 pictures of each", "20": "20 pictures of each", "50": "50 pictures of each (for numbers that hold)"}
MOST_RUNS = 8
WORDS = {
    "deceived": "its pictures taken for real", "doubted": "real pictures taken for made", "errors": "judged wrongly",
    "twins": "twins: its picture taken for the real one",
}  # fmt: skip


def register(studio: Studio) -> None:
    """Adds the page."""

    @ui.page("/blind", response_timeout=PATIENCE)
    async def blind_page() -> None:
        wanted = list(dict.fromkeys(ui.context.client.request.query_params.getlist("runs")))[:MOST_RUNS]
        chosen: dict[str, None] = {}
        view = {"person": "", "test": "single", "limit": "", "count": "20"}
        sitting: list[Sitting] = []

        async def start() -> None:
            notes.clear()
            try:
                if not chosen:
                    raise UserError("Tick the runs to be judged.")
                runs = [studio.shelf.open(name) for name in chosen]
                limit = int(view["limit"]) if view["limit"] in TIMES and view["limit"] else None

                def make() -> Sitting:
                    return prepare(
                        runs, view["person"], int(view["count"]), twins=view["test"] == "twin", limit=limit,
                        random=np.random.default_rng(),
                    )  # fmt: skip

                sitting[:] = [await studio.models.do(SLOW, make)]
            except UserError as error:
                with notes:
                    caution(error)
                return
            studio.sit(sitting[0])
            setup.set_visibility(False)
            show()

        def show() -> None:
            current = sitting[0]
            trial.clear()
            question = current.question
            if question is None:
                finish()
                return
            with trial:
                number = f"{current.at + 1} of {len(current.questions)}"
                Tag("progress", value=current.at, max=len(current.questions), aria_label=f"Question {number}")
                twins = len(question.pictures) == 2
                Tag("h2", "Which one is real?" if twins else "Real, or made?", aria_live="polite")
                with Tag("div", class_="trial"):
                    for i in range(len(question.pictures)):
                        side = ("left", "right")[i] if twins else ""
                        with Tag("div"):
                            shown = picture(
                                f"/picture/trial/{current.id}/{current.at}/{i}", f"The {side} picture", "pixels"
                            )
                            if current.limit:
                                hide = f"setTimeout(() => (shown.style.visibility = 'hidden'), {current.limit})"
                                shown.on("load", js_handler=f"(e) => {{ const shown = e.target; {hide}; }}")
                            if twins:
                                button(f"{'←' if i == 0 else '→'} the {side} one", lambda i=i: answered(i), "main")
                if not twins:
                    with Tag("div", class_="line", style="justify-content:center"):
                        button("← Real", lambda: answered("real"), "main")
                        button("Made →", lambda: answered("made"), "main")
                Tag("p", f"{number}. Arrow keys answer too.", class_="muted small", style="text-align:center")
            current.show()

        def answered(said: str | int) -> None:
            try:
                sitting[0].answer(said)  # type: ignore[arg-type]
            except UserError as error:
                tell(error)
                return
            show()

        def pressed(event: KeyEventArguments) -> None:
            current = sitting[0].question if sitting else None
            if current and event.action.keydown and not event.action.repeat:
                side = 0 if event.key.arrow_left else 1 if event.key.arrow_right else None
                if side is not None:
                    answered(side if len(current.pictures) == 2 else ("real", "made")[side])

        def finish() -> None:
            current = sitting[0]
            sitting.clear()
            with trial:
                Tag("h2", "Thank you")
                Tag(
                    "p", f"{current.right} of {len(current.questions)} answers were right; guessing gives half of them."
                )
                button("Again", each(trial.clear, lambda: setup.set_visibility(True)), "main")
            ui.timer(0.01, show_results, once=True)

        async def show_results() -> None:
            names = list(chosen) or wanted
            found = await background.io_bound(lambda: [(name, studio.shelf.open(name)) for name in names])
            results.clear()
            with results:
                if found:
                    draw_results(found)

        def ticking(name: str, on: bool) -> None:
            if on and len(chosen) < MOST_RUNS:
                chosen[name] = None
            else:
                chosen.pop(name, None)
            ui.timer(0.01, show_results, once=True)

        with page("Blind test", "Blind test"):
            Tag("h1", "Blind test")
            Tag("p", "Can you tell what a model made from what is real? Answers are kept in the run.", class_="lead")
            with Tag("section", class_="card", aria_label="The test") as setup:
                with Tag("div", class_="line"):
                    name_given = "Your name"
                    text_input("", lambda text: view.update(person=text), placeholder=name_given, aria_label=name_given)
                    select(TESTS, "single", lambda value: view.update(test=value), aria_label="Kind of test")
                    select(COUNTS, "20", lambda value: view.update(count=value), aria_label="Number of pictures")
                    select(TIMES, "", lambda value: view.update(limit=value), aria_label="Time for a picture")
                Tag("h2", "Runs")
                listed = await background.io_bound(studio.shelf.entries) or []
                with Tag("div", class_="ticks"):
                    for entry in [e for e in listed if e.readable][:200]:
                        on = entry.name in wanted
                        if on:
                            chosen[entry.name] = None
                        tick(entry.name, on, partial(ticking, entry.name))
                if not listed:
                    Tag("p", "There are no runs yet.", class_="none")
                notes = Tag("div", aria_live="polite")
                button("Begin", start, "main", style="margin-top:.8rem")
            trial = Tag("section", aria_label="The question")
            results = Tag("section", aria_label="Results")
            # Also while a button has the focus, as the one has that began the test.
            ui.keyboard(pressed, ignore=["input", "select", "textarea"])
            if chosen:
                ui.timer(0.05, show_results, once=True)


def draw_results(found: Sequence[tuple[str, Run]]) -> None:
    """Shares with Wilson's intervals, by model and by person, and tests between models."""
    answers = {name: read_answers(run.path, run.step) for name, run in found}
    answers = {name: given for name, given in answers.items() if given}
    if not answers:
        return
    Tag("h2", "Results")
    by_model = {name: shares(given) for name, given in answers.items()}
    keys = [key for key in WORDS if any(key in found_shares for found_shares in by_model.values())]
    heads = [WORDS[key] for key in keys]
    models = [[name, *(words_of(found_shares.get(key)) for key in keys)] for name, found_shares in by_model.items()]
    table("By model", ["model", *heads], models)
    everyone = by_person([answer for given in answers.values() for answer in given])
    people = [[person, *(words_of(found_shares.get(key)) for key in keys)] for person, found_shares in everyone.items()]
    table("By person", ["person", *heads], people)
    for key in ("deceived", "twins"):
        groups = {name: s[key] for name, s in by_model.items() if key in s}
        for one, other, p, differ in differences(groups):
            better = one if groups[one].value > groups[other].value else other
            verdict = f"{better} deceives more" if differ else "no sure difference"
            Tag(
                "p", f"{one} and {other}, {WORDS[key]}: {verdict} (Fisher's exact test, p = {p:.3g}).", class_="verdict"
            )
    words = "Shares with Wilson's intervals at 95 %; tests with Holm's correction. For the weights in use."
    Tag("p", words, class_="muted small")


def words_of(share: Share | None) -> str:
    """A share in words, such as `12 of 20: 60 % (39 to 78 %)`."""
    if share is None:
        return "—"
    low, high = share.interval
    return f"{share.k} of {share.n}: {100 * share.value:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"
