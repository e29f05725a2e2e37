"""Writes tables of measurements into docs/performance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "publish", "table"]

PAGE = Path(__file__).parents[2] / "docs" / "performance"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns rows as a Markdown table; names of recipes are set as code."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [f"`{row[head]}`" if head == "recipe" else str(row[head]) for head in heads]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def publish(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints a table and writes it to the file that the performance page includes."""
    text = table(rows)
    PAGE.mkdir(parents=True, exist_ok=True)
    (PAGE / f"{name}.md").write_text(text, "utf-8")
    print(f"{name}\n{text}", flush=True)
