"""One run, live: its curves and snapshots as they grow, what the monitors say, every figure, and the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nicegui import run as background
from nicegui import ui

from zeuxis.curves import Curves
from zeuxis.errors import UserError
from zeuxis.figures import kinds
from zeuxis.figures.accuracy import HEALTHY
from zeuxis.figures.losses import phase_of
from zeuxis.figures.style import LINES
from zeuxis.listing import Entry
from zeuxis.recipe import run_recipe
from zeuxis.studio.parts import GREY, duration, log_of
from zeuxis.studio.pictures import snapshots
from zeuxis.studio.shell import Tag, badge, button, caution, dialog, each, link, page, picture, tell, text_input, told
from zeuxis.studio.state import PATIENCE, Studio, address
from zeuxis.studio.trusting import asked
from zeuxis.training.journal import read_warnings

__all__ = ["register"]

EVERY = 2.0
Panel = tuple[str, str, dict[str, str]]


def register(studio: Studio) -> None:
    """Adds the page."""

    @ui.page("/run/{name}", response_timeout=PATIENCE)
    async def run_page(name: str) -> None:
        with page(name, "Runs"):
            folder = studio.shelf.folder(name)
            head = Tag("div")
            if await asked(studio, name, load=False):
                show(studio, name, folder, head)


def show(studio: Studio, name: str, folder: Path, head: Tag) -> None:
    """Draws the page, and keeps it up to date."""
    curves = studio.curves(name)
    warnings = Tag("div", aria_live="polite")
    with Tag("section", class_="card", aria_label="Snapshots", style="margin-top:1rem") as films:
        with Tag("div", class_="between"):
            Tag("h2", "Learning", style="margin:0")
            step_shown = Tag("span", "", class_="number muted")
        Tag("p", "The same latents, from the first snapshot to the newest.", class_="small muted")
        frame = picture("", "Samples at this step", "pixels", style="width:100%;border-radius:8px")
        slider = Tag("input", type="range", min=0, max=0, value=0, aria_label="Snapshot")
    Tag("h2", "Training")
    charts = Tag("div", class_="two")
    Tag("h2", "Figures and report")
    work = Tag("div", class_="line")
    figures = Tag("div", class_="two", style="margin-top:1rem")
    log = Tag("div", style="margin-top:1rem")
    with Tag("details", style="margin-top:1rem"):
        Tag("summary", "The whole recipe")
        Tag("pre", run_recipe(folder, trust=studio.shelf.trust_of(name)).to_toml(), class_="log")

    view: dict[str, Any] = {"files": [], "at": -1, "charts": {}, "seen": {}}

    def changed(part: str, value: object) -> bool:
        """Whether a part of the page shows another thing than it should now."""
        if view["seen"].get(part) == value:
            return False
        view["seen"][part] = value
        return True

    def turned(value: str) -> None:
        view["at"] = int(float(value))
        turn()

    def turn() -> None:
        files = view["files"]
        if files:
            at = max(min(view["at"], len(files) - 1), 0)
            frame.props["src"] = f"{address('picture/snapshot', name)}/{files[at]}?v={studio.shelf.version(name)}"
            step_shown.set_text(f"step {int(files[at].removeprefix('step-').removesuffix('.png')):,}")

    slider.heard("input", turned, "e.target.value")

    def command(kind: str, *arguments: str) -> None:
        with told():
            if studio.shelf.trusted(name):
                arguments = (*arguments, "--trust")
            studio.jobs.start(kind, name, [kind, name, "--runs", str(studio.shelf.runs), *arguments])
        draw(studio.shelf.entry(name))

    async def stop() -> None:
        with told():
            stopped = await background.io_bound(studio.jobs.stop, folder)
            tell("It saves its weights and stops." if stopped else "No process of yours trains this run.")

    def further(entry: Entry) -> None:
        more = [f"{2 * entry.budget:g}"]
        with dialog("Train further", f"It has had {entry.progress}. Train until it has had, in {entry.unit}:") as box:
            text_input(more[0], lambda text: more.__setitem__(0, text), "number", aria_label=entry.unit.capitalize())
            with Tag("div", class_="line end", style="margin-top:.8rem"):
                button("Cancel", box.close)
                button("Train", each(box.close, lambda: command("resume", f"--{entry.unit}", more[0])), "main")

    def draw(entry: Entry) -> None:
        last, job = curves.last, studio.jobs.of(name)
        busy = job is not None and studio.jobs.alive(job)
        if changed("head", (entry, curves.read(), busy and job)):
            head.clear()
            with head:
                title(entry, last, busy and job is not None and job.kind in ("train", "resume"))
        words = [line["warning"] for line in read_warnings(folder / "warnings.jsonl")][-5:]
        failure = studio.jobs.failure(job) if job else ""
        if changed("warnings", (words, failure)):
            warnings.clear()
            with warnings:
                for sentence in words:
                    caution(sentence)
                if failure and job:
                    caution(f"The last command, {job.kind}, failed: {failure}")
        files = snapshots(studio.shelf, name)
        if changed("files", files):
            newest = view["at"] >= len(view["files"]) - 1
            view["files"], view["at"] = files, len(files) - 1 if newest else view["at"]
            films.set_visibility(bool(files))
            slider.props["max"] = max(len(files) - 1, 0)
            ui.run_javascript(f"getHtmlElement({slider.id}).value = {view['at']}")
            turn()
        if changed("curves", curves.read()):
            draw_charts()
        shown = sorted((folder / "figures").glob("*.png"))
        stamps = [(path.name, path.stat().st_mtime_ns) for path in shown]
        if changed("figures", stamps):
            draw_figures(dict(stamps))
        report = folder / "report.html"
        if changed("work", (busy and job, report.exists() and report.stat().st_mtime_ns)):
            draw_work(busy and job is not None and job.kind in ("figures", "report", "evaluate"), report.exists())
        output = studio.jobs.output(job) if job and busy else ""
        if changed("log", output):
            log.clear()
            with log:
                if output:
                    log_of(output)

    def title(entry: Entry, last: dict[str, float], starting: bool) -> None:
        with Tag("div", class_="between"):
            with Tag("div"):
                with Tag("div", class_="line"):
                    Tag("h1", name)
                    badge("starting" if starting and entry.state != "running" else entry.state)
                Tag("p", f"{entry.recipe} on {entry.data}, started {entry.started} UTC", class_="lead")
            with Tag("div", class_="line"):
                if entry.state == "running":
                    button("Stop and save", stop)
                elif entry.state == "stopped" and not starting:
                    button("Resume", lambda: command("resume"), "main")
                elif entry.unit and not starting:
                    button("Train further", lambda: further(entry))
                Tag("a", "Blind test", class_="button", href=address("blind", [name]))
                link("Explore", "explore", name, class_="button main")
        if not entry.unit:
            return
        share = min(entry.used / entry.budget, 1.0)
        Tag("progress", value=share, max=1, aria_label="Progress")
        seconds, images = last.get("seconds", 0.0), last.get("images", 0.0)
        facts = [
            (entry.progress, "trained"),
            (f"{int(last.get('step', 0)):,}", "steps"),
            (duration(seconds), "training time"),
            (f"{images / seconds:,.0f}" if seconds else "…", "images per second"),
        ]
        if entry.state == "running" and 0 < share < 1:
            facts.append((duration(seconds * (1 / share - 1)), "left"))
        if entry.distance is not None:
            facts.append((f"{entry.distance:.3g}", "distance (FID)"))
        if entry.test_mse is not None:
            facts.append((f"{entry.test_mse:.5f}", "test MSE"))
        with Tag("div", class_="facts"):
            for value, word in facts:
                with Tag("div"):
                    Tag("b", value)
                    Tag("span", word)

    def draw_charts() -> None:
        wanted = panels(curves)
        if changed("panels", [(head, tuple(names)) for head, _, names in wanted]):
            charts.clear()
            view["charts"] = {}
            with charts:
                if not wanted:
                    Tag("p", "The first numbers are still to come.", class_="none")
                for heading, caption, _names in wanted:
                    with Tag("figure", class_="card"):
                        Tag("h3", heading)
                        chart = ui.echart({}).style("height:15rem")
                        chart.props["role"], chart.props["aria-label"] = "img", f"{heading}, by step"
                        Tag("figcaption", caption)
                    view["charts"][heading] = chart
        for heading, _, names in wanted:
            chart = view["charts"][heading]
            chart.options.clear()
            chart.options.update(drawing(curves, names, accuracy=heading == ACCURACY))
            chart.update()

    def draw_work(busy: bool, has_report: bool) -> None:
        work.clear()
        with work:
            button("Draw every figure", lambda: command("figures"), disabled=busy)
            button("Measure", lambda: command("evaluate", "--samples", "2000"), disabled=busy)
            button("Write the report", lambda: command("report"), disabled=busy)
            if has_report:
                link("Open the report", "file", "report", name, class_="button main", target="_blank")
            if busy:
                Tag("span", "At work…", class_="muted")

    def draw_figures(stamps: dict[str, int]) -> None:
        figures.clear()
        known = {f"{kind.name}.png": kind for kind in kinds()}
        with figures:
            if not stamps:
                Tag("p", "No figure is drawn yet.", class_="none")
            for file in sorted(stamps, key=lambda f: (known[f].order if f in known else 99, f)):
                with Tag("figure", class_="card"):
                    words = known[file].title if file in known else file
                    Tag("h3", words)
                    with Tag("div", class_="sheet"):
                        picture(f"{address('picture/figure', name)}/{file}?v={stamps[file]}", words, loading="lazy")
                    if file in known:
                        Tag("figcaption", known[file].caption)

    async def look() -> None:
        try:
            entry = await background.io_bound(look_up)
        except UserError as error:
            tell(error)
        else:
            if entry is not None:
                draw(entry)

    def look_up() -> Entry:
        curves.read()
        return studio.shelf.entry(name)

    ui.timer(0.05, look, once=True)
    ui.timer(EVERY, look)


ACCURACY = "Discriminator accuracy"


def panels(curves: Curves) -> list[Panel]:
    """The charts of a run: heading, caption, and numbers by label; by role, whatever a model calls them."""

    def named(*roles: str, of: Callable[[str], bool] = lambda name: True) -> dict[str, str]:
        names = [name for name in curves.names(*roles) if of(name)]
        several = len({phase_of(name) for name in names}) > 1
        return {name.replace("/", ": ", 1) if several else name.partition("/")[2]: name for name in names}

    found: list[Panel] = [
        ("Losses", "What each phase minimises.", {phase_of(name): name for name in curves.names("loss")}),
        (ACCURACY, f"Between {HEALTHY[0]:.0%} and {HEALTHY[1]:.0%} (shaded), both networks learn.", named("accuracy")),
        ("Critic's distance", "Its estimate of how far samples are from images.", named("distance")),
        ("Distance on held-out images", "Lower is better.", named("test", of=lambda name: name.endswith("fid"))),
        ("Tests", "On held-out images.", named("test", of=lambda name: not name.endswith("fid"))),
        ("Divergence", "KL of the posterior, in nats per image; near 0, latents say nothing.", named("kl")),
        ("Information", "Of codes in images, in nats.", named("information")),
    ]
    for phase in dict.fromkeys(map(phase_of, curves.names("term"))):
        terms = named("term", of=lambda name, phase=phase: phase_of(name) == phase)  # type: ignore[misc]
        if len(terms) > 1:
            found.append((f"Parts of the {phase} loss", "Without their weights.", terms))
    return [(heading, caption, names) for heading, caption, names in found if names]


def drawing(curves: Curves, names: dict[str, str], *, accuracy: bool) -> dict[str, Any]:
    """A chart's options for ECharts."""
    text = {"color": GREY}
    line = {"type": "line", "showSymbol": False, "animation": False, "lineStyle": {"width": 1.8}}
    series: list[dict[str, Any]] = [line | {"name": label, "data": curves.curve(name)} for label, name in names.items()]
    if accuracy:
        band = [{"yAxis": HEALTHY[0]}, {"yAxis": HEALTHY[1]}]
        series[0]["markArea"] = {"silent": True, "itemStyle": {"color": LINES[2], "opacity": 0.16}, "data": [band]}
    rules = {"lineStyle": {"color": GREY, "opacity": 0.18}}
    quiet = {"axisLine": {"lineStyle": text}, "axisLabel": text, "splitLine": rules}
    upright = {"min": 0, "max": 1} if accuracy else {"scale": True}
    return {
        "color": list(LINES), "animation": False, "textStyle": text,
        "grid": {"left": 8, "right": 14, "top": 34, "bottom": 4, "containLabel": True},
        "legend": {"top": 0, "left": 0, "type": "scroll", "textStyle": text, "itemWidth": 16, "show": len(names) > 1},
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {"type": "value", "max": "dataMax", **quiet}, "yAxis": {"type": "value", **upright, **quiet},
        "series": series,
    }  # fmt: skip
