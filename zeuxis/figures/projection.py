"""A projection as files: the latent, the picture beside what was found, and a film of the search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from zeuxis.data import to_bytes
from zeuxis.figures.style import new_figure, sheet, show_tiles, title, write
from zeuxis.files import make_folder, write_file
from zeuxis.latent import Projection
from zeuxis.run import Run

__all__ = ["save_projection"]

# Images are enlarged by a whole number to at least this many pixels a side.
SIDE = 192
# Milliseconds of a frame, and of the last one.
FRAME, LAST = 80, 2000


def save_projection(run: Run, projection: Projection, folder: Path) -> list[Path]:
    """Writes a projection onto a run's latents into a folder, which is made if needed.

    Returns:
        The paths of `projection.png` (the picture, the best start, what was found), `search.webp` (the picture beside
        each step of the search), `latent.npy` and `projection.json` (condition and errors).
    """
    make_folder(folder)
    target = to_bytes(projection.target)
    frames = [_tiles([target, frame]) for frame in projection.film]
    lengths = [FRAME] * (len(frames) - 1) + [LAST]
    names = ("condition", "start_mse", "mse", "start_distance", "distance", "features", "seconds")
    numbers = {name: getattr(projection, name) for name in names} | {
        "condition": projection.label, "latent": projection.latent.tolist(),
    }  # fmt: skip

    def film(path: Path) -> None:
        frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:], duration=lengths, loop=0, lossless=True)

    picture = folder / "projection.png"
    write(lambda: _draw(run, projection), picture)
    return [
        picture,
        write_file(folder / "search.webp", film),
        write_file(folder / "latent.npy", lambda path: np.save(path, projection.latent)),
        write_file(folder / "projection.json", json.dumps(numbers, indent=1)),
    ]


def _draw(run: Run, projection: Projection) -> Figure:
    """Draws the picture, the best start and the image that was found, with their errors."""
    fig = new_figure(6.2, 3.0)
    panels = {
        "picture": projection.target,
        f"best start, MSE {projection.start_mse:.4f}": projection.start,
        f"found, MSE {projection.mse:.4f}": projection.image,
    }
    for ax, (name, image) in zip(fig.subplots(1, len(panels)), panels.items(), strict=True):
        show_tiles(ax, image[None], 1)
        ax.set_title(name, fontsize=9.5)
    of = f" of {projection.label}" if projection.label else ""
    title(fig, run, f"The nearest image{of} that the model makes")
    return fig


def _tiles(images: list[np.ndarray]) -> Image.Image:
    """Returns `(H, W, C)` bytes in a row, enlarged."""
    zoom = -(-SIDE // min(images[0].shape[:2]))
    return Image.fromarray(sheet(np.stack(images).repeat(zoom, axis=1).repeat(zoom, axis=2), len(images), gap=zoom))
