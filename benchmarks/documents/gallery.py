"""Writes the gallery from trained runs: a page for each, with its command, numbers, cost and small pictures.

    python -m benchmarks.documents.gallery runs/mnist-gan-1 runs/mnist-cgan-1
    python -m benchmarks.documents.gallery --queue       # trains what is missing (benchmarks.documents.training_queue)

A newer run of the same recipe replaces its page. The index is written from the numbers of all pages. Notes on what the
pictures show are written by hand, in docs/gallery/notes.toml.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.documents import training_queue
from zeuxis.evaluation import cost, energy_test
from zeuxis.evaluation.evaluate import applicable, evaluate
from zeuxis.evaluation.judge import find_or_train_judge
from zeuxis.evaluation.measure import Value
from zeuxis.figures import kinds
from zeuxis.figures.prior import aggregate_posterior
from zeuxis.figures.registry import save
from zeuxis.figures.side_by_side import side_by_side
from zeuxis.figures.style import sheet, write
from zeuxis.guide import origin_in_words
from zeuxis.recipe import BUDGETS, flat, load_recipe
from zeuxis.run import Run
from zeuxis.training import completed

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
# Figures of a page, in this order, if they apply; and the largest number of them.
SHOWN = (
    "confusion", "large", "pairs", "codes", "classes", "manifold", "reconstructions", "samples", "history", "critic",
    "prior", "arithmetic", "accuracy", "latents", "losses",
)  # fmt: skip
MOST = 5
WIDTHS, COLOURS, LARGEST = (640, 560, 480), 128, 170_000
# Recipes that are compared with another: with its newest run in the same folder.
BESIDE = {
    "flowers-gan-32-z256": "flowers-gan-32-z10",
    "flowers-vae-32-z256": "flowers-vae-32-z3",
    "latent-gan": "mnist-vae-z16",
    "mnist-ae-z3": "mnist-vae-z3",
    "mnist-beta-vae": "mnist-vae-z16",
    "modern-gan-28": "mnist-gan",
    "modern-vae-28": "mnist-vae-z16",
}
SAMPLES = 2000
# Measures of a page: their description and the format of their figures.
NUMBERS = {
    "test_mse": ("test MSE, pixels in 0..1", "{:.5f}"),
    "kl": ("KL divergence, nats an image", "{:.1f}"),
    "sharpness": ("sharpness, of the images'", "{:.2f}"),
    "fid": ("Frechet distance to images", "{:.1f}"),
    "precision": ("precision", "{:.2f}"),
    "recall": ("recall", "{:.2f}"),
    "coverage": ("coverage", "{:.2f}"),
    "label_agreement": ("shows what was asked for", "{:.1%}"),
    "mig": ("mutual information gap", "{:.3f}"),
    "dci_informativeness": ("factors read off the latents", "{:.1%}"),
    "code_agreement": ("the categorical code is the class", "{:.1%}"),
}
# Beginnings of measures that are shown only on a run's page, not in the index.
ASIDE = ("sharpness", "KL", "information", "latents of", "precision", "recall")


def command(run: Run) -> str:
    """Returns the commands that repeat a run: its recipe, with the settings that differ, and what changed later."""
    from zeuxis.models import build_model

    settings = flat(completed(run.recipe).model_dump())
    named = flat(completed(build_model(load_recipe(run.recipe.name), run.classes or None).recipe).model_dump())
    later = {key: new for line in run.changes for key, (_, new) in line["changes"].items()}
    for line in reversed(run.changes):
        settings |= {key: named.get(key) if old is None else old for key, (old, _) in line["changes"].items()}
    words = ["zeuxis train", run.recipe.name]
    if origin := run.environment.get("from_run"):
        words.append(f"--from-run {origin['run']}")
    budget = ""
    for key, value in settings.items():
        if value == named.get(key) or key in ("data.path", "description", "origin", "standard"):
            continue
        if key.removeprefix("training.") in BUDGETS:
            if value is not None:
                budget = f"--{key.removeprefix('training.')} {value:g}"
                words.append(budget)
        else:
            words.append(_set(key, value))
    commands = " ".join(words)
    if later:
        step = run.changes[0]["step"]
        commands += f"    # stopped at step {step:,}\nzeuxis resume {run.name} "
        commands += " ".join([*(_set(key, value) for key, value in later.items()), budget]).rstrip()
    return commands


def _set(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return f"--set {shlex.quote(f'{key}={text}')}"


def measure(run: Run) -> dict[str, str]:
    """Measures a run; returns figures as text, with units or features, by description."""
    figures: dict[str, str] = {}
    tested = [line for line in run.journal if line["step"] <= run.step and "test/error" in line]
    if tested:
        figures["test images named wrongly"] = f"{tested[-1]['test/error']:.2%}"
    for name in run.names_of("information"):
        figures["information about the categorical codes"] = f"{run.last(name):.2f} nats"
    judge = find_or_train_judge(run)
    names = [name for name in NUMBERS if name in applicable(run, judge)]
    measured = evaluate(run, samples=SAMPLES, judge=judge, only=names)
    for name, (words, form) in NUMBERS.items():
        if name in measured["measures"]:
            value = Value(**measured["measures"][name])
            stderr = 0.0 if value.stderr is None else value.stderr
            features = f", by {value.features}" if value.features else ""
            figures[words + features] = form.format(value.value) + (f" ± {form.format(stderr)}" if stderr else "")
    if run.encodes and run.generates and not run.conditional:
        encoded = aggregate_posterior(run, 500)
        match = energy_test(encoded, run.latents(len(encoded)))
        figures["latents of test images against the prior"] = (
            f"energy distance {match.distance:.3f}, p = {match.p_value:.2g}"
        )
    return figures


def shrink(path: Path, target: Path) -> None:
    """Replaces a picture by a narrower one with a palette, small enough for the repository."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    for width in WIDTHS:
        picture.thumbnail((width, 10_000), Image.Resampling.LANCZOS)
        picture.quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size < LARGEST:
            break
    path.unlink()


