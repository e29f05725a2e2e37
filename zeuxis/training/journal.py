"""The journal: one JSON object a line with every recorded number.

A line holds `step`, `epoch`, `images` (seen so far), `seconds` (since the start of training) and the terms
under `PHASE/TERM`, each the mean over the steps since the line before; terms of the held-out images stand
under `test/TERM`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zeuxis.files import write_file

__all__ = ["Journal", "read_journal"]

Line = dict[str, Any]


class Journal:
    """Appends lines; every line is on its way to the disk when `write` returns.

    Args:
        path: the journal file.
        keep: drop the lines after this step, which a killed run wrote after its last checkpoint.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        kept = [line for line in read_journal(path) if line["step"] <= keep] if path.exists() else []
        write_file(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.lines = kept
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Line) -> None:
        """Appends a line."""
        self.lines.append(line)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_journal(path: Path) -> list[Line]:
    """Reads a journal; a last line that was cut, or a damaged one, is passed over."""
    lines = []
    for text in path.read_text("utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines
