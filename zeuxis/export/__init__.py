"""Export: a trained model in formats that other programs read.

`zeuxis.export.EXPORTERS` holds the formats by name. Each is a function from a run to files in a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zeuxis.arguments import checked
from zeuxis.errors import UserError
from zeuxis.registry import Registry

if TYPE_CHECKING:
    from zeuxis.run import Run

__all__ = ["EXPORTERS", "Exporter", "Layout", "export", "export_folder"]

# The order of an image's axes: height, width, channels, as in files and arrays; or channels first, as in networks.
Layout = Literal["nhwc", "nchw"]
# Writes a run into a folder, and returns lines that say what was written.
Exporter = Callable[["Run", Path, Layout], list[str]]

# Formats in which a layout of images is fixed.
GRAPHS = ("onnx", "torch")

EXPORTERS: Registry[Exporter] = Registry("export format", "zeuxis.export")


@checked
def export(run: Run, to: str = "onnx", out: str | Path | None = None, *, layout: Layout = "nhwc") -> list[str]:
    """Writes a run in another format, into a folder that appears with all its files at once.

    Args:
        run: the run; the weights of its best checkpoint are exported.
        to: the format, a name in `EXPORTERS`.
        out: the folder; by default `exports/FORMAT` in the run's folder. It must not exist, or be of an earlier export.
        layout: the order of an image's axes.

    Returns:
        Lines that say what was written and how well it was checked.

    Raises:
        UserError: for an unknown format, a missing package, a folder that holds other things, or a model that the
            format cannot hold.
    """
    from zeuxis.export.place import replaced

    exporter = EXPORTERS[to]
    if layout != "nhwc" and to not in GRAPHS:
        raise UserError(f"--layout {layout} is of no use to {to}, which holds weights; drop it.")
    with replaced(Path(out) if out else export_folder(run, to)) as folder:
        return exporter(run, folder, layout)


def export_folder(run: Run, to: str) -> Path:
    """Returns the folder inside a run for an export of this format.

    Raises:
        UserError: for an unknown format, and if the run's `exports` is a link that leads out of it.
    """
    from zeuxis.files import require_inside

    _ = EXPORTERS[to]
    return require_inside(run.path, run.path / "exports") / to