def write_small(draw: Callable[[], Figure], target: Path) -> None:
    """Writes a figure as a picture small enough for the repository."""
    whole = target.with_name(f"{target.stem}-whole.png")
    write(draw, whole)
    shrink(whole, target)


def write_page(run: Run) -> None:
    """Measures a run and writes its page, its pictures and its numbers."""
    name = run.recipe.name
    folder = GALLERY / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    applicable = {kind.name: kind for kind in kinds() if kind.applies(run)}
    selected = [applicable[figure] for figure in SHOWN if figure in applicable][:MOST]
    for kind in selected:
        shrink(save(kind, run, folder / f"{kind.name}-whole.png"), folder / f"{kind.name}.png")
    pictures = [[kind.name, kind.title, kind.caption] for kind in selected]
    others = sorted(run.path.parent.glob(f"{BESIDE.get(name, 'none')}-[0-9]*"), key=lambda path: path.stat().st_mtime)
    if others:
        write_small(lambda: side_by_side([Run(others[-1]), run]), folder / "beside.png")
        pictures.append(["beside", f"Beside {BESIDE[name]}", "Samples of both from the same seed, not chosen."])
    strip = run.sample(8, seed=1) if run.generates else run.test_images(8)[0]
    Image.fromarray(sheet(strip, 8)).save(folder / "strip.png", optimize=True)
    spent = cost(run)
    numbers = {
        "recipe": name, "model": run.recipe.model.name, "origin": run.recipe.origin,
        "description": run.recipe.description, "command": command(run), "minutes": round(spent.seconds / 60, 1),
        "steps": spent.steps, "shown_step": run.step, "epochs": round(spent.epochs, 1), "images": spent.images,
        "images_per_second": round(spent.images_per_second), "parameters": spent.parameters,
        "peak_memory_mib": spent.peak_memory_mib, "hardware": spent.hardware, "warnings": run.warnings,
        "measures": measure(run), "figures": pictures,
    }  # fmt: skip
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")


