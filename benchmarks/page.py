"""What the measurements write into docs/performance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.gallery import shrink
from zeuxis.figures.style import write

__all__ = ["PAGE", "picture", "table"]

PAGE = Path(__file__).parents[1] / "docs" / "performance"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown; a recipe's name is set as one."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [f"`{row[head]}`" if head == "recipe" else str(row[head]) for head in heads]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(draw: Callable[[], Figure], name: str) -> None:
    """Writes a figure of the page, small."""
    whole = PAGE / f"{name}-whole.png"
    write(draw, whole)
    shrink(whole, PAGE / f"{name}.png")
    whole.unlink()
