"""Diagrams of networks: a box for each layer, as tall as its resolution, with skip connections as arcs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from zeuxis.figures.registry import figure
from zeuxis.figures.style import INK, LINES, MUTED, heading, new_figure, tile_axes, title
from zeuxis.nets import Network, Row
from zeuxis.nets.layers import ACTIVATIONS, show
from zeuxis.run import Run

__all__ = ["draw_networks"]

BLUE, TERRACOTTA, GREEN, OCHRE, PLUM = LINES
COLOURS = {
    "conv": BLUE, "res": BLUE, "unet": GREEN, "dit": PLUM, "attend": PLUM, "deconv": TERRACOTTA, "up": TERRACOTTA,
    "dense": OCHRE, "embedding": OCHRE,
}  # fmt: skip
# Words that belong to the layer before: they are written beside its box and get none of their own.
BESIDE = ACTIVATIONS | {"bn", "ln", "gn", "dropout", "film", "sigmoid", "softmax", "flatten", "keep"}
# Gap between boxes, and height of a vector's box, in the units of the axes.
GAP, VECTOR = 0.75, 0.7


@dataclass
class Box:
    """A layer, with the words that belong to it."""

    word: str
    shape: tuple[int, ...]
    texts: list[str]
    head: str = ""
    kept: list[str] = field(default_factory=list)
    takes: str = ""

    @property
    def height(self) -> float:
        """Height, which grows with the logarithm of the resolution."""
        return VECTOR if len(self.shape) == 1 else 0.8 + 0.55 * math.log2(max(self.shape[1], 1))

    @property
    def width(self) -> float:
        """Width, which grows with the logarithm of the number of channels."""
        return 0.35 + 0.09 * math.log2(max(self.shape[0], 1))


def boxes(network: Network) -> list[Box]:
    """Returns a network's layers as boxes, its input first."""
    layers = [Box("input", network.input_shape, ["input"])]
    for row in network.rows:
        head, _, text = row.layer.rpartition(": ")
        word = text.split()[0]
        if word in BESIDE and layers[-1].head == head and word != "embedding":
            if word == "keep":
                layers[-1].kept.append(text.split()[1])
            else:
                layers[-1].texts.append(text)
            continue
        box = _box(row, head, word, text)
        layers.insert(0, box) if word == "embedding" else layers.append(box)
    return layers


def _box(row: Row, head: str, word: str, text: str) -> Box:
    takes = text.split()[1] if word in ("cat", "add") else ""
    return Box(word, row.output, [f"head {head}", text] if head else [text], head, takes=takes)


def draw_network(ax: Axes, network: Network) -> None:
    """Draws a network into axes; `length` gives its width in their units."""
    place, arc_starts = 0.0, dict[str, tuple[float, float]]()
    previous: Box | None = None
    fork = 0.0, 0.0
    for box in boxes(network):
        colour = COLOURS.get(box.word, MUTED)
        middle = place + box.width / 2
        if previous is not None and previous.head and box.head != previous.head:
            _draw_arc(ax, fork, (middle, box.height / 2), MUTED)  # all heads start at the end of the trunk
        elif previous is not None and previous.word != "embedding":
            ax.plot([place - GAP, place], [0, 0], color=MUTED, lw=1.0, zorder=0)
        ax.add_patch(
            FancyBboxPatch(
                (place, -box.height / 2), box.width, box.height, boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=colour, edgecolor="none", alpha=0.9 if box.word in COLOURS else 0.45,
            )
        )  # fmt: skip
        ax.text(middle, box.height / 2 + 0.12, show(box.shape), ha="center", va="bottom", fontsize=6.5, color=INK)
        ax.text(
            middle, -box.height / 2 - 0.15, " · ".join(box.texts), ha="center", va="top", rotation=90, fontsize=6.5,
            color=MUTED, parse_math=False,
        )  # fmt: skip
        for name in box.kept:
            arc_starts[name] = (middle, box.height / 2)
        if box.takes:
            _draw_arc(ax, arc_starts[box.takes], (middle, box.height / 2), PLUM)
        if not box.head:
            fork = middle, box.height / 2
        place, previous = place + box.width + GAP, box
    tile_axes(ax)


def _draw_arc(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    """Draws an arrow from the top of one box, above those between, to the top of another."""
    ax.add_patch(
        FancyArrowPatch(
            (start[0], start[1] + 0.5), (end[0], end[1] + 0.5), connectionstyle="arc3,rad=-0.25", arrowstyle="-|>",
            mutation_scale=8, color=colour, lw=1.0, alpha=0.8,
        )
    )  # fmt: skip


def length(network: Network) -> float:
    """Returns the length of a network, in units of the axes."""
    return sum(box.width + GAP for box in boxes(network))


def draw_networks(networks: Mapping[str, Network]) -> Figure:
    """Draws networks below each other, at the same scale."""
    longest = max(length(network) for network in networks.values())
    tallest = {name: max(box.height for box in boxes(network)) for name, network in networks.items()}
    arcs = {name: 1.2 * any(box.takes or box.head for box in boxes(network)) for name, network in networks.items()}
    heights = [tallest[name] + 4.2 + arcs[name] for name in networks]
    scale = 0.36
    fig = new_figure(max(scale * longest + 0.6, 5.0), scale * sum(heights) + 0.4 * len(networks) + 0.6)
    axes = fig.subplots(len(networks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (name, network), height in zip(axes, networks.items(), heights, strict=True):
        draw_network(ax, network)
        total = sum(row.parameters for row in network.rows)
        ax.set_title(f"{name}, {total:,} parameters")
        top = tallest[name] / 2 + 0.6 + (height - tallest[name] - 4.2)
        ax.set_xlim(-0.3, longest)
        ax.set_ylim(top - height, top)
        ax.set_aspect("equal", adjustable="box", anchor="W")
    return fig


def draw_recipe(networks: Mapping[str, Network], name: str) -> Figure:
    """Draws the networks of a recipe that was not trained."""
    fig = draw_networks(networks)
    heading(fig, "Networks", name)
    return fig


@figure(
    "architecture",
    "Networks",
    "A box for each layer or block: its height shows the resolution, its width the channels. Arcs are inputs that skip "
    "layers, and heads beside the first one; those inside a block, such as a U-Net, are not drawn.",
    order=9,
    applies=lambda run: True,
)
def architecture(run: Run) -> Figure:
    fig = draw_networks({name: run.structure.net(name) for name in run.structure.networks})
    title(fig, run, "Networks")
    return fig
