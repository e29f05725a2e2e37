"""Measures how quickly the studio answers, in Chromium, and writes the tables of docs/studio.md.

    python -m benchmarks.studio                  # pointer to picture, and large folders
    python -m benchmarks.studio latency          # only from pointer to picture
    python -m benchmarks.studio crowds           # only large folders, journals and maps

The time from a move of the pointer to its picture depends on the networks and not on their weights, so a run of one
step stands for each recipe. Recipes whose images are missing are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

import zeuxis
from benchmarks.documents.page import publish
from zeuxis.errors import UserError
from zeuxis.pretrained import unpack

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
TOKEN = "a-token-of-the-measurement"
RECIPES = (
    "mnist-vae-z2", "mnist-gan", "mnist-cgan", "modern-gan-28", "modern-gan-64", "modern-vae-64", "faces-vae-64-z512",
    "faces-gan-64",
)  # fmt: skip
ALONE = {"training.test_every": "never", "training.snapshot_every": "never", "training.batch_size": 16}
# Moves of the pointer, eight milliseconds apart, and how often they are made.
MOVES, ROUNDS = 300, 3
RUNS, LINES, POINTS = 1_000, 100_000, 100_000
# Records the time between frames of the page, in milliseconds.
FRAMES = """() => {
  window.frames_ = []; let last = performance.now();
  const next = (now) => { window.frames_.push(now - last); last = now; requestAnimationFrame(next); };
  requestAnimationFrame(next);
}"""
Rows = list[dict[str, Any]]


class Served:
    """A studio in a process of its own, which may be killed and started again.

    Args:
        runs: its folder of runs.

    Attributes:
        process: that serves it.
        home: its address, the same after a new start.
    """

    def __init__(self, runs: Path) -> None:
        self.runs, self._port = runs, "0"
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        command = [sys.executable, "-m", "zeuxis", "studio", "--no-browser", "--runs", str(self.runs)]
        environment = os.environ | {"ZEUXIS_STUDIO_TOKEN": TOKEN}
        self.process = subprocess.Popen(
            [*command, "--port", self._port], stderr=subprocess.PIPE, encoding="utf-8", env=environment
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                self._port = found[1]
                return
        raise AssertionError("the studio did not start")

    @property
    def home(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.wait(20)


@contextmanager
def studio(runs: Path) -> Iterator[str]:
    """Starts a studio; yields its address."""
    served = Served(runs)
    try:
        yield served.home
    finally:
        served.kill()


@contextmanager
def tab(home: str) -> Iterator[Page]:
    """Opens Chromium on the studio's first page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(180_000)
        page.goto(f"{home}/?token={TOKEN}")
        yield page
        browser.close()


def share(values: Sequence[float], part: float) -> float:
    """Returns the value that this part of them does not exceed."""
    return sorted(values)[min(int(part * len(values)), len(values) - 1)]


def drag(page: Page, moves: int = MOVES) -> None:
    """Moves the pointer over the plane with its button held down."""
    box = page.locator(".field-of-view canvas").nth(1).bounding_box()
    assert box is not None
    for i in range(moves):
        x, y = 0.5 + 0.4 * math.cos(i / 20), 0.5 + 0.4 * math.sin(i / 15)
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        if i == 0:
            page.mouse.down()
        page.wait_for_timeout(8)
    page.mouse.up()


def explore(page: Page, home: str, name: str) -> float:
    """Opens a run's plane; returns the seconds until everything is there."""
    started = time.perf_counter()
    page.goto(f"{home}/explore/{name}")
    page.wait_for_function("document.getElementById('explore')?.dataset.ready === 'all'", timeout=60_000)
    return time.perf_counter() - started


def one_step(runs: Path) -> list[str]:
    """Makes a run of one step of each recipe whose images are there; returns their names."""
    names = ["pretrained-digits-vae"]
    unpack("digits-vae", runs)
    for recipe in RECIPES:
        try:
            zeuxis.train(recipe, steps=1, runs=runs, name=recipe, settings=ALONE, progress=False)
            names.append(recipe)
        except UserError as error:
            print(f"{recipe} is left out: {error}")
    return names


def latency() -> Rows:
    """Returns the milliseconds from a move of the pointer to its picture, of the worst of the rounds."""
    rows = []
    with TemporaryDirectory() as temporary:
        runs = Path(temporary)
        names = one_step(runs)
        with studio(runs) as home, tab(home) as page:
            for name in names:
                explore(page, home, name)
                page.wait_for_timeout(2000)
                rounds = []
                for _ in range(ROUNDS):
                    page.evaluate("explorer.latencies.length = 0")
                    drag(page)
                    page.wait_for_timeout(500)
                    rounds.append(page.evaluate("explorer.latencies"))
                side = page.evaluate("explorer.about().size")
                worst = max(share(each, 0.95) for each in rounds)
                rows.append(
                    {
                        "recipe": name,
                        "pixels": f"{side['width']}x{side['height']}",
                        "median": f"{statistics.median(x for each in rounds for x in each):.0f} ms",
                        "95 % are within": f"{worst:.0f} ms",
                    }
                )
                print(rows[-1], flush=True)
    return rows


