"""A web page with the model in it: a folder that any static server shows, and that loads nothing from elsewhere.

The page runs the ONNX graphs (`zeuxis.export.onnx`) with onnxruntime-web, which is fetched once from the npm registry,
at a fixed version and checksum, and copied into the folder.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from zeuxis.data.download import fetch
from zeuxis.errors import UserError
from zeuxis.export import EXPORTERS, Layout
from zeuxis.export.onnx import to_onnx
from zeuxis.export.parts import asked_for
from zeuxis.files import cache_dir, write_file
from zeuxis.models.base import LearnsPrior
from zeuxis.run import Run

__all__ = ["RUNTIME", "runtime", "to_web"]

RUNTIME = "onnxruntime-web-1.22.0.tgz"
_URL = f"https://registry.npmjs.org/onnxruntime-web/-/{RUNTIME}"
_HASH = "sha256:e293551f9d36d003e293d0f2937fee7b3dfdcef76d71d1449b55e2d4157c7aea"
_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@EXPORTERS.add("web")
def to_web(run: Run, folder: Path, layout: Layout) -> list[str]:
    """Writes `index.html`, the graphs of generator and prior, and the runtime.

    Raises:
        UserError: for a model that generates no images, and if the runtime cannot be fetched.
    """
    if not run.generates:
        raise UserError(f"{run.path} generates no images, so there is nothing to show on a page.")
    for name, content in runtime():
        write_file(folder / name, content)
    lines = to_onnx(run, folder, "nhwc", only=("generator", "prior"))
    environment = Environment(
        loader=PackageLoader("zeuxis", "export"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("page.html").render(name=run.recipe.name, facts=_facts(run))
    write_file(folder / "index.html", page)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    return [
        *lines, f"index.html: {size:.0f} MB with the runtime. It must come from a server, such as: "
        "python -m http.server --directory FOLDER, then open http://localhost:8000",
    ]  # fmt: skip


def runtime() -> Iterator[tuple[str, bytes]]:
    """Yields the files of onnxruntime-web and their contents."""
    archive = fetch(_URL, _HASH, cache_dir() / "web" / RUNTIME, instead="--to onnx needs no download.")
    with tarfile.open(archive) as files:
        for name in _FILES:
            member = files.extractfile(f"package/dist/{name}")
            assert member is not None, "the checksum holds, so the file is there"
            yield name, member.read()


def _facts(run: Run) -> dict[str, Any]:
    """Returns what the page must know of the model."""
    channels, height, width = run.recipe.data.shape
    asked = asked_for(run) if run.conditional else {}
    return {
        "latents": run.latent_size, "height": height, "width": width, "channels": channels,
        "classes": asked.get("classes", {}), "numbers": list(asked.get("numbers", {})),
        "learned": isinstance(run.model, LearnsPrior),
        "codes": [{"name": code.name, "start": code.start, "size": code.size} for code in run.codes],
        "description": run.recipe.description,
    }  # fmt: skip
