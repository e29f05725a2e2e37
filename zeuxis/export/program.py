"""torch.export: each operation of a model as a program that PyTorch runs without this package.

`torch.export.load("generator.pt2").module()` gives a module; AOTInductor and ExecuTorch take the same file. Loading
such a file is loading code: take it from people you trust.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from zeuxis.export import EXPORTERS, Layout
from zeuxis.export.parts import parts
from zeuxis.files import write_file
from zeuxis.progress import bar
from zeuxis.run import Run

__all__ = ["to_program"]


@EXPORTERS.add("torch")
def to_program(run: Run, folder: Path, layout: Layout) -> list[str]:
    """Writes `generator.pt2` and so on, and says how far each is from the model."""
    lines, selected = [], [*parts(run, layout)]
    batch = torch.export.Dim("batch")
    with bar(f"exporting {run.name}", len(selected)) as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch's, of weights that are on a CPU anyway
        for part in selected:
            shapes = {name: {0: batch} for name in part.inputs}
            with torch.no_grad():
                program = torch.export.export(part.module.eval(), (), dict(part.inputs), dynamic_shapes=shapes)
                larger = {name: torch.cat([tensor, tensor.flip(0)]) for name, tensor in part.inputs.items()}
                difference = (program.module()(**larger) - part.module(**larger)).abs().max().item()
            content = io.BytesIO()  # PyTorch's writer of files aborts the process where the disk is full
            torch.export.save(program, content, extra_files=part.facts)
            write_file(folder / f"{part.name}.pt2", content.getvalue())
            lines.append(f"{part.name}.pt2: largest difference from the model {difference:.1g}")
            advance(1)
    return lines
