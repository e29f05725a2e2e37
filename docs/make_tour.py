"""Takes the pictures of the studio's page, in Chromium: python docs/make_tour.py

It opens a studio on the pretrained models and on a training that it starts, and ends all of it afterwards.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from zeuxis.evaluation.people import Answer, record
from zeuxis.pretrained import unpack
from zeuxis.run import Run

HERE = Path(__file__).parent / "studio"
TOKEN = "the-token-of-the-tour"
WIDTH = 1000
CGAN, VAE, FLOW = (f"pretrained-digits-{name}" for name in ("cgan", "vae", "flow"))


def keep(page: Page, name: str, height: int, *, dark: bool = False) -> None:
    """Writes what a page shows: a picture of some tens of kilobytes."""
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.set_viewport_size({"width": 1200, "height": height})
    page.wait_for_timeout(1500)
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    small = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    small.save(HERE / f"{name}.webp", quality=80, method=6)


def explore(page: Page, home: str, name: str) -> None:
    page.goto(f"{home}/explore/{name}")
    page.wait_for_function("document.getElementById('explore')?.dataset.ready === 'all'", timeout=120_000)
    page.wait_for_timeout(3000)


def answers(runs: Path) -> None:
    """Answers drawn at random, so that the page of results has something to show."""
    random = np.random.default_rng(0)
    for name, share in ((CGAN, 0.45), (FLOW, 0.5), (VAE, 0.1)):
        step = Run(runs / name).step
        for i in range(80):
            truth: Literal["real", "made"] = "real" if i % 2 else "made"
            said: Literal["real", "made"] = "real" if random.random() < (share if truth == "made" else 0.75) else "made"
            person = "AB"[i // 40]
            line = {"person": person, "session": "tour", "when": "", "seconds": 1.0, "step": step}
            record(runs / name, [Answer(test="single", truth=truth, said=said, **line)])


def tour(page: Page, home: str, runs: Path) -> None:
    page.goto(f"{home}/?token={TOKEN}")
    page.get_by_alt_text(f"Samples of {VAE}").wait_for()
    page.get_by_label(f"Tick {VAE}").check()
    page.get_by_label(f"Tick {FLOW}").check()
    page.wait_for_timeout(8000)
    keep(page, "runs", 860)
    page.goto(f"{home}/train")
    page.get_by_alt_text("A sample of the images").wait_for(timeout=60_000)
    keep(page, "train", 1330)
    page.goto(f"{home}/run/learning")
    page.get_by_role("heading", name="Discriminator accuracy").wait_for(timeout=120_000)
    page.wait_for_timeout(40_000)
    keep(page, "run", 1150)
    explore(page, home, VAE)
    page.get_by_role("button", name="Pin", exact=True).click()
    box = page.locator(".field-of-view canvas").nth(1).bounding_box()
    assert box is not None
    for x, y in ((0.3, 0.3), (0.4, 0.75), (0.75, 0.7)):
        page.mouse.click(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        page.wait_for_timeout(400)
        page.keyboard.press("p")
    keep(page, "explore", 1270)
    explore(page, home, CGAN)
    page.get_by_role("group", name="Class").get_by_role("button", name="3").click()
    page.get_by_role("button", name="Nearest images").click()
    page.wait_for_timeout(6000)
    keep(page, "explore-dark", 980, dark=True)
    page.goto(f"{home}/blind?runs={FLOW}")
    page.get_by_label("Your name").fill("A")
    page.get_by_label("Kind of test").select_option("twin")
    page.get_by_role("button", name="Begin").click()
    page.get_by_alt_text("The left picture").wait_for(timeout=60_000)
    keep(page, "twins", 680)
    page.goto(f"{home}/blind?runs={CGAN}&runs={FLOW}&runs={VAE}")
    page.get_by_role("heading", name="Results").wait_for()
    keep(page, "blind", 1150)
    page.goto(f"{home}/compare?runs={CGAN}&runs={FLOW}&runs={VAE}")
    page.get_by_alt_text(f"Samples of {VAE}").wait_for()
    page.wait_for_timeout(4000)
    keep(page, "compare", 1000)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    zeuxis = [sys.executable, "-m", "zeuxis"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        runs = Path(folder) / "runs"
        for name in ("digits-vae", "digits-cgan", "digits-flow"):
            unpack(name, runs)
        answers(runs)
        learning = ["train", "digits-gan", "--minutes", "6", "--name", "learning", "--runs", str(runs)]
        training = subprocess.Popen([*zeuxis, *learning])
        studio = subprocess.Popen(
            [*zeuxis, "studio", "--no-browser", "--port", "0"], stderr=subprocess.PIPE, cwd=folder,
            encoding="utf-8", env=os.environ | {"ZEUXIS_STUDIO_TOKEN": TOKEN, "ZEUXIS_RUNS": "runs"},
        )  # fmt: skip
        try:
            assert studio.stderr is not None
            found = next(match for line in studio.stderr if (match := re.search(r"(http://127\.0\.0\.1:\d+)/", line)))
            chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            tour(chromium.new_page(), found[1], runs)
        finally:
            for process in (studio, training):
                process.terminate()
                process.wait(30)