def page(numbers: dict[str, Any], note: str) -> str:
    """Returns a run's page from its numbers."""
    name = numbers["recipe"]
    origin = f" ({origin_in_words(numbers['origin'])})" if numbers["origin"] else ""
    best = "" if numbers["shown_step"] == numbers["steps"] else f", shown at its best, step {numbers['shown_step']:,}"
    rows = [
        ("model", f"[{numbers['model']}](../models/{numbers['model']}.md){origin}"),
        ("trained", f"{numbers['minutes']:g} minutes, {numbers['steps']:,} steps, {numbers['epochs']:g} epochs{best}"),
        ("speed", f"{numbers['images_per_second']:,} images a second, with tests and snapshots"),
        ("hardware", numbers["hardware"]),
        ("parameters", f"{numbers['parameters']:,}"),
        ("peak memory", f"{numbers['peak_memory_mib']:,.0f} MiB" if numbers["peak_memory_mib"] else "not recorded"),
        *numbers["measures"].items(),
    ]
    lines = [f"# `{name}`", "", f"{numbers['description']}.", "", "```bash", numbers["command"], "```", ""]
    lines += [f"{note}\n"] if note else []
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows), ""]
    for words in numbers["warnings"]:
        lines += [f"> The monitors said: {words}", ""]
    for kind, title, caption in numbers["figures"]:
        lines += [f"## {title}", "", caption, "", f"![{title} of {name}]({name}/{kind}.png)", ""]
    return "\n".join(lines)


HEAD = """# The gallery

<!-- Written by benchmarks/documents/gallery.py from trained runs. -->

Every recipe trained on the real data, with the command that does it again. Samples are not chosen:
they are the first eight of seed 1, or test images where a model makes none. Trainings ran on {hardware}, for minutes
rather than the hours of the reports, so a picture here says what a recipe reaches *in the time beside it*, not what it
can reach. Distances are in the features of the classifier that is named with them, and compare only within the same
features.

"""


def write_index(notes: dict[str, str]) -> None:
    """Writes all pages and the index from the numbers stored in the gallery."""
    everything = [json.loads(path.read_text("utf-8")) for path in sorted(GALLERY.glob("*/numbers.json"))]
    for numbers in everything:
        text = page(numbers, notes.get(numbers["recipe"], ""))
        (GALLERY / f"{numbers['recipe']}.md").write_text(text, "utf-8")
    *most, last = sorted({numbers["hardware"] for numbers in everything})
    hardware = f"{'; '.join(most)}; or {last}" if most else last
    lines = [HEAD.format(hardware=hardware), "| recipe | | trained | what was measured |\n|---|---|---|---|\n"]
    for numbers in everything:
        name = numbers["recipe"]
        figures = "<br>".join(f"{k}: {v}" for k, v in numbers["measures"].items() if not k.startswith(ASIDE))
        picture = f"![samples of {name}]({name}/strip.png)"
        lines.append(f"| [{name}]({name}.md) | {picture} | {numbers['minutes']:g} min | {figures} |\n")
    lines += ["\n```{toctree}\n:hidden:\n\n", *(f"{numbers['recipe']}\n" for numbers in everything), "```\n"]
    (GALLERY / "index.md").write_text("".join(lines), "utf-8")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="*", help="run folders; without any, only the pages' text and the index; with --queue, recipes"
    )
    parser.add_argument("--queue", action="store_true", help="train what the gallery lacks, one training per core")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="number of trainings at a time")
    parser.add_argument("--pause", action="store_true", help="save and stop the queue's trainings")
    parser.add_argument("--go", choices=["on"], help="continue a paused queue")
    parser.add_argument("--state", action="store_true", help="print the progress of each training")
    arguments = parser.parse_args()
    if arguments.queue:
        return training_queue.Queue(training_queue.home(), arguments.workers, arguments.runs).run()
    if arguments.pause:
        return training_queue.pause(training_queue.home())
    if arguments.go:
        return training_queue.go_on(training_queue.home())
    if arguments.state:
        return print(training_queue.states(training_queue.home()))
    path_of_notes = GALLERY / "notes.toml"
    notes = tomllib.loads(path_of_notes.read_text("utf-8")) if path_of_notes.exists() else {}
    for path in arguments.runs:
        print(path)
        write_page(Run(Path(path)))
    return write_index(notes)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
