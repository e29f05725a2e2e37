"""Common style of all figures: palette, layout of tiles, titles."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import Any, BinaryIO, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from zeuxis.data import to_bytes
from zeuxis.errors import UserError
from zeuxis.files import write_file
from zeuxis.progress import warn
from zeuxis.run import Run

__all__ = [
    "CLASSES",
    "INK",
    "LINES",
    "MUTED",
    "PAPER",
    "STYLE",
    "choose_attribute",
    "filled",
    "fitting",
    "heading",
    "logarithmic",
    "mark_changes",
    "new_figure",
    "on_checks",
    "sheet",
    "show_tiles",
    "tile_axes",
    "title",
    "write",
]

INK, MUTED, RULE, PAPER = "#1f2933", "#6b7785", "#d9dee4", "#ffffff"
# Blue, terracotta, green, ochre, plum: distinguishable in grey and by most colour-blind readers.
LINES = ("#2f6690", "#d1603d", "#4c956c", "#d9a441", "#7d5ba6")
# Ten hues of equal weight for classes; with more classes they repeat.
CLASSES = (
    "#2f6690", "#d1603d", "#4c956c", "#d9a441", "#7d5ba6",
    "#c1447e", "#35a7a0", "#8c6d46", "#9aa53c", "#6b7785",
)  # fmt: skip

STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names may hold a $
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eef1f4",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType, as journals ask for
}

# Fonts with the letters of most languages, by system: a free one, then those of Windows and macOS.
FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "WenQuanYi Zen Hei", "Noto Sans Arabic",
    "Noto Sans Devanagari", "Noto Sans Thai", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI", "Tahoma",
    "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS",
)  # fmt: skip

# Grey values of the two squares of a checkerboard behind transparent images.
CHECKS = (255, 229)
FORMATS = (".png", ".svg", ".pdf", ".jpg")
# Characters of a line above a column of images, which are about 0.78 inches wide.
HEAD = 9
# Inches above the axes for the two lines of a title.
HEADING = 0.58


class Drawing(Figure):
    """A figure that a notebook shows, whether or not it has loaded pyplot, which shows figures otherwise."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        with mpl.rc_context(STYLE):
            self.savefig(buffer, bbox_inches="tight")
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of a size in inches, with a layout that avoids overlaps."""
    return Drawing(figsize=(width, height), layout="constrained")


def title(fig: Figure, run: Run, text: str) -> None:
    """Adds a title to a figure, and a line with recipe, data, step and seed."""
    data = run.recipe.data
    source = f"{run.recipe.name} on {Path(data.path).stem or data.source}"
    heading(fig, text, f"{source}, step {run.step:,}, seed {run.recipe.training.seed}")


def mark_changes(ax: Axes, run: Run) -> None:
    """Marks on axes over steps where settings changed as the run was resumed: a thin line with what they became."""
    for line in run.changes:
        ax.axvline(line["step"], color=MUTED, lw=0.8, ls=(0, (4, 3)))
        words = [f"{_setting(key)} {_brief(new)}" for key, (_, new) in line["changes"].items()]
        text = _as_many_as_fit(words)
        ax.annotate(
            text, (line["step"], 0.98), xycoords=("data", "axes fraction"), xytext=(3, 0), textcoords="offset points",
            rotation=90, ha="left", va="top", fontsize=7.5, color=MUTED, parse_math=False,
            bbox={"facecolor": PAPER, "alpha": 0.75, "linewidth": 0, "pad": 0.5},
        )  # fmt: skip


def _as_many_as_fit(words: Sequence[str], characters: int = 40) -> str:
    """Returns the first two of some words, or one of them, and how many more there are; the lowest axes are so high."""
    for count in (2, 1):
        more = f" and {len(words) - count} more" if len(words) > count else ""
        text = ", ".join(words[:count]) + more
        if len(text) <= characters:
            return text
    return fitting(words[0], characters - len(more)) + more


def _setting(key: str) -> str:
    """Returns what a key sets: of `training.schedule.name` the schedule, of `training.ema` the ema."""
    return key.removesuffix(".name").rpartition(".")[2].replace("_", " ")


def _brief(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    text = " ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)
    return text if len(text) <= 24 else f"{text[:23]}…"


def fitting(name: str, characters: int, lines: int = 1) -> str:
    """Returns a name in lines of at most so many characters; what does not fit ends in an ellipsis."""
    parts = wrap(name, characters, max_lines=lines, placeholder="…", break_long_words=lines > 1) or [name]
    parts = parts if parts != ["…"] else [name]  # one long word
    return "\n".join(part if len(part) <= characters else f"{part[: characters - 1]}…" for part in parts)


def heading(fig: Figure, text: str, subtitle: str) -> None:
    """Adds a title of two lines above all axes."""
    height = fig.get_figheight()
    fig.get_layout_engine().set(rect=(0, 0, 1, 1 - HEADING / height))  # type: ignore[union-attr, call-arg]
    fig.text(0.01, 1 - 0.08 / height, text, ha="left", va="top", fontsize=13, fontweight="bold", color=INK)
    fig.text(0.01, 1 - 0.33 / height, subtitle, ha="left", va="top", fontsize=9.5, color=MUTED)


def logarithmic(ax: Axes, *names: Literal["x", "y"], ticks: Sequence[float] = (1, 2, 5)) -> None:
    """Makes axes logarithmic, with plain numbers at these multiples of powers of ten."""
    for name in names:
        axis = ax.xaxis if name == "x" else ax.yaxis
        ax.set(**{f"{name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=ticks))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def write(draw: Callable[[], Figure], target: Path | BinaryIO) -> None:
    """Draws a figure in this style and writes it as PNG, or in the format of the path's suffix."""
    if isinstance(target, Path) and target.suffix.lower() not in FORMATS:
        raise UserError(f"{target} cannot be drawn: its name must end in one of {', '.join(FORMATS)}.")
    with mpl.rc_context(STYLE | {"font.family": ["sans-serif", *_fallbacks()]}), _boxes_told():
        fig = draw()
        save = partial(fig.savefig, dpi=160, bbox_inches="tight", pad_inches=0.15)
        if isinstance(target, Path):
            write_file(target, save)
        else:
            save(target)