def crowds() -> Rows:
    """Returns how long a page of many things takes to come, and its longest frame while it is used."""
    rows = []
    with TemporaryDirectory() as temporary:
        runs = Path(temporary)
        unpack("digits-vae", runs)
        first = runs / "pretrained-digits-vae"
        many_runs(first)
        many_lines(first, runs / "long")
        many_points(runs)
        with studio(runs) as home, tab(home) as page:
            rows += [
                looked(f"{RUNS:,} runs", page, *wall(page, home)),
                looked(f"a journal of {LINES:,} lines", page, *curves(page, home)),
                looked(f"a map of {POINTS:,} images", page, *plane(page, home)),
            ]
    return rows


def looked(what: str, page: Page, come: Callable[[], object], use: Callable[[], object]) -> dict[str, Any]:
    """Returns a row: what there is, seconds until it is shown at first and again, and frames while it is used."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        come()
        seconds.append(time.perf_counter() - started)
    page.evaluate(FRAMES)
    use()
    frames = page.evaluate("frames_")
    row = {
        "what": what, "shown after": f"{seconds[0]:.1f} s", "again": f"{seconds[1]:.1f} s",
        "95 % of frames": f"{share(frames, 0.95):.0f} ms", "longest frame": f"{max(frames):.0f} ms",
    }  # fmt: skip
    print(row, flush=True)
    return row


def many_runs(first: Path) -> None:
    """Adds runs that share the files of one."""
    for number in range(RUNS):
        folder = first.parent / f"many-{number:04d}"
        folder.mkdir()
        for file in first.iterdir():
            if file.is_file():
                (folder / file.name).hardlink_to(file)


def many_lines(first: Path, folder: Path) -> None:
    """Adds a run with a journal of many lines: a noisy loss that falls, and a test error."""
    folder.mkdir()
    for file in first.iterdir():
        if file.is_file() and file.name != "journal.jsonl":
            (folder / file.name).hardlink_to(file)
    lines = [json.loads(line) for line in (first / "journal.jsonl").read_text("utf-8").splitlines()]
    losses = [line for line in lines if "epoch" in line and any("/" in key for key in line)]
    generator = np.random.default_rng(0)
    with (folder / "journal.jsonl").open("w", encoding="utf-8") as journal:
        for step, noise in enumerate(generator.uniform(0.9, 1.1, LINES).tolist()):
            line = losses[step % len(losses)]
            counters = {"step": step, "epoch": step / 100, "images": 100 * step, "seconds": step * 0.05}
            numbers = {key: value * noise for key, value in line.items() if "/" in key and isinstance(value, float)}
            journal.write(json.dumps(line | counters | numbers) + "\n")


def many_points(runs: Path) -> None:
    """Adds a VAE of as many images, noise beneath a bright square."""
    images = np.random.default_rng(0).integers(0, 60, (POINTS, 28, 28), np.uint8)
    images[:, 7:21, 7:21] += (np.arange(POINTS) % 190).astype(np.uint8)[:, None, None]
    zeuxis.train("mnist-vae-z2", data=images, steps=20, runs=runs, name="points", settings=ALONE, progress=False)


def wall(page: Page, home: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """The wall of runs: typed into, turned over."""

    def come() -> None:
        page.goto(f"{home}/")
        page.get_by_role("article").nth(20).wait_for()

    def use() -> None:
        box = page.get_by_label("Show only runs that mention")
        for text in ("many-07", "many-0", "long", ""):
            box.fill(text)
            page.wait_for_timeout(700)
        for _ in range(3):
            page.mouse.wheel(0, 600)
            page.wait_for_timeout(300)

    return come, use


def curves(page: Page, home: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """The page of the run with a long journal, scrolled and pointed at."""

    def come() -> None:
        page.goto(f"{home}/run/long")
        page.locator("canvas").first.wait_for()

    def use() -> None:
        for i in range(60):
            page.mouse.move(300 + 8 * i, 400 + i)
            page.wait_for_timeout(15)
            if i % 20 == 0:
                page.mouse.wheel(0, 200)

    return come, use


def plane(page: Page, home: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """The plane over the map of many encoded images, dragged in."""
    return lambda: explore(page, home, "points"), lambda: drag(page)


def main() -> None:
    """Reads the command line, measures, and writes the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studio", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", nargs="*", choices=["latency", "crowds"], help="default: both")
    parts = parser.parse_args().part or ["latency", "crowds"]
    for part in parts:
        publish(f"studio-{part}", {"latency": latency, "crowds": crowds}[part]())


if __name__ == "__main__":
    main()
