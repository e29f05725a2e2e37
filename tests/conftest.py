"""What all tests share: no network, no data but their own, and small trained runs made once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

# The tests run side by side on few cores; more threads each would only wait for one another. Set before NumPy's
# libraries read it, and for the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import loopback_only
import pytest
import torch

import zeuxis
from zeuxis.report import html
from zeuxis.run import Run

# Real data, where a person has some: only tests marked `data` see it.
DATA = os.environ.get("ZEUXIS_DATA", "")

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Empty folders for data and cache, and an environment in which the processes of tests stay offline as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEUXIS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("ZEUXIS_STATE", str(tmp_path_factory.mktemp("state")))
        patch.setenv("ZEUXIS_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("PYTHONPATH", str(Path(loopback_only.__file__).parent), prepend=os.pathsep)
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)  # a proxy on this machine would lead beyond it
        # A shell's background jobs ignore Ctrl-C, as would the processes of tests, which are interrupted.
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose `extra` marker names a module that is missing, or whose `data` marker names missing images."""
    for marker in item.iter_markers("extra"):
        for name in marker.args:
            pytest.importorskip(name)
    for marker in item.iter_markers("data"):
        for name in marker.args:
            if not DATA:
                pytest.skip(f"{name} is needed, and no data directory is set (ZEUXIS_DATA)")
            if not (Path(DATA) / name).exists():
                pytest.skip(f"{name} is not in the data directory {DATA}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Shows the real data to a test that is marked `data`."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("data"):
            patch.setenv("ZEUXIS_DATA", DATA)
        return (yield)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A VAE, a GAN and a conditional GAN after a few steps on the digits, by model name; not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    settings = {"training.batch_size": 64, "training.snapshot_every": "10 steps", "training.log_every": 5}
    return {
        model: zeuxis.train(f"digits-{model}", steps=40, settings=settings, runs=runs, name=model, progress=False)
        for model in ("vae", "gan", "cgan")
    }


@pytest.fixture
def short_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports show samples and no other figure of each run, for tests of what stands beside the figures."""
    draw = html.draw_all
    monkeypatch.setattr(html, "draw_all", lambda run: draw(run, only=["samples"]))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of runs, found by name."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("ZEUXIS_RUNS", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A store on loopback, which the environment names, as a file system of pyarrow that may make buckets."""
    fs = pytest.importorskip("pyarrow.fs", reason="zeuxis[shards] is not installed")
    program = shutil.which("moto_server")
    if program is None:
        pytest.skip("moto_server is not installed (pip install 'moto[server]', in an environment of its own)")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [program, "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "moto.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    request.addfinalizer(server.wait)
    request.addfinalizer(server.terminate)  # the last that is added comes first
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for _ in range(300):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    return fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True)
