"""The script for a machine with a GPU: every part of it runs on a CPU, with tiny budgets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each part leaves behind, below its folder.
PARTS = {
    "capture": "runs/mnist-gan-1/journal.jsonl", "speed": "speed.md", "speed-2": "speed.md",
    "trace": "trace-mnist-vae-z2.json.gz", "memory": "memory.md", "pair": "runs/mnist-gan-1/journal.jsonl",
    "gallery": "gallery/runs/digits-vae-1/recipe.toml",
}  # fmt: skip


def script(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "benchmarks" / "gpu.sh", *words]
    settings = os.environ | {"PYTHON": sys.executable, "DEVICE": "cpu", "QUICK": "1"} | environment
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_part_runs_on_a_cpu(part: str, tmp_path: Path) -> None:
    process = script(part, OUT=str(tmp_path))
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    assert (tmp_path / PARTS[part]).stat().st_size


def test_an_unknown_part_is_said() -> None:
    process = script("capure")
    assert process.returncode == 2
    assert process.stderr == (
        "There is no part 'capure'; the parts are capture speed speed-2 trace memory pair gallery.\n"
    )
    assert "capture" in script().stdout, "without a part, all are listed"


def test_data_is_packed_beside_the_script(tmp_path: Path) -> None:
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a-folder" / "image").write_bytes(b"1")
    packed = ROOT / "gpu-data.tar"
    if packed.exists():
        pytest.skip(f"{packed} is there, and would be written over")
    try:
        assert script("pack", "a-folder", ZEUXIS_DATA=str(tmp_path)).returncode == 0
        assert b"a-folder/image" in packed.read_bytes()
    finally:
        packed.unlink(missing_ok=True)
