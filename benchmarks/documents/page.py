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


def publish(name: str, rows: Sequence[dict[str, Any]], folder: Path = PAGE) -> None:
    """Prints a table and writes it to a file, by default to the one that the performance page includes."""
    text = table(rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, "utf-8")
    print(f"{name}\n{text}", flush=True)
