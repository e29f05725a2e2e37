"""Images as files: a folder that contains only PNGs, for tools that read folders, and a grid of them beside it.

`FOLDER-samples.json`, beside the folder, records which samples it holds: weights, seed, class, options. The same call
keeps the pictures that are there and makes only those that are missing, so it continues after a kill; any other call
starts afresh. A picture is written to a temporary file and renamed, but not synced to the disk one by one: a killed
process leaves no half picture, and one that a power failure left incomplete is found by its missing end and made again.
"""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from zeuxis.data import to_bytes
from zeuxis.errors import UserError
from zeuxis.figures.style import FORMATS, MUTED, PAPER, sheet
from zeuxis.files import (
    WriteError,
    make_folder,
    path_part,
    require_place,
    subfolder,
    sweep,
    write_file,
    write_one_of_many,
)
from zeuxis.progress import bar, say
from zeuxis.run import Run
from zeuxis.threads import threads

__all__ = ["save_images", "save_samples", "whole_rows", "write_zip"]

# In the grid, images are enlarged by a whole number to at least this many pixels a side.
LEGIBLE = 64
# The same in a grid whose rows have names, in letters of this many pixels.
LEGIBLE_BESIDE_NAMES, LETTERS = 128, 14
SMALLEST_LETTERS = 9
# More classes than these are not given a column each.
MOST_COLUMNS = 12
# Without a number of columns, the grid shows the first images, up to this many pixels: about 7,000 small ones.
GRID_PIXELS = 32_000_000
OURS = re.compile(r"\d{4,}\.png")
# The last bytes of every PNG: its closing chunk.
END = b"IEND\xaeB`\x82"
# Threads that encode pictures, and pictures given to one at a time.
WRITERS, SHARE = min(os.cpu_count() or 1, 8), 64


def whole_rows(count: int) -> int:
    """Returns a number of columns that makes the grid about square, and its last row full where it can."""
    root = math.ceil(math.sqrt(count))
    return next((columns for columns in range(root, 2 * root) if count % columns == 0), root)


def save_samples(
    run: Run,
    n: int,
    folder: Path,
    *,
    seed: int = 1,
    label: str | int | None = None,
    scale: float = 1.0,
    per_class: bool = False,
) -> Path:
    """Writes the images of `Run.sample` into a folder that then contains only these, and a grid beside it.

    If an earlier call of the same kind was stopped, only the missing images are made; all come out as they would have.

    Args:
        run: the run.
        n: number of images.
        folder: where to write, created if needed; the grid is `FOLDER-grid.png`.
        seed: of the latents.
        label: the class, for conditional models; None for all classes in turn.
        scale: factor of the latents.
        per_class: whether each class has a folder of its own, `FOLDER/CLASS/0000.png`.

    Returns:
        The path of the grid.

    Raises:
        UserError: as `Run.sample`; for `per_class` without classes; if the folder holds anything else.
    """
    batches = run.samples(n, seed=seed, label=label, scale=scale)
    names = _names(n, _classes_in_turn(run, label) if per_class else [""])
    source = {
        "run": run.name, "weights": run.weights, "step": run.step, "images": n, "seed": seed, "label": label,
        "scale": scale, "options": run.sampling, "per_class": per_class,
    }  # fmt: skip
    number_of_threads = _prepare(folder, names, source)
    for part in sorted({name.parent for name in names} - {Path()}):
        subfolder(folder, part.name)
    with (
        _continued(len(names)),
        # Always as many as at first: the last digits of an image, which may decide a rounding, depend on it.
        threads.fixed(number_of_threads),
        bar("writing images", n) as advance,
        _writers() as write,
    ):
        for number in range(len(batches)):
            paths = [folder / name for name in names[batches.part(number)]]
            missing = [i for i, path in enumerate(paths) if not path.exists()]
            if missing:
                images = batches[number]
                write([paths[i] for i in missing], images[missing])
            advance(len(paths))
    classes = run.model.conditions.classes if run.conditional and label is None else ()
    heads = classes[:n] if 1 < len(classes) <= MOST_COLUMNS else ()
    return _grid([folder / name for name in names], folder, 0, heads=heads)


@contextmanager
def _continued(count: int) -> Iterator[None]:
    """Adds to the message of a failed write that the same call goes on."""
    try:
        yield
    except WriteError as error:
        raise WriteError(
            f"{error} Some of the {count:,} images are written; the same call makes the others."
        ) from error


def save_images(images: np.ndarray, folder: Path, columns: int = 0, rows: Sequence[str] = ()) -> Path:
    """Writes any images into a folder that then contains only these, and a grid beside it, which enlarges small images.

    Args:
        images: `(N, H, W, C)` in 0..1.
        folder: where to write `0000.png`, ..., created if needed; the grid is `FOLDER-grid.png`.
        columns: of the grid; if 0, it is about square, and shows only the first of very many images.
        rows: names of the grid's rows, at its left.

    Returns:
        The path of the grid.

    Raises:
        UserError: if the folder holds anything else, or cannot be written.
    """
    names = _names(len(images), [""])
    _prepare(folder, names, {})
    paths = [folder / name for name in names]
    with _writers() as write:
        write(paths, images)
    return _grid(paths, folder, columns, rows)


def write_zip(folder: Path, target: Path) -> Path:
    """Packs the images of a folder, and of its folders of classes, into a zip file; returns its path.

    Raises:
        UserError: if the file would be inside the folder, which holds only images, or cannot be written.
    """
    if target.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{target} lies in the folder that it would pack; write it elsewhere.")

    def pack(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:  # stored: PNGs are compressed already
            for path in sorted(folder.rglob("*.png")):
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # without a date: same images, same file
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes())

    return write_file(target, pack)


def _classes_in_turn(run: Run, label: str | int | None) -> Sequence[str]:
    classes: Sequence[str] = run.model.conditions.classes if run.conditional else ()
    if not classes or label is not None:
        reason = f"all images are of the class {label}" if classes else "this run generates images of no class"
        raise UserError(f"--per-class makes a folder for each class, and {reason}; drop it.")
    return classes


def _names(count: int, folders: Sequence[str]) -> list[Path]:
    """Returns the names of the images, in folders that take turns."""
    digits = max(len(str(count - 1)), 4)
    parts = [Path(path_part(folder)) if folder else Path() for folder in folders]
    return [parts[i % len(parts)] / f"{i:0{digits}}.png" for i in range(count)]


def _beside(folder: Path, ending: str) -> Path:
    place = folder if folder.name.strip(".") else folder.resolve()
    return place.with_name(f"{place.name}-{ending}")


def _prepare(folder: Path, names: Sequence[Path], source: Mapping[str, Any]) -> int:
    """Leaves in a folder only images of the same source, and records the source.

    Returns:
        The number of threads with which the first of these images were made.
    """
    if folder.suffix.lower() in FORMATS:
        raise UserError(f"Images are written into a folder, and {folder} is named like a picture; drop the ending.")
    make_folder(folder)
    record = require_place(_beside(folder, "samples.json"))
    require_place(_beside(folder, "grid.png"))
    before, made = _read(record), record.is_file()
    number_of_threads = before.pop("threads", 0)
    earlier = _pictures(folder, nested=bool(before.get("per_class")))
    if earlier and not made:
        raise UserError(
            f"{folder} holds files of your own, such as {min(earlier).name}; choose an empty or a new folder."
        )
    sweep(folder)
    if source and before == source and isinstance(number_of_threads, int):
        for path in earlier:
            if not _complete(path):
                path.unlink()
        return max(number_of_threads, 0)
    # An empty record first: images whose source is unknown are never continued.
    write_file(record, "{}\n")
    for path in earlier:
        path.unlink()
    for inner in {path.parent for path in earlier} - {folder}:
        inner.rmdir()
    if leftover := len({path.relative_to(folder) for path in earlier} - set(names)):
        say(f"Removed {leftover:,} images of an earlier call from {folder}.")
    number_of_threads = max(torch.get_num_threads() // 2, 1)  # the other cores encode
    if source:
        write_file(record, json.dumps({**source, "threads": number_of_threads}, indent=1) + "\n")
    return number_of_threads


def _read(record: Path) -> dict[str, Any]:
    """Returns what a record says; nothing where there is none, or a damaged one."""
    try:
        found = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _pictures(folder: Path, *, nested: bool) -> list[Path]:
    """Returns the images of an earlier call; raises a `UserError` if there is anything else."""
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if nested:
        paths = [
            inner for path in paths for inner in (path.iterdir() if path.is_dir() and not path.is_symlink() else [path])
        ]
    if others := sorted(path for path in paths if not OURS.fullmatch(path.name) or path.is_dir()):
        raise UserError(f"{folder} holds other files, such as {others[0].name}; choose an empty or a new folder.")
    return paths


def _complete(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - len(END), 0))
        return file.read() == END


