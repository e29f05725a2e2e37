"""Sprites: shapes drawn on demand from six known factors, to test which factors a model disentangles.

Each combination of the factors is one image: shape, scale, angle (less than a quarter turn, because a square turned
further looks the same again), position across and down, and colour, on a dark background.

After: L. Matthey, I. Higgins, D. Hassabis and A. Lerchner, dSprites: Disentanglement testing Sprites dataset, 2017.
"""

from __future__ import annotations

import math
from colorsys import hsv_to_rgb

import numpy as np
from PIL import Image, ImageDraw

from zeuxis.data.registry import ANY_SIZE, Collection, require_no_path, source
from zeuxis.recipe import DataOptions

SHAPES = ("square", "ellipse", "heart")
FACTORS = {"shape": len(SHAPES), "scale": 4, "angle": 6, "across": 7, "down": 7, "colour": 5}
# Shapes are drawn at this multiple of the size, and averaged down.
FINER = 4
GROUND = (16, 18, 24)


def outline(shape: str) -> np.ndarray:
    """Returns the corners of a shape around the origin, `(P, 2)`, at most 1 away from it."""
    turn = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    if shape == "square":
        return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / math.sqrt(2)
    if shape == "ellipse":
        return np.stack([np.cos(turn), 0.5 * np.sin(turn)], axis=1)
    across = 16 * np.sin(turn) ** 3
    down = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn))
    return np.stack([across, down - 1], axis=1) / 17


def draw(factors: np.ndarray, side: int) -> Image.Image:
    """Draws the image of one combination of factors, `(6,)` indices in the order of `FACTORS`."""
    indices = dict(zip(FACTORS, factors.tolist(), strict=True))
    share = {name: index / (FACTORS[name] - 1) for name, index in indices.items()}
    turn = indices["angle"] / FACTORS["angle"] * math.pi / 2
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    radius = 0.13 + 0.12 * share["scale"]
    middle = np.array([0.28 + 0.44 * share["across"], 0.28 + 0.44 * share["down"]])
    fine = side * FINER
    corners = (outline(SHAPES[indices["shape"]]) @ rotation.T * radius + middle) * fine
    paint = tuple(round(255 * part) for part in hsv_to_rgb(indices["colour"] / FACTORS["colour"], 0.62, 1.0))
    image = Image.new("RGB", (fine, fine), GROUND)
    ImageDraw.Draw(image).polygon([tuple(corner) for corner in corners.tolist()], fill=paint)
    return image.resize((side, side), Image.Resampling.BOX)


@source(
    "sprites",
    "17,640 shapes drawn from six known factors, to test disentanglement",
    mirrors=False,
    licence="none needed",
    square=True,
)
def sprites(options: DataOptions) -> Collection:
    require_no_path(options)
    table = np.indices(tuple(FACTORS.values())).reshape(len(FACTORS), -1).T
    return Collection(
        fingerprint=f"sprites {FACTORS}",
        names=[" ".join(f"{name} {index}" for name, index in zip(FACTORS, row, strict=True)) for row in table.tolist()],
        channels=3,
        sizes=ANY_SIZE,
        read=lambda i, side: draw(table[i], side),
        labels=table[:, 0],
        classes=list(SHAPES),
        factors=table,
        factor_names=list(FACTORS),
        numbers={name: table[:, i] / (count - 1) for i, (name, count) in enumerate(FACTORS.items())},
    )
