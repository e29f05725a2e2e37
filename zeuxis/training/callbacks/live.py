"""Display of a training in a notebook: one cell output that renews itself, with pictures and curves."""

from __future__ import annotations

import base64
import html
import sys
import time
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zeuxis.training.callbacks.display import Display
from zeuxis.training.journal import Line
from zeuxis.training.snapshots import tiled

if TYPE_CHECKING:
    from zeuxis.training.trainer import Trainer

__all__ = ["LiveDisplay", "in_notebook"]

# Seconds between two versions of the output; least height of the pictures; size of the curves, and points in each.
EVERY, TALL = 1.0, 112
WIDTH, HEIGHT, POINTS = 420, 90, 200
COLOURS = ("#3b6ea5", "#c8553d", "#4c956c", "#8d6a9f")


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows pictures."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


class LiveDisplay(Display):
    """Shows progress, the last snapshot and the curves of the losses."""

    def __init__(self) -> None:
        super().__init__()
        self._live = False
        self._picture = ""
        self._losses: dict[str, list[tuple[float, float]]] = {}

    def begin(self, trainer: Trainer) -> None:
        super().begin(trainer)
        for line in trainer.journal.lines:
            self._note(trainer, line)
        self._notebook: Any = import_module("IPython.display")  # which a notebook has
        self._handle = self._notebook.display(self._notebook.HTML(self._page()), display_id=True)

    def iterated(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        self._tell_budget(now)
        if now - self._last_line > EVERY:
            self._last_line = now
            self._renew()

    def snapshot(self, trainer: Trainer, images: np.ndarray) -> None:
        sheet = Image.fromarray(tiled(images).squeeze())
        times = -(-TALL // sheet.height)
        buffer = BytesIO()
        sheet.resize((sheet.width * times, sheet.height * times), Image.Resampling.NEAREST).save(buffer, "PNG")
        encoded = base64.b64encode(buffer.getvalue()).decode()
        self._picture = f'<img alt="samples at step {trainer.step:,}" src="data:image/png;base64,{encoded}">'

    def logged(self, trainer: Trainer, line: Line) -> None:
        super().logged(trainer, line)
        self._note(trainer, line)

    def end(self, trainer: Trainer) -> None:
        super().end(trainer)
        self._renew()

    def _note(self, trainer: Trainer, line: Line) -> None:
        for name, value in line.items():
            if trainer.journal.roles.get(name) == "loss":
                self._losses.setdefault(name, []).append((line["step"], value))

    def _renew(self) -> None:
        self._handle.update(self._notebook.HTML(self._page()))

    def _page(self) -> str:
        share = self._trainer.progress
        return (
            f"<b>{html.escape(self._trainer.folder.name)}</b> {share:.0%}, {html.escape(self._status(1000))}<br>"
            f'<progress value="{share:.4f}" max="1" style="width:{WIDTH}px"></progress><br>{self._picture}<br>'
            + self._curves()
        )

    def _curves(self) -> str:
        """Returns the curves of all losses, each scaled to its own range, as SVG."""
        drawn, names = [], []
        for colour, (name, points) in zip(COLOURS, self._losses.items(), strict=False):
            x, y = np.array(points[:: max(len(points) // POINTS, 1)]).T
            x = (x - x[0]) / max(x[-1] - x[0], 1) * WIDTH
            y = HEIGHT - 4 - (y - y.min()) / (np.ptp(y) or 1) * (HEIGHT - 8)
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
            drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            names.append(f'<span style="color:{colour}">{html.escape(name)} {points[-1][1]:.4g}</span>')
        if not drawn:
            return ""
        box = f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="losses">{"".join(drawn)}</svg>'
        return f"{box}<br>{' &nbsp; '.join(names)}"