class _Write:
    """Encodes and writes pictures in threads; a few shares wait at most, so that memory is bounded."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool, self.waiting = pool, deque[Future[None]]()

    def __call__(self, paths: Sequence[Path], images: np.ndarray) -> None:
        """Writes `(N, H, W, C)` images in 0..1; a failure is raised by this call or a later one."""
        pixels = to_bytes(images)
        pixels = pixels.squeeze(-1) if pixels.shape[3] == 1 else pixels
        for start in range(0, len(paths), SHARE):
            share = slice(start, start + SHARE)
            self.waiting.append(self.pool.submit(_write_pictures, paths[share], pixels[share]))
        while len(self.waiting) > 4 * WRITERS:
            self.waiting.popleft().result()

    def finish(self) -> None:
        """Waits for all pictures."""
        while self.waiting:
            self.waiting.popleft().result()


@contextmanager
def _writers() -> Iterator[_Write]:
    pool = ThreadPoolExecutor(WRITERS)
    write = _Write(pool)
    try:
        yield write
        write.finish()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_pictures(paths: Sequence[Path], pixels: np.ndarray) -> None:
    for path, picture in zip(paths, pixels, strict=True):
        content = BytesIO()
        Image.fromarray(picture).save(content, "PNG")
        write_one_of_many(path, content.getvalue())


def _grid(
    paths: Sequence[Path], folder: Path, columns: int, rows: Sequence[str] = (), heads: Sequence[str] = ()
) -> Path:
    """Arranges pictures in a grid beside their folder, with names of rows or columns; small ones are enlarged.

    Where names of columns do not fit above them, they are left out. Of very many pictures, the first are shown.
    """
    height, width = _picture(paths[0]).shape[:2]
    zoom = -(-(LEGIBLE_BESIDE_NAMES if rows else LEGIBLE) // min(height, width))
    limit = len(paths) if columns else max(GRID_PIXELS // (zoom**2 * (height + 1) * (width + 1)), 1)
    tiles = np.stack([_picture(path) for path in paths[:limit]])
    enlarged = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    grid = Image.fromarray(sheet(enlarged, columns or len(heads) or whole_rows(len(tiles)), gap=zoom))
    named = _with_names(grid, rows) if rows else _with_heads(grid, heads) if heads else grid
    return write_file(_beside(folder, "grid.png"), named.save)


def _with_names(grid: Image.Image, rows: Sequence[str]) -> Image.Image:
    """Returns a grid with the names of its rows at the left, in the letters of the figures."""
    font = ImageFont.truetype(findfont("DejaVu Sans"), LETTERS)
    margin = round(max(font.getlength(name) for name in rows)) + 2 * LETTERS
    page = Image.new("RGB", (margin + grid.width, grid.height), PAPER)
    page.paste(grid, (margin, 0))
    draw = ImageDraw.Draw(page)
    for i, name in enumerate(rows):
        middle = (i + 0.5) * grid.height / len(rows)
        draw.text((margin - LETTERS, middle), name, fill=MUTED, font=font, anchor="rm")
    return page


def _with_heads(grid: Image.Image, heads: Sequence[str]) -> Image.Image:
    """Returns a grid with the names of its columns above; without, if they would be too small to read."""
    font, column = ImageFont.truetype(findfont("DejaVu Sans"), LETTERS), grid.width / len(heads)
    longest = max(font.getlength(name) for name in heads)
    letters = min(LETTERS, int(LETTERS * 0.95 * column / max(longest, 1)))
    if letters < SMALLEST_LETTERS:
        return grid
    font = font.font_variant(size=letters)
    page = Image.new("RGB", (grid.width, grid.height + 2 * LETTERS), PAPER)
    page.paste(grid, (0, 2 * LETTERS))
    draw = ImageDraw.Draw(page)
    for i, name in enumerate(heads):
        draw.text(((i + 0.5) * column, LETTERS), name, fill=MUTED, font=font, anchor="mm")
    return page


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
