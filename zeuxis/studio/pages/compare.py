"""Runs side by side: pictures from the same seeds, measures with errors, quality against cost, and votes by eye."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

from nicegui import run as background
from nicegui import ui

from zeuxis.errors import UserError
from zeuxis.evaluation.evaluate import read_evaluation
from zeuxis.evaluation.measure import with_error
from zeuxis.evaluation.people import Share, Vote, read_votes, record
from zeuxis.evaluation.ranking import Row, ranked, unvaried
from zeuxis.figures.style import LINES
from zeuxis.files import path_part
from zeuxis.run import Run
from zeuxis.studio.parts import GREY, duration, table
from zeuxis.studio.shell import Tag, button, caution, link, page, picture, tell, text_input, tick, told
from zeuxis.studio.state import PATIENCE, Studio, address

__all__ = ["register"]

MOST_RUNS, EVERY = 8, 3.0
NOTE = (
    "With standard errors. Bold: better than every other run (Welch's t test, Holm's correction, 5 %). “Measure them "
    "all” takes 2,000 samples of each."
)


def register(studio: Studio) -> None:
    """Adds the page."""

    @ui.page("/compare", response_timeout=PATIENCE)
    async def compare_page() -> None:
        wanted = list(dict.fromkeys(ui.context.client.request.query_params.getlist("runs")))[:MOST_RUNS]
        view: dict[str, Any] = {"seed": 1, "seen": None}
        runs: list[Run] = []

        def seeded(text: str) -> None:
            view["seed"] = int(text) if text.isdecimal() and len(text) < 10 else 1
            draw()

        def draw() -> None:
            columns.clear()
            with columns:
                for run in runs:
                    with Tag("figure", class_="card"):
                        with Tag("h3"):
                            link(run.name, "run", run.name)
                        if run.generates:
                            place = f"{address('picture/samples', run.name)}?seed={view['seed']}"
                            place += f"&v={studio.shelf.version(run.name)}"
                            picture(place, f"Samples of {run.name}", "pixels", style="width:100%")
                            name = f"{run.name} looks best"
                            button("Looks best", partial(vote, run), aria_label=name, style="margin-top:.6rem")
            count()

        def vote(run: Run) -> None:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            others = [other.name for other in runs if other is not run]
            with told():
                record(run.path, [Vote(over=others, seed=view["seed"], when=now, step=run.step)])
                tell(f"A vote for {run.name}. The next seed…")
            seeded(str(view["seed"] + 1))

        def count() -> None:
            names = {run.name for run in runs}
            won = {run.name: sum(set(v.over) == names - {run.name} for v in read_votes(run.path)) for run in runs}
            total = sum(won.values())
            words = []
            for name, number in won.items():
                low, high = Share(number, total).interval
                words.append(f"{name} {number} ({100 * low:.0f} to {100 * high:.0f} %)")
            votes.set_text(f"Votes: {', '.join(words)}" if total else "")

        def measure() -> None:
            with told():
                for run in runs:
                    more = ["--trust"] if studio.shelf.trusted(run.name) else []
                    more += ["--samples", "2000", "--runs", str(studio.shelf.runs)]
                    studio.jobs.start("evaluate", run.name, ["evaluate", run.name, *more])
            look()

        def write() -> None:
            with told():
                more = ["--trust"] if any(studio.shelf.trusted(run.name) for run in runs) else []
                out = studio.shelf.runs / f"{path_part('compare-' + '-'.join(run.name for run in runs))}.html"
                names = [run.name for run in runs]
                more += ["--out", str(out), "--runs", str(studio.shelf.runs)]
                studio.jobs.start("compare", "+".join(names), ["compare", *names, *more], out.name)
            look()

        def look() -> None:
            jobs = [studio.jobs.of(run.name, "evaluate") for run in runs]
            written = studio.jobs.of("+".join(run.name for run in runs), "compare")
            busy = [job for job in [*jobs, written] if job and studio.jobs.alive(job)]
            failed = [studio.jobs.failure(job) for job in [*jobs, written] if job]
            state.set_text("At work…" if busy else next(filter(None, failed), ""))
            if written and not studio.jobs.alive(written) and (studio.shelf.runs / written.result).is_file():
                report.props["href"] = address("file/comparison", written.result)
                report.set_visibility(True)
            stamps = [studio.shelf.stamp(run.name) for run in runs]
            if stamps != view["seen"]:
                view["seen"] = stamps
                draw_measures()

        def draw_measures() -> None:
            rows = ranked([read_evaluation(run) for run in runs])
            measures.clear()
            trade.clear()
            with measures:
                if not rows:
                    Tag("p", "They are not measured yet.", class_="none")
                else:
                    lines = [[title(row), *map(words_of, row.cells)] for row in rows]
                    best = [[False, *(cell.best for cell in row.cells)] for row in rows]
                    table("", ["measure", *(run.name for run in runs)], lines, best)
                    Tag("p", NOTE, class_="muted small")
                    if one_image := unvaried(rows, [run.name for run in runs]):
                        words = f"Never bold: {', '.join(one_image)}, where all samples are one image."
                        Tag("p", words, class_="muted small")
            with trade:
                draw_trade(runs, rows)

        with page("Compare", "Compare"):
            Tag("h1", "Compare")
            if len(wanted) < 2:
                await choose(studio, wanted)
                return
            Tag("p", "The same seed for all. Nothing is picked by hand.", class_="lead")
            for name in wanted:
                try:
                    opened = await background.io_bound(studio.shelf.open, name)
                    assert opened is not None
                    await background.io_bound(getattr, opened, "model")
                    runs.append(opened)
                except UserError as error:
                    caution(error)
            if len(runs) < 2:
                return
            with Tag("div", class_="line", style="margin-bottom:.8rem"):
                with Tag("label", "Seed ", class_="tick"):
                    text_input("1", seeded, "number", "change", min=0, max=10**9, style="width:7rem")
                button("Another seed", lambda: seeded(str(view["seed"] + 1)))
                votes = Tag("span", "", class_="muted", aria_live="polite")
            columns = Tag("div", class_="wall")
            Tag("h2", "Measures")
            measures = Tag("div")
            with Tag("div", class_="line", style="margin-top:.8rem"):
                button("Measure them all", measure, "main")
                button("Write the comparison", write)
                state = Tag("span", "", class_="muted", aria_live="polite")
                report = Tag("a", "Open it", class_="button", target="_blank")
                report.set_visibility(False)
            Tag("h2", "Quality against cost")
            trade = Tag("div")
        draw()
        look()
        ui.timer(EVERY, look)


async def choose(studio: Studio, wanted: list[str]) -> None:
    """Asks which runs to compare."""
    Tag("p", "Tick two runs or more.", class_="lead")
    chosen = dict.fromkeys(wanted)
    listed = await background.io_bound(studio.shelf.entries) or []

    def ticking(name: str, on: bool) -> None:
        chosen.pop(name, None)
        if on:
            chosen[name] = None
        go.props.set_bool("disabled", not 2 <= len(chosen) <= MOST_RUNS)

    with Tag("section", class_="card", aria_label="Runs"):
        with Tag("div", class_="ticks"):
            for entry in [e for e in listed if e.readable][:200]:
                tick(entry.name, entry.name in chosen, partial(ticking, entry.name))
        if not listed:
            Tag("p", "There are no runs yet.", class_="none")
        few = len(chosen) < 2
        go = button("Compare", lambda: ui.navigate.to(address("compare", chosen)), "main", disabled=few)


def title(row: Row) -> str:
    """The name of a row, with an arrow to what is better."""
    arrow = {"low": " ↓", "high": " ↑"}.get(row.better, "")
    return row.name.replace("_", " ") + arrow + (f" ({row.features})" if row.features else "")


def words_of(cell: Any) -> str:
    """A figure with its standard error."""
    return "—" if cell.value is None else with_error(cell.value)


def draw_trade(runs: list[Run], rows: list[Row]) -> None:
    """Distance against training time."""
    row = next((row for row in rows if row.name == "fid"), None)
    points: list[dict[str, Any]] = []
    for i, run in enumerate(runs):
        seconds, value = run.last("seconds"), row.cells[i].value if row else None
        if seconds and value:
            points.append({"name": run.name, "value": [round(seconds / 60, 3), value.value]})
    if len(points) < 2:
        Tag("p", "Shown when two runs are measured in the same features.", class_="none")
        return
    text = {"color": GREY}
    rules = {"lineStyle": {"color": GREY, "opacity": 0.18}}
    quiet = {"axisLine": {"lineStyle": text}, "axisLabel": text, "splitLine": rules, "nameTextStyle": text}
    middle = {"nameLocation": "middle"}
    chart = ui.echart({
        "animation": False, "color": list(LINES), "textStyle": text,
        "grid": {"left": 40, "right": 90, "top": 14, "bottom": 30, "containLabel": True},
        "tooltip": {"confine": True},
        "xAxis": {"type": "log", "name": "minutes of training", "nameGap": 28, **middle, **quiet},
        "yAxis": {"type": "value", "min": 0, "name": "distance (FID)", "nameGap": 40, **middle, **quiet},
        "series": [{
            "type": "scatter", "symbolSize": 16, "data": points,
            "label": {"show": True, "formatter": "{b}", "position": "right", "color": GREY},
        }],
    }).style("height:20rem")  # fmt: skip
    words = ", ".join(f"{p['name']} {p['value'][1]:.3g} in {duration(60 * p['value'][0])}" for p in points)
    chart.props["role"], chart.props["aria-label"] = "img", f"Distance against minutes of training: {words}"
