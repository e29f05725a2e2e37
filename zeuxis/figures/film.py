"""Films: on the way through latents or classes, and of a training.

The suffix of the file sets the format: Pillow writes `.gif` and `.webp`, the ffmpeg of imageio-ffmpeg `.mp4` (H.264).
GIFs have 256 colours and times in hundredths of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from zeuxis.data import to_bytes
from zeuxis.errors import UserError, require_within
from zeuxis.figures.export import whole_rows
from zeuxis.figures.style import INK, LINES, MUTED, PAPER, sheet
from zeuxis.files import require_output, write_file
from zeuxis.progress import bar
from zeuxis.run import Run

__all__ = ["journey_film", "training_film", "write_film"]

# Images are enlarged by a whole number to about this many pixels a side; a sheet of several, to the second.
SIDE, SHEET = 256, 512
# Most places of a journey, and frames per second.
MOST_PLACES, MOST_FPS = 100, 60
# Seconds for which the end of a training stays.
HOLD = 2
# Height of the caption, of the bar in it, and its margin at the sides, in pixels.
CAPTION, BAR, MARGIN = 40, 4, 8


def journey_film(
    run: Run, places: Sequence[str], path: Path, *, steps: int = 48, fps: int = 24, seed: int = 1, progress: bool = True
) -> Path:
    """Films the way from place to place and back to the first, in equal steps.

    Args:
        run: the run.
        places: at least two classes for conditional models, else latents, each as in `Run.interpolate`.
        path: where to write.
        steps: frames from one place to the next.
        fps: frames per second.
        seed: of the one latent that all frames share, for conditional models.
        progress: show a progress bar.

    Returns:
        The path.

    Raises:
        UserError: as in `Run.interpolate`, and for a format that cannot be written.
    """
    require_within("The number of places on the way", len(places), 2, MOST_PLACES)
    legs = list(pairwise([*places, places[0]]))

    def frames() -> Iterator[np.ndarray]:
        for start, end in legs:
            images = to_bytes(run.interpolate(start, end, steps=steps + 1, seed=seed)[:-1])
            zoom = max(round(SIDE / max(images.shape[1:3])), 1)
            yield from (sheet(image[None], 1).repeat(zoom, axis=0).repeat(zoom, axis=1) for image in images)

    return write_film(frames(), len(legs) * steps, path, fps=fps, progress=progress)


def training_film(run: Run, path: Path, *, fps: int = 12, progress: bool = True) -> Path:
    """Films how the samples of fixed latents changed during a training: a frame for each snapshot.

    Args:
        run: the run.
        path: where to write.
        fps: snapshots per second.
        progress: show a progress bar.

    Returns:
        The path.

    Raises:
        UserError: if the run has fewer than two snapshots, and for a format that cannot be written.
    """
    snapshots = run.snapshots
    if len(snapshots) < 2:
        raise UserError(
            f"{run.path} has {len(snapshots)} snapshots, and a film of a training needs at least two; "
            "the recipe's key training.snapshot_every sets how often one is saved."
        )
    last = snapshots[-1][0]

    def frames() -> Iterator[np.ndarray]:
        for step, tiles in chain(snapshots, repeat(snapshots[-1], HOLD * fps)):
            grid = sheet(tiles, whole_rows(len(tiles)))
            zoom = max(round(SHEET / max(grid.shape)), 1)
            yield _captioned(grid.repeat(zoom, axis=0).repeat(zoom, axis=1), run.name, step, last)

    return write_film(frames(), len(snapshots) + HOLD * fps, path, fps=fps, progress=progress)


def write_film(frames: Iterable[np.ndarray], count: int, path: Path, *, fps: int, progress: bool = True) -> Path:
    """Writes a film, which repeats for ever where the format says so.

    Args:
        frames: `(H, W, 3)` bytes each, all of one size.
        count: number of frames, for the progress bar.
        path: the file; its suffix sets the format.
        fps: frames per second.
        progress: show a progress bar.

    Returns:
        The path.

    Raises:
        UserError: for another format, a frame rate out of range, or if imageio-ffmpeg is needed and missing.
    """
    require_within("The number of frames per second", fps, 1, MOST_FPS)
    writer = FORMATS.get(path.suffix.lower())
    if writer is None:
        raise UserError(f"{path} cannot be written: the name of a film ends in one of {', '.join(FORMATS)}.")
    require_output(path)
    with bar(f"filming {path.name}", count, visible=progress) as advance:

        def counted() -> Iterator[np.ndarray]:
            for frame in frames:
                yield frame
                advance(1)

        return write_file(path, lambda temporary: writer(counted(), temporary, fps))


def _gif(frames: Iterator[np.ndarray], path: Path, fps: int) -> None:
    _animate(frames, path, duration=max(round(100 / fps), 2) * 10, optimize=False)


def _webp(frames: Iterator[np.ndarray], path: Path, fps: int) -> None:
    _animate(frames, path, duration=round(1000 / fps), quality=90)


def _animate(frames: Iterator[np.ndarray], path: Path, **options: Any) -> None:
    pictures = map(Image.fromarray, frames)
    next(pictures).save(path, save_all=True, append_images=pictures, loop=0, **options)


def _mp4(frames: Iterator[np.ndarray], path: Path, fps: int) -> None:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UserError("An .mp4 film needs imageio-ffmpeg: pip install 'zeuxis[film]'; or write a .gif.") from error
    # Colours at half the resolution, as every player expects, need even sides.
    even = (np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), "edge") for frame in frames)
    first = next(even)
    quality = ["-crf", "16", "-preset", "medium", "-movflags", "+faststart"]
    writer = imageio_ffmpeg.write_frames(
        str(path), (first.shape[1], first.shape[0]), fps=fps, codec="libx264", quality=None, macro_block_size=1,
        ffmpeg_log_level="error", output_params=quality,
    )  # fmt: skip
    writer.send(None)
    try:
        for frame in chain([first], even):
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()


FORMATS: dict[str, Callable[[Iterator[np.ndarray], Path, int], None]] = {".gif": _gif, ".webp": _webp, ".mp4": _mp4}


def _captioned(pixels: np.ndarray, name: str, step: int, last: int) -> np.ndarray:
    """Returns a frame with a name, a step and how far the training is, below the pixels."""
    height, width, _ = pixels.shape
    picture = Image.new("RGB", (width, height + CAPTION), PAPER)
    picture.paste(Image.fromarray(pixels))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.truetype(findfont("DejaVu Sans"), 15)
    baseline = height + CAPTION - 10
    draw.rectangle((0, height + 6, round((width - 1) * step / max(last, 1)), height + 5 + BAR), LINES[0])
    number = f"step {step:,}"
    draw.text((width - MARGIN, baseline), number, MUTED, font, "rs")
    room = width - 2 * MARGIN - draw.textlength(f"{number}   ", font)
    while draw.textlength(name, font) > room and len(name) > 1:
        name = f"{name.removesuffix('…')[:-1]}…"
    draw.text((MARGIN, baseline), name, INK, font, "ls")
    return np.asarray(picture)
