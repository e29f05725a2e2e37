"""The script for a machine with a GPU: its parts on a CPU, with tiny budgets, and what counts as a wait in a trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.gpu import SPAN, waits

ROOT = Path(__file__).parents[1]
# What the parts leave behind.
LEFT = (
    "runs/mnist-gan-1/journal.jsonl", "runs/mnist-gan-2/journal.jsonl", "speed.md", "trace-digits-vae.json.gz",
    "memory.md", "data/images/one.png",
)  # fmt: skip


def script(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "benchmarks" / "gpu.sh", *words]
    settings = os.environ | {"PYTHON": sys.executable, "DEVICE": "cpu", "QUICK": "1"} | environment
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif("GPU_SCRIPT" not in os.environ, reason="GPU_SCRIPT=1 runs every part of benchmarks/gpu.sh")
def test_data_is_packed_and_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "data" / "images" / "one.png")
    packed, out = str(tmp_path / "data.tar"), tmp_path / "out"
    process = script("pack", "images", ZEUXIS_DATA=str(tmp_path / "data"), PACKED=packed)
    assert process.returncode == 0, process.stderr
    process = script("all", ZEUXIS_DATA="", PACKED=packed, OUT=str(out))
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    assert "A CPU has nothing to wait for" in process.stdout
    assert "steps  digits-vae\n" in process.stdout, "the state of the gallery's queue"
    assert [path for path in LEFT if not (out / path).is_file()] == []
    assert "digits-gan" in (out / "speed.md").read_text(), "the second part adds to the table of the first"


def test_an_unknown_part_is_said() -> None:
    process = script("capure")
    assert process.returncode == 2
    assert process.stderr == (
        "There is no part 'capure'; the parts are capture speed speed-2 trace memory pair gallery.\n"
    )
    assert "capture" in script().stdout, "without a part, all are listed"


def event(cat: str, name: str, start: float, length: float, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": start, "dur": length, "tid": 1, "args": args}


STEPS = [
    {"ph": "M", "name": "process_name", "pid": 1},
    event("user_annotation", SPAN, 100, 100),
    event("gpu_user_annotation", SPAN, 100, 900),
    event("cuda_runtime", "cudaLaunchKernel", 110, 1, correlation=1),
    event("cpu_op", "aten::item", 120, 2),  # of a tensor on the CPU
    event("cuda_runtime", "cudaMemcpyAsync", 130, 1, correlation=2),
    event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 140, 1, correlation=2),
    event("cuda_runtime", "cudaStreamWaitEvent", 150, 1, correlation=3),
]
AT_THE_END = [
    event("cpu_op", "aten::item", 205, 10),
    event("cuda_runtime", "cudaMemcpyAsync", 206, 1, correlation=4),
    event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 210, 1, correlation=4),
    event("cuda_runtime", "cudaStreamSynchronize", 208, 5, correlation=5),
    event("cuda_runtime", "cudaDeviceSynchronize", 220, 1, correlation=6),
]


def test_waits_outside_the_steps_do_not_count() -> None:
    assert waits(STEPS + AT_THE_END) == {}


def test_waits_inside_the_steps_are_named() -> None:
    inside = [
        event("cpu_op", "aten::item", 160, 10),
        event("cpu_op", "aten::_local_scalar_dense", 161, 8),
        event("cuda_runtime", "cudaMemcpyAsync", 162, 1, correlation=7),
        event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 500, 1, correlation=7),  # the GPU is behind
        event("cuda_runtime", "cudaStreamSynchronize", 164, 5, correlation=8),
        event("cuda_runtime", "cudaEventSynchronize", 180, 1, correlation=9),
        event("cuda_runtime", "cudaDeviceSynchronize", 190, 1, correlation=10),
    ]
    assert waits(STEPS + inside + AT_THE_END) == {
        "cudaMemcpyAsync to the host in aten::item": 1,
        "cudaStreamSynchronize in aten::item": 1,
        "cudaEventSynchronize": 1,
        "cudaDeviceSynchronize": 1,
    }


def test_a_trace_without_the_gpu_is_no_proof() -> None:
    with pytest.raises(ValueError, match="no call to the GPU"):
        waits(STEPS[:3])
