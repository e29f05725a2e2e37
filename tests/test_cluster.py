"""Trainings on a Ray cluster: the same runs as on this machine, whatever dies on the way."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import psutil
import pytest
from test_jobs import part, same, until

from zeuxis import cluster
from zeuxis.errors import UserError
from zeuxis.files import is_locked
from zeuxis.run import Run
from zeuxis.study import Axis, sweep, train_all
from zeuxis.training import checkpoints

COSTS = ("training_seconds", "images_per_second", "peak_memory_mib", "sample_ms")
pytestmark = pytest.mark.usefixtures("short_reports")


def test_without_ray_a_sentence_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--on ray needs Ray: pip install 'zeuxis\[ray\]'"):
        train_all([part("one")], tmp_path, on="ray")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["nonsense", "host:port", ":6379", "ray://host"])
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(UserError, match="is not the address of a Ray cluster; write --on ray:HOST:PORT"):
        cluster._require_listening(address)


def test_an_address_where_nothing_answers_is_told_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(
        UserError, match=f"The Ray cluster at 127.0.0.1:{port} cannot be reached: nothing answers there"
    ):
        cluster._require_listening(f"127.0.0.1:{port}")
    assert time.monotonic() - began < cluster.REACHED + 1


@pytest.mark.parametrize(
    ("machines", "jobs", "total", "shares"),
    [
        ([(8, 0), (8, 0)], None, 40, (16, 1, 0)),
        ([(8, 0), (8, 0)], None, 4, (4, 4, 0)),
        ([(8, 0), (4, 0)], 3, 40, (3, 4, 0)),
        ([(8, 0), (4, 0)], 99, 40, (12, 1, 0)),
        ([(16, 2), (16, 2)], None, 40, (4, 8, 1)),
        ([(16, 2), (16, 2)], 6, 40, (6, 5, 0.5)),
        ([(0, 0), (2, 0)], None, 1, (1, 2, 0)),
    ],
)
def test_cores_and_gpus_are_shared_out(
    machines: list[tuple[int, int]], jobs: int | None, total: int, shares: tuple[int, int, float]
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": float(cores), "GPU": float(gpus)}} for cores, gpus in machines]
    gone = {"Alive": False, "Resources": {"CPU": 64.0}}
    ray = MagicMock(nodes=lambda: [*nodes, gone])
    shared = cluster.Cluster(ray, jobs, total)
    assert (shared.jobs, shared.cores, shared.gpus) == shares


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray cluster of two nodes on this machine, with one core each, that listens on the loopback address."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**cluster.QUIET, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}.items():
            patch.setenv(name, value)
        pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        node: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1"}
        try:
            nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
            nodes.add_node(**node)
        except Exception as error:  # noqa: BLE001 - Ray gives up where a busy machine starts its processes too slowly
            pytest.skip(f"a Ray cluster did not start on this machine: {error}")
        yield nodes.address
        nodes.shutdown()


def killed(kind: str, folder: Path) -> threading.Thread:
    """Kills what trains a run once it has a checkpoint: its process, or the Ray worker that started this process."""

    def kill() -> None:
        until(lambda: checkpoints(folder / "checkpoints"))
        (process,) = [process for process in psutil.process_iter() if _trains(process, folder)]
        (process if kind == "process" else process.parent()).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def _trains(process: psutil.Process, folder: Path) -> bool:
    try:
        return "zeuxis.study.worker" in process.cmdline() and any(
            Path(file.path).is_relative_to(folder) for file in process.open_files()
        )
    except psutil.Error:
        return False


@pytest.mark.slow
def test_a_sweep_on_a_cluster_is_that_on_this_machine(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = part("any").recipe
    axes = [Axis("training.seed", (1, 2, 3))]
    here = sweep(recipe, axes, tmp_path / "here", samples=100, progress=False)
    there = sweep(recipe, axes, tmp_path / "there", samples=100, on=f"ray:{address}")
    names = [f"seed={seed}" for seed in (1, 2, 3)]
    assert all(same(Run(tmp_path / "here" / name), Run(tmp_path / "there" / name)) for name in names)
    assert measured_in(tmp_path / "here") == measured_in(tmp_path / "there")
    assert here.table.labels == there.table.labels == tuple(names)
    said = capsys.readouterr().err
    assert all(f"{name}  100%" in said for name in names), "what the processes say reaches the command"
    assert "ray" not in said.lower().replace(address, ""), "and nothing of Ray's"
    before = [(tmp_path / "there" / name / "journal.jsonl").stat().st_mtime_ns for name in names]
    sweep(recipe, axes, tmp_path / "there", samples=100, on=f"ray:{address}", progress=False)
    assert before == [(tmp_path / "there" / name / "journal.jsonl").stat().st_mtime_ns for name in names]


def measured_in(folder: Path) -> list[dict[str, Any]]:
    """What a sweep measured, without times and memory."""
    rows = json.loads((folder / "sweep.json").read_text("utf-8"))
    for row in rows:
        row["measures"] = {name: value for name, value in row["measures"].items() if name not in COSTS}
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["process", "worker"])
def test_what_dies_goes_on(kind: str, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = part("one", steps=60)
    expected = train_all([long], tmp_path / "here", progress=False)["one"]
    killer = killed(kind, tmp_path / "there" / "one")
    run = train_all([long, part("two")], tmp_path / "there", on=f"ray:{address}", progress=False)["one"]
    killer.join()
    printed, said = capsys.readouterr()
    assert not printed, "nothing of Ray's"
    assert said.count("It is started once more, from its last checkpoint.") == said.count("one: its") == 1
    assert ("SIGKILL" if kind == "process" else "its Ray worker has died") in said
    assert same(run, expected), "as if it had never been killed"
    steps = [line["step"] for line in run.journal]
    assert steps == sorted(set(steps)), "nothing is trained twice"


@pytest.mark.slow
def test_ctrl_c_saves_the_trainings_of_a_cluster(address: str, tmp_path: Path) -> None:
    words = [
        "sweep", "digits-vae", "--over", "training.seed=1,2,3", "--steps", "1000000", "--set", "training.log_every=1",
        "--set", "training.test_every=never", "--on", f"ray:{address}", "--out", str(tmp_path),
    ]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "zeuxis", *words], stderr=subprocess.PIPE, text=True)
    folders = [tmp_path / f"seed={seed}" for seed in (1, 2)]  # the third waits for a core
    until(lambda: all((folder / "journal.jsonl").exists() and Run(folder).journal for folder in folders))
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 130
    assert f"Run the same command again to continue with the runs in {tmp_path}." in said
    assert "Traceback" not in said
    for folder in folders:
        assert not is_locked(folder)
        assert checkpoints(folder / "checkpoints") and Run(folder).step == Run(folder).journal[-1]["step"]
    assert not (tmp_path / "seed=3").exists()


@pytest.mark.slow
def test_a_server_that_is_not_ray_is_given_up(tmp_path: Path) -> None:
    if find_spec("ray") is None:  # not imported here, as the cluster sets its environment first
        pytest.skip("could not import 'ray'")
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        words = ["sweep", "digits-vae", "--over", "training.seed=1,2", "--on", f"ray:{place}", "--out", str(tmp_path)]
        ended = subprocess.run([sys.executable, "-m", "zeuxis", *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and f"The Ray cluster at {place} cannot be reached" in ended.stderr
    assert "Traceback" not in ended.stderr and time.monotonic() - began < cluster.CONNECTED + 30
