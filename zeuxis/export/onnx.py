"""ONNX: one file for each operation of a model, which runs anywhere without PyTorch and without this package.

The graph takes a batch of any size. Pixels are in 0..1, and what scales them to the network's range is in the graph; a
flow's solver is in it too, unrolled for the solver and the number of steps that the run samples with. Each file is then
run by onnxruntime on other inputs and a larger batch, and compared with PyTorch.

The graph is recorded by tracing (`dynamo=False`): an unrolled solver of 24 network calls takes seconds, where
PyTorch's newer exporter takes minutes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from zeuxis.errors import UserError
from zeuxis.export import EXPORTERS, Layout
from zeuxis.export.parts import Part, parts
from zeuxis.files import write_file
from zeuxis.nets.backend import plain
from zeuxis.progress import bar
from zeuxis.run import Run

__all__ = ["OPSET", "to_onnx"]

OPSET = 18
# The largest difference from PyTorch, in pixels of 0..1 or in latents, that rounding explains.
TOLERANCE = 1e-3


@EXPORTERS.add("onnx")
def to_onnx(run: Run, folder: Path, layout: Layout, only: Sequence[str] = ()) -> list[str]:
    """Writes `generator.onnx` and so on, all or only those named, and says how far each is from PyTorch.

    Raises:
        UserError: if the packages are not installed, or if a model does not survive the export.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "Exporting to ONNX needs packages that are not installed: pip install 'zeuxis[onnx]'."
        ) from error
    lines, selected = [], [part for part in parts(run, layout) if not only or part.name in only]
    with bar(f"exporting {run.name}", len(selected)) as advance:
        for part in selected:
            model = onnx.load_from_string(_traced(part))
            onnx.helper.set_model_props(model, part.facts)
            model.producer_name = "zeuxis"
            content = model.SerializeToString()
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            difference = _difference(part, session)
            if not difference <= TOLERANCE:
                raise UserError(
                    f"The {part.name} of {run.path} does not survive the export: onnxruntime and PyTorch differ by up "
                    f"to {difference:.2g}. This is a fault of the exporter; nothing was written."
                )
            path = write_file(folder / f"{part.name}.onnx", content)
            inputs = ", ".join(f"{name} {_shape(tensor)}" for name, tensor in part.inputs.items())
            outputs = ", ".join(f"{out.name} ({', '.join(map(str, out.shape))})" for out in session.get_outputs())
            lines.append(
                f"{path.name}: {inputs} to {outputs}; opset {OPSET}; largest difference from PyTorch {difference:.1g}"
            )
            advance(1)
    return lines


def _traced(part: Part) -> bytes:
    names, content = [*part.inputs, *part.outputs], io.BytesIO()
    # Warnings of the tracer on Python values that it takes as constants; the comparison shows whether they were.
    with plain(), torch.no_grad(), warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            part.module.eval(), tuple(part.inputs.values()), cast(Any, content), dynamo=False, opset_version=OPSET,
            input_names=[*part.inputs], output_names=[*part.outputs],
            dynamic_axes={name: {0: "batch"} for name in names},
        )  # fmt: skip
    return content.getvalue()


def _difference(part: Part, session: Any) -> float:
    """Returns the largest difference between onnxruntime and PyTorch, for twice the batch in another order."""
    inputs = {name: torch.cat([tensor, tensor.flip(0)]) for name, tensor in part.inputs.items()}
    with plain(), torch.no_grad():
        expected = part.module(*inputs.values()).numpy()
    (found,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max())


def _shape(tensor: torch.Tensor) -> str:
    return f"(batch, {', '.join(map(str, tensor.shape[1:]))})"
