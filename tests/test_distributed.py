"""One training in several processes: the same result, one run folder, and what happens when a process dies."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

import zeuxis
from zeuxis.errors import UserError
from zeuxis.recipe import Recipe, load_recipe, parse_override
from zeuxis.run import Run
from zeuxis.training import Checkpoint, best_checkpoint, start
from zeuxis.training.distributed import Share, _Whole, joined

STEPS = 50
ALONE = ["training.precision=float32", "training.test_every=50 steps", "training.snapshot_every=never"]
SMALL = 'networks.{0}.layers=["flatten", "dense 48", "lrelu 0.2", "dense {1}"]'
GENERATOR = 'networks.generator.layers=["dense 48", {0}"lrelu 0.2", "dense 64", "reshape 1x8x8", "tanh"]'
DIGITS = ["data.source=digits", "data.path=", "data.size=8", "training.batch_size=32", "data.range=-1..1"]
INFOGAN = [
    GENERATOR.format(""), 'networks.discriminator.layers=["flatten", "dense 48", "lrelu 0.2"]',
    'networks.discriminator.heads={real=["dense 1"]}', 'networks.q.layers=["dense 24", "lrelu 0.2"]',
]  # fmt: skip
GAN = [*DIGITS, "model.latent=8", SMALL.format("discriminator", 1)]
# Some gradients are zero but for rounding: those of a bias before a normalisation, of a key's bias in attention, of a
# critic's bias. Adam divides by their size and makes whole steps of the rounding, so these cases take plain steps.
PLAIN = ["training.optimizer.name=sgd", "training.optimizer.learning_rate=0.02"]
# The slope of a leaky ReLU jumps, and the penalty is on slopes: rounding may decide on which side of a jump it is.
SMOOTH = SMALL.format("discriminator", 1).replace("lrelu 0.2", "silu")
# Recipe, its settings, and how far weights may differ after 50 steps.
CASES: dict[str, tuple[str, list[str], float]] = {
    "vae": ("digits-vae", [], 1e-5),
    "flow": ("digits-flow", ["training.batch_size=32", *PLAIN], 1e-5),
    "gan": ("mnist-gan", [*GAN, GENERATOR.format("")], 1e-5),
    "normalised": ("mnist-gan", [*GAN, GENERATOR.format('"bn", '), *PLAIN], 1e-4),
    "merged": (
        "mnist-gan", [*GAN, GENERATOR.format(""), "model.merged_batches=true", "networks.discriminator.dropout=0.2"],
        1e-5,
    ),
    "augmented": ("mnist-gan", [*GAN, GENERATOR.format(""), 'model.augmentation=["color", "translation"]'], 1e-5),
    "wgan-gp": ("mnist-gan", ["model.name=wgan-gp", *GAN, SMOOTH, GENERATOR.format(""), *PLAIN], 1e-5),
    "infogan": ("mnist-infogan", [*DIGITS, *INFOGAN], 1e-5),
    # Rounding to three digits, which differs with the number of rows in a product, and Adam: weights are not compared.
    "float16": ("digits-vae", ["training.precision=float16"], math.inf),
}  # fmt: skip


def recipe_of(case: str) -> Recipe:
    name, settings, _ = CASES[case]
    return load_recipe(
        name, dict(map(parse_override, [*ALONE, *settings, f"training.steps={STEPS}", "training.threads=1"]))
    )


def train_all(runs: Path) -> None:
    with joined():
        for case in CASES:
            start(recipe_of(case), runs, name=case, visible=False)


def together(processes: int, code: str, *words: str) -> list[subprocess.Popen[str]]:
    """Starts Python code in processes that train together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)]),
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *words], env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs of all cases, by number of processes."""
    folders = {count: tmp_path_factory.mktemp(f"of-{count}") for count in (1, 2)}
    workers = together(
        2, "import sys, pathlib, test_distributed as t; t.train_all(pathlib.Path(sys.argv[1]))", str(folders[2])
    )
    train_all(folders[1])
    for worker in workers:
        assert worker.wait(timeout=300) == 0, worker.communicate()[1][-3000:]
    return folders


def weights(run: Path) -> dict[str, torch.Tensor]:
    path = best_checkpoint(run / "checkpoints")
    assert path
    return Checkpoint.read(path).part("networks/")


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][2] < math.inf])
def test_two_processes_train_as_one(runs: dict[int, Path], case: str) -> None:
    one, two = (weights(runs[count] / case) for count in (1, 2))
    moved = max(float((one[name].float() - w).abs().max()) for name, w in weights_at_start(case).items())
    furthest = {name: float((one[name].float() - two[name].float()).abs().max()) for name in one}
    assert moved > 1e-3, "it has learned something"
    assert max(furthest.values()) < CASES[case][2], furthest


def test_two_processes_skip_the_same_steps_of_float16(runs: dict[int, Path]) -> None:
    one, two = (Run(runs[count] / "float16") for count in (1, 2))
    scales, others = (run.series("vae/loss_scale")[1].tolist() for run in (one, two))
    assert scales == others and scales[-1] < 2**16
    assert two.series("vae/loss")[1].tolist() == pytest.approx(one.series("vae/loss")[1].tolist(), rel=0.01)


def weights_at_start(case: str) -> dict[str, torch.Tensor]:
    from zeuxis.models import build_model

    model = build_model(recipe_of(case), tuple("0123456789"))
    return {name: weight.float() for name, weight in model.networks.state_dict().items()}


def test_the_main_process_alone_writes_and_its_numbers_are_those_of_the_whole_batch(runs: dict[int, Path]) -> None:
    one, two = (zeuxis.load(runs[count] / "gan") for count in (1, 2))
    assert [line["step"] for line in one.journal] == [line["step"] for line in two.journal]
    for name in ("discriminator/loss", "generator/loss", "generator/gradient_norm"):
        assert two.journal[-1][name] == pytest.approx(one.journal[-1][name], rel=1e-3)
    environment = json.loads((two.path / "environment.json").read_text())
    assert environment["processes"] == 2 and "processes" not in json.loads((one.path / "environment.json").read_text())


def test_tests_are_shared_out(runs: dict[int, Path]) -> None:
    one, two = (zeuxis.load(runs[count] / "vae").journal[-1] for count in (1, 2))
    names = [name for name in one if name.startswith("test/")]
    assert "test/mse" in names
    for name in names:
        assert two[name] == pytest.approx(one[name], rel=1e-4)


def test_a_run_goes_on_with_another_number_of_processes(runs: dict[int, Path], tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from zeuxis.training import resume;"
        f"resume(pathlib.Path(sys.argv[1]), {{'training.steps': {2 * STEPS}}}, visible=False)"
    )
    workers = together(2, code, str(runs[1] / "gan"))
    longer = recipe_of("gan").updated({"training.steps": 2 * STEPS})
    start(longer, tmp_path, name="gan", visible=False)
    for worker in workers:
        assert worker.wait(timeout=120) == 0, worker.communicate()[1][-3000:]
    one, two = weights(tmp_path / "gan"), weights(runs[1] / "gan")
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5


@pytest.mark.parametrize("shape", [(12, 5), (6, 5, 4, 3)])
def test_batch_normalisation_has_the_values_and_gradients_of_pytorchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        found = []
        x, slope = 3 + 2 * torch.randn(shape), torch.randn(shape)
        for function in (F.batch_norm, _Whole(Share(0, 1), shape[0])._normalised):
            leaves = [x.clone().requires_grad_(), torch.linspace(-1, 2, 5, requires_grad=True), torch.zeros(5)]
            leaves[2].requires_grad_()
            mean, variance = torch.zeros(5), torch.ones(5)
            y = function(leaves[0], mean, variance, leaves[1], leaves[2], True)
            first = torch.autograd.grad((y.tanh() * slope).sum(), leaves, retain_graph=True)
            again = torch.autograd.grad((y.tanh() * slope).sum(), leaves[0], create_graph=True)[0]
            second = torch.autograd.grad(again.square().sum(), leaves)
            found.append([y, mean, variance, *first, again, *second])
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    finally:
        dist.destroy_process_group()


def test_shares() -> None:
    assert [Share(rank, 4).rows(32) for rank in range(4)] == [slice(0, 8), slice(8, 16), slice(16, 24), slice(24, 32)]
    with pytest.raises(UserError, match=r"3 processes cannot share a batch of 32 images.*batch_size=33"):
        Share(0, 3).require(32)
    with pytest.raises(UserError, match=r"at least 8. Set training.batch_size=32"):
        Share(0, 4).require(16)


# -- the command --------------------------------------------------------------------------------------


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "zeuxis", *words, "--processes", "2"], cwd=folder, env=here, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def workers_of(process: subprocess.Popen[str], run: Path) -> list[psutil.Process]:
    """Waits until a training has a checkpoint, and returns its processes."""
    deadline = time.monotonic() + 120
    while not best_checkpoint(run / "checkpoints"):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    return psutil.Process(process.pid).children()


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_the_run_goes_on(tmp_path: Path) -> None:
    settings = ["--set", "training.checkpoint_every=20 steps", "--set", "training.precision=float32"]
    training = command(tmp_path, "train", "digits-vae", "--steps", "300", "--seed", "3", *settings)
    workers_of(training, tmp_path / "runs" / "digits-vae-1")[1].kill()
    out, err = training.communicate(timeout=300)
    assert training.returncode == 0, err
    assert out.split() == ["runs/digits-vae-1"] and "Resuming" in err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["digits-vae-1"]
    lines = zeuxis.load(tmp_path / "runs" / "digits-vae-1").journal
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps)) and steps[-1] == 300


@pytest.mark.slow
def test_a_stopped_training_is_saved_and_says_how_to_go_on(tmp_path: Path) -> None:
    training = command(
        tmp_path, "train", "digits-vae", "--epochs", "100000", "--set", "training.checkpoint_every=20 steps"
    )
    workers_of(training, tmp_path / "runs" / "digits-vae-1")
    training.send_signal(signal.SIGINT)
    out, err = training.communicate(timeout=120)
    assert training.returncode == 130 and not out
    assert err.count("Continue with: zeuxis resume") == 1 and "Traceback" not in err, err


@pytest.mark.slow
def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    training = command(tmp_path, "train", "digits-vae", "--set", "training.batch_size=9")
    out, err = training.communicate(timeout=120)
    assert training.returncode == 2 and not out
    assert err.count("cannot share a batch of 9") == 1 and "Traceback" not in err, err
    assert not (tmp_path / "runs").exists()