@cache
def _fallbacks() -> tuple[str, ...]:
    """Returns the fonts of this machine that have letters which matplotlib's own lacks."""
    known = set(font_manager.get_font_names())
    return tuple(name for name in FALLBACKS if name in known)


@contextmanager
def _boxes_told() -> Iterator[None]:
    """Says once, in words, that letters are drawn as boxes, in place of a warning for each letter."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        if "missing from" in str(warning.message):
            _tell_of_boxes()
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@cache
def _tell_of_boxes() -> None:
    warn("Some letters are drawn as boxes: no font of this machine has them. Noto Sans CJK, for example, has many.")


def choose_attribute(run: Run, *preferred: str) -> str:
    """Returns the first preferred attribute that the data has, else its first attribute; there must be one."""
    return next((name for name in preferred if name in run.attributes), run.attributes[0])


def filled(images: np.ndarray, count: int) -> np.ndarray:
    """Returns `(count, H, W, C)`: the images `(N, H, W, C)`, of which `count` at most, and white ones."""
    return np.concatenate([images[:count], np.ones((max(count - len(images), 0), *images.shape[1:]), images.dtype)])


def sheet(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Arranges `(N, H, W, C)` images in rows on white, transparent ones over a checkerboard.

    Returns:
        `(rows * (H + gap) - gap, columns * (W + gap) - gap, 3)` bytes.
    """
    tiles = on_checks(to_bytes(images))
    tiles = np.repeat(tiles, 3, axis=3) if tiles.shape[3] == 1 else tiles
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    padded = np.full((rows * columns, height + gap, width + gap, 3), 255, np.uint8)
    padded[:count, :height, :width] = tiles
    grid = padded.reshape(rows, columns, height + gap, width + gap, 3).swapaxes(1, 2)
    return grid.reshape(rows * (height + gap), columns * (width + gap), 3)[
        : rows * (height + gap) - gap, : columns * (width + gap) - gap
    ]


def on_checks(images: np.ndarray) -> np.ndarray:
    """Places `(N, H, W, 4)` bytes on a light checkerboard, `(N, H, W, 3)`; returns other images unchanged."""
    if images.shape[3] != 4:
        return images
    height, width = images.shape[1:3]
    check = max(min(height, width) // 8, 1)
    rows, columns = np.arange(height) // check, np.arange(width) // check
    ground = np.where((rows[:, None] + columns) % 2, *CHECKS)[..., None]
    share = images[..., 3:] / 255
    placed: np.ndarray = np.round(images[..., :3] * share + ground * (1 - share)).astype(np.uint8)
    return placed


def tile_axes(ax: Axes) -> None:
    """Removes ticks, spines and grid from axes that show images."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def show_tiles(
    ax: Axes, images: np.ndarray, columns: int, *, rows: Sequence[str] = (), heads: Sequence[str] = (), gap: int = 1
) -> None:
    """Shows images in rows, with optional labels of rows and columns, which are wrapped and shortened to fit."""
    height, width = images.shape[1:3]
    ax.imshow(sheet(images, columns, gap), interpolation="nearest" if height <= 64 else "antialiased", aspect="equal")
    tile_axes(ax)
    if rows:
        ax.set_yticks(
            [(height + gap) * i + height / 2 for i in range(len(rows))],
            labels=[fitting(n, 22, 2) for n in rows],
            parse_math=False,
        )
        ax.tick_params(axis="y", length=0)
    if heads:
        ax.xaxis.tick_top()
        ax.set_xticks(
            [(width + gap) * i + width / 2 for i in range(len(heads))],
            labels=[fitting(n, HEAD, 3) for n in heads],
            parse_math=False,
        )
        ax.tick_params(axis="x", length=0)
