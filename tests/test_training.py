"""The trainer and the run folder: phases, budgets, records, checkpoints, interruption, divergence."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

import zeuxis
from zeuxis.data import load as load_data
from zeuxis.errors import UserError
from zeuxis.files import WriteError, is_locked, locked
from zeuxis.models import MODELS, Iteration, Model, ModelOptions, build_model, phase, register
from zeuxis.recipe import Size, load_recipe
from zeuxis.run import Run
from zeuxis.system import keep_freed_memory
from zeuxis.training import (
    Callback,
    Trainer,
    checkpoints,
    finished,
    read_journal,
    read_tiles,
    resume,
    save_tiles,
    start,
)
from zeuxis.training.checkpoint import Checkpoint, best_checkpoint, tidy
from zeuxis.training.hardware import peak_memory, reset_peak_memory
from zeuxis.training.journal import role_of
from zeuxis.training.monitors import WINDOW, Monitors, too_early
from zeuxis.training.optimizers import unwrapped

SMALL = {"training.batch_size": 32, "training.checkpoint_every": "5 steps", "training.log_every": 2}


def train(recipe: str, runs: Path, name: str = "", **settings: object) -> Run:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return zeuxis.train(recipe, settings=SMALL | dotted, runs=runs, name=name, progress=False)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(run.path / "checkpoints")[0])


def test_the_optimiser_is_pytorchs_and_brings_no_compiler(tmp_path: Path) -> None:
    weights = [torch.randn(3, 4, requires_grad=True) for _ in range(2)]
    weights[1].data.copy_(weights[0].data)
    made = [
        kind([w], lr=0.1, betas=(0.5, 0.9), weight_decay=0.01, fused=True)
        for kind, w in zip((unwrapped(torch.optim.AdamW), torch.optim.AdamW), weights, strict=True)
    ]
    for _ in range(3):
        for optimizer, w in zip(made, weights, strict=True):
            optimizer.zero_grad()
            w.square().sum().backward()
            optimizer.step()
    assert torch.equal(*weights)
    code = (
        "import sys, zeuxis\n"
        f"zeuxis.train('digits-gan', steps=2, runs={str(tmp_path)!r}, progress=False)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class NoWaiting(TorchDispatchMode):
    """Fails where a GPU would be waited for: a number or an index is read back to the host."""

    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function._overloadpacket.__name__ not in self.waits, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "recipe", ["digits-vae", "digits-gan", "modern-gan-28", "mnist-wgan-gp", "infogan-62-10-2", "mnist-cgan"]
)
def test_an_iteration_waits_for_no_number(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a CPU alone it looks whether its numbers are in range.
    monkeypatch.setattr(torch.nn.functional, "one_hot", lambda places, size: torch.eye(size).long()[places])
    loaded = load_recipe(recipe, ["data.source=digits", "data.convert=true", "training.batch_size=8"])
    dataset = load_data(loaded.data, progress=False)
    trainer = Trainer(tmp_path, build_model(loaded, dataset.classes), dataset, torch.device("cpu"))
    trainer.iterate()
    with NoWaiting():
        trainer.iterate()
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        float(torch.ones(1).sum())


@pytest.mark.parametrize(("able", "expected"), [({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")])
def test_precision_can_be_left_to_the_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    run = train("digits-vae", tmp_path, training__precision="auto", training__steps=1, training__device="cpu")
    assert run.recipe.training.precision == expected, "the run records what was chosen"
    resume(run.path, {"training.steps": 2, "training.precision": "auto"}, visible=False)
    assert Run(run.path).recipe.training.precision == expected


# -- phases, as later models need them ----------------------------------------------------------------


class ThreePhaseOptions(ModelOptions):
    latent: int = 4
    critic_updates: int = 5


LOG: list[tuple[str, int]] = []


@register("three-phases")
class ThreePhases(Model):
    """A critic that repeats, a generator, and a third optimiser over two networks: WGAN-GP's and InfoGAN's shape."""

    Options = ThreePhaseOptions
    generating_networks = ("generator",)

    def inputs(self) -> dict[str, tuple[int, ...]]:
        return {"generator": (4,), "critic": self.image_shape, "code": self.image_shape}

    def sample_latents(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(count, 4, generator=generator)

    def generate(self, latents: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        return self.net("generator")(latents).value

    def fakes(self, iteration: Iteration) -> torch.Tensor:
        return iteration.once(
            "fake", lambda: self.generate(iteration.randn(iteration.batch_size, 4)), through="generator"
        )

    def note(self, name: str, iteration: Iteration) -> None:
        LOG.append((name, id(iteration)))

    @phase("critic", updates="critic", repeat="critic_updates")
    def criticise(self, iteration: Iteration) -> dict[str, torch.Tensor]:
        self.note("critic", iteration)
        fakes = self.fakes(iteration).detach().requires_grad_()
        scores = self.net("critic")(fakes).value
        (slope,) = torch.autograd.grad(scores.sum(), fakes, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return {
            "wasserstein": scores.mean() - self.net("critic")(iteration.images).value.mean(),
            "penalty": 10 * penalty,
        }

    @phase("generator", updates="generator")
    def fool(self, iteration: Iteration) -> dict[str, torch.Tensor]:
        self.note("generator", iteration)
        return {"adversarial": -self.net("critic")(self.fakes(iteration)).value.mean()}

    @phase("information", updates="generator code")
    def inform(self, iteration: Iteration) -> dict[str, torch.Tensor]:
        self.note("information", iteration)
        return {"mutual": self.net("code")(self.fakes(iteration)).value.square().mean()}


def test_phases_repeat_share_and_update_only_their_networks(tmp_path: Path) -> None:
    recipe = tmp_path / "three.toml"
    recipe.write_text(
        '[data]\nsource = "digits"\nsize = 8\n[model]\nname = "three-phases"\n'
        '[networks.generator]\nlayers = ["dense 64", "reshape 1x8x8", "sigmoid"]\n'
        '[networks.critic]\nlayers = ["flatten", "dense 8", "lrelu", "dense 1"]\n'
        '[networks.code]\nlayers = ["flatten", "dense 2"]\n'
        "[training]\nsteps = 2\nbatch_size = 16\nlog_every = 1\n"
    )
    LOG.clear()
    run = zeuxis.train(recipe, runs=tmp_path / "runs", progress=False)
    names = [name for name, _ in LOG]
    assert names == (["critic"] * 5 + ["generator", "information"]) * 2
    first = LOG[:7]
    assert len({step for name, step in first if name == "critic"}) == 5, "each critic step has a batch of its own"
    assert first[0][1] == first[5][1] == first[6][1], "the first repeat of each phase shares a step"
    assert run.journal[-1]["images"] == 2 * 5 * 16, "five batches an iteration"
    keys = set(run.journal[-1])
    assert {"critic/wasserstein", "critic/penalty", "generator/adversarial", "information/mutual"} <= keys
    moments = {name.split("/")[1] for name in weights(run) if name.startswith("optimizers/")}
    assert moments == {"critic", "generator", "information"}, "every phase has an optimiser of its own"


def test_a_phase_updates_its_networks_and_no_others(tmp_path: Path) -> None:
    recipe = load_recipe("digits-gan", SMALL | {"training.steps": 1, "training.ema": 0.0})
    dataset = load_data(recipe.data)
    from zeuxis.models import build_model

    model = build_model(recipe, dataset.classes)
    trainer = Trainer(tmp_path, model, dataset, torch.device("cpu"))
    trainer.phases = [p for p in trainer.phases if p.name == "discriminator"]
    before = {k: v.clone() for k, v in model.networks.state_dict().items() if "running" not in k and "num_" not in k}
    trainer.fit()
    after = model.networks.state_dict()
    changed = {k.split(".")[0] for k, v in before.items() if not torch.equal(v, after[k])}
    assert changed == {"discriminator"}
    assert all(p.grad is None for p in model.net("generator").parameters()), "no gradient is computed for the rest"


# -- the run folder -----------------------------------------------------------------------------------


def test_a_run_folder_holds_what_it_promises(trained: dict[str, Run]) -> None:
    run = trained["vae"]
    assert {p.name for p in run.path.iterdir()} >= {
        "recipe.toml", "environment.json", "journal.jsonl", "checkpoints", "snapshots",
    }  # fmt: skip
    for line in run.journal:
        assert {"step", "epoch", "images", "seconds"} <= set(line)
    last = run.journal[-1]
    assert (last["step"], last["images"]) == (40, 40 * 64)
    assert {"vae/reconstruction", "vae/kl", "vae/loss", "test/mse", "vae/gradient_norm"} <= set(last)
    assert last["vae/loss"] == pytest.approx(last["vae/reconstruction"] + last["vae/kl"], rel=1e-5)
    assert [step for step, _ in run.snapshots] == [0, 10, 20, 30, 40]
    assert len(list((run.path / "checkpoints").glob("step-*"))) <= 2
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["data"]["fingerprint"] == run.dataset.fingerprint
    # A build of its own may add to the version, such as 2.13.0+cu130.
    assert environment["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


def test_learning_lowers_the_loss(trained: dict[str, Run]) -> None:
    _, losses = trained["vae"].series("vae/loss")
    assert losses[-1] < 0.75 * losses[0]
    _, tested = trained["vae"].series("test/mse")
    assert tested[-1] < 0.1


@pytest.mark.parametrize(("budget", "expected"), [({"epochs": 2}, 100), ({"epochs": 0.5}, 25), ({"steps": 7}, 7)])
def test_budgets(budget: dict[str, float], expected: int, tmp_path: Path) -> None:
    # 1,618 training digits in batches of 32 are 50 steps an epoch.
    run = zeuxis.train("digits-vae", **budget, settings={"training.test_every": "never"}, runs=tmp_path, progress=False)
    assert run.last("step") == expected


def test_minutes_are_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: 0.1 * next(ticks))  # no machine is too slow for this clock
    run = zeuxis.train("digits-vae", minutes=0.02, runs=tmp_path, progress=False)
    assert 1.2 <= run.last("seconds") < 3


def test_a_record_is_the_mean_since_the_last(tmp_path: Path) -> None:
    fine = train("digits-vae", tmp_path, "fine", training__steps=6, training__log_every=1)
    coarse = train("digits-vae", tmp_path, "coarse", training__steps=6, training__log_every=3)
    fine_losses = [line["vae/loss"] for line in fine.journal]
    by_step = {line["step"]: line["vae/loss"] for line in coarse.journal}
    # Checkpoints every five steps close a record too.
    assert by_step[3] == pytest.approx(np.mean(fine_losses[:3]), rel=1e-5)
    assert by_step[5] == pytest.approx(np.mean(fine_losses[3:5]), rel=1e-5)
    assert by_step[6] == pytest.approx(fine_losses[5], rel=1e-5)


def test_tests_are_of_the_averaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tested = []

    def test(self: Model, iteration: Iteration) -> dict[str, torch.Tensor]:
        assert not self.training
        tested.append([tensor.clone() for tensor in self.net("velocity").parameters()])
        return {"flow": torch.zeros(())}

    monkeypatch.setattr("zeuxis.models.flow.FlowMatching.test", test)
    run = train("digits-flow", tmp_path, training__steps=4, training__ema=0.9, training__test_every="100 epochs")
    for used, last in zip(run.model.net("velocity").parameters(), tested[-1], strict=True):
        torch.testing.assert_close(used, last)


def test_the_moving_average_follows_its_definition(tmp_path: Path) -> None:
    decay = 0.9
    run = train("digits-gan", tmp_path, training__steps=3, training__ema=decay, training__checkpoint_every="1 step")
    recipe = run.recipe
    dataset = load_data(recipe.data)
    from zeuxis.models import build_model

    model = build_model(recipe, dataset.classes)
    trainer = Trainer(tmp_path, model, dataset, torch.device("cpu"))
    name = "trunk.0.weight"
    mean = model.net("generator").state_dict()[name].clone()
    for step in range(1, 4):
        trainer.iterate()
        rate = min(decay, step / (step + 10))
        mean = rate * mean + (1 - rate) * model.net("generator").state_dict()[name]
    torch.testing.assert_close(weights(run)[f"average/generator.{name}"], mean)
    # Runs are read with the average.
    torch.testing.assert_close(run.model.net("generator").state_dict()[name], mean)


def test_the_best_checkpoint_is_the_one_with_the_lowest_test_term(tmp_path: Path) -> None:
    # A learning rate this high gets worse again.
    run = train(
        "digits-vae", tmp_path, training__steps=60, training__test_every="5 steps",
        training__optimizer__learning_rate=0.02,
    )  # fmt: skip
    steps, values = run.series("test/mse")
    best = Checkpoint.read(run.path / "checkpoints" / "best.safetensors")
    assert best.state["step"] == steps[values.argmin()] == run.step
    assert best.state["best"][0] == pytest.approx(values.min())


def test_other_weights_than_the_best_are_not_used_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(
        "digits-vae", tmp_path, training__steps=60, training__test_every="5 steps",
        training__optimizer__learning_rate=0.02,
    )  # fmt: skip
    best, newest = run.path / "checkpoints" / "best.safetensors", run.path / "checkpoints" / "step-00000060.safetensors"
    best_step = Checkpoint.read(best).state["step"]
    best.write_bytes(best.read_bytes()[:900])
    with pytest.raises(UserError, match=f"damaged .* Remove {re.escape(str(best))} to use {newest.name} instead"):
        Run(run.path).sample(1)
    shutil.copyfile(
        train("digits-gan", tmp_path, training__steps=1).path / "checkpoints" / "step-00000001.safetensors", best
    )
    with pytest.raises(UserError, match="does not fit the networks of its recipe: it lacks "):
        Run(run.path).sample(1)
    best.unlink()
    capsys.readouterr()
    assert Run(run.path).sample(1).shape == (1, 16, 16, 1)
    assert f"uses the weights of step 60 in place of the best ones, of step {best_step}" in capsys.readouterr().err


def test_tiles_survive_their_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (13, 6, 6, 3), np.uint8)
    save_tiles(tmp_path / "t.png", images)
    back = read_tiles(tmp_path / "t.png", Size(6, 6))
    assert np.array_equal(back[:13], images)
    assert len(back) == 16


def test_snapshots_are_of_the_same_latents(trained: dict[str, Run]) -> None:
    run = trained["vae"]
    again = run.decode(run.latents(16, seed=run.recipe.training.seed))
    assert np.abs(again * 255 - run.snapshots[-1][1]).max() <= 1


def record(step: int, **terms: object) -> str:
    return json.dumps({"step": step, "epoch": step / 4, "images": 32 * step, "seconds": 0.1 * step, **terms})


def test_a_journal_with_a_cut_last_line_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f"{record(1)}\n{record(2)}\n{record(3)[:9]}")
    assert [line["step"] for line in read_journal(path)] == [1, 2]
    assert not capsys.readouterr().err, "a kill leaves such a line: nothing is wrong"


@pytest.mark.parametrize(
    "damage",
    ["[]", "{}", "null", "", "\0", "{", '{"step": 5}', "[" * 5000, record(2, loss="x"), record(2, loss=float("inf")),
     record(2, epoch=None), record(1, epoch=0.1), record(10**20), record(-1), record(True)],
)  # fmt: skip
def test_a_damaged_journal_line_is_named_and_left_out(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text("\n".join([record(1), damage, record(3), record(4), record(5)]) + "\n")
    assert [line["step"] for line in read_journal(path)] == [1, 3, 4, 5]
    assert "1 damaged line is left out (2)" in " ".join(capsys.readouterr().err.split())


def test_a_journal_that_lacks_its_end_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f"{record(1)}\n{record(2)}\n")
    assert len(read_journal(path, 4)) == 2
    assert "lines after step 2 are missing" in " ".join(capsys.readouterr().err.split())


def test_a_run_without_its_journal_opens_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train("digits-vae", tmp_path, training__steps=6).path
    (folder / "journal.jsonl").unlink()
    assert len(Run(folder).sample(2)) == 2 and Run(folder).journal == []
    assert "journal.jsonl is missing" in " ".join(capsys.readouterr().err.split())
    assert resume(folder, {"training.steps": 8}, visible=False)
    assert Run(folder).last("step") == 8


def test_a_damaged_snapshot_is_named_and_left_out(
    trained: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained["vae"].path, tmp_path / "run")
    first, second, *_ = sorted((tmp_path / "run" / "snapshots").glob("*.png"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:200])
    run = Run(tmp_path / "run")
    assert len(run.snapshots) == len(trained["vae"].snapshots) - 2
    said = "".join(capsys.readouterr().err.split())
    assert said.count("Itisleftout.") == 2
    assert first.name in said


# -- resuming -----------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from zeuxis.recipe import load_recipe
from zeuxis.training import Callback, start
import torch
torch.set_num_threads(1)

class Killer(Callback):
    def iterated(self, trainer):
        if trainer.step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

settings = {"training.steps": 23, "training.batch_size": 32, "training.checkpoint_every": "5 steps",
            "training.log_every": 2, "training.snapshot_every": "4 steps"}
start(load_recipe(sys.argv[1], settings), Path(sys.argv[2]), name="killed", visible=False, callbacks=[Killer()])
"""


# Models with what the small recipes lack: three optimisers, a phase that repeats, networks that a phase leaves alone,
# penalties, augmentation, moving averages of two networks.
WRITTEN = {
    "information": """extends = "digits-gan"
[model]
name = "infogan"
latent = 6
categorical = [4]
continuous = 1
r1_penalty = 0.1
gradient_penalty = 0.1
instance_noise = 0.1
instance_noise_epochs = 2.0
augmentation = ["color", "translation", "cutout"]
discriminator_updates = 2
[networks.discriminator]
layers = ["conv 8 k3 s2", "lrelu 0.2", "dropout 0.1", "flatten"]
heads = { real = ["dense 1"] }
[networks.q]
layers = ["dense 8", "bn", "lrelu 0.2"]
[training]
ema = 0.99
""",
    "stages": """extends = "digits-vae"
[model]
name = "two-stage-vae"
latent = 2
[networks.prior]
layers = ["dense 16", "silu", "dense latent"]
[training]
ema = 0.99
""",
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_stopped_and_resumed_equals_never_interrupted_in_any_precision(precision: str, tmp_path: Path) -> None:
    class Stops(Callback):
        def iterated(self, trainer: Trainer) -> None:
            if trainer.step == 4:
                trainer.stop("enough")

    settings = SMALL | {"training.steps": 9, "training.precision": precision, "training.threads": 1}
    start(load_recipe("digits-vae", settings), tmp_path, name="stopped", visible=False, callbacks=[Stops()])
    assert resume(tmp_path / "stopped", visible=False)
    runs = [Run(tmp_path / "stopped"), train("digits-vae", tmp_path, "whole", **settings)]
    first, second = (weights(run) for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert runs[0].recipe.training.precision == precision
    if precision == "float16":  # the scale was halved before the stop, and would start anew without its state
        np.testing.assert_array_equal(runs[0].series("vae/loss_scale")[1], runs[1].series("vae/loss_scale")[1])
        assert runs[1].series("vae/loss_scale")[1][-1] < 2**16


def test_a_run_records_its_threads(tmp_path: Path) -> None:
    run = train("digits-vae", tmp_path, training__steps=2, training__threads=2)
    assert run.recipe.training.threads == 2
    assert run.last("cost/threads") == 2
    assert torch.get_num_threads() == 1, "what was set before is set again"


KILLED_LONGER = [(name, 13) for name in ("digits-vae", *WRITTEN)]
KILLED_LONGER += list(product(("digits-gan", "digits-cgan"), (3, 13)))


@pytest.mark.parametrize(
    ("recipe", "at"),
    [("digits-vae", 3)] + [pytest.param(*case, marks=pytest.mark.slow) for case in KILLED_LONGER],
)
def test_killed_and_resumed_equals_never_interrupted(recipe: str, at: int, tmp_path: Path) -> None:
    if recipe in WRITTEN:
        (tmp_path / f"{recipe}.toml").write_text(WRITTEN[recipe])
        recipe = str(tmp_path / f"{recipe}.toml")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, recipe, str(tmp_path), str(at)],
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == -signal.SIGKILL
    killed = tmp_path / "killed"
    assert resume(killed, visible=False)
    whole = train(
        recipe, tmp_path, "whole", training__steps=23, training__snapshot_every="4 steps",
    )  # fmt: skip
    a, b = weights(Run(killed)), weights(whole)
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a), "every tensor, moments of the optimisers among them"
    clocks = {"seconds", "cost/peak_memory_mib", "cost/threads"}
    lines = [
        [{k: v for k, v in line.items() if k not in clocks} for line in run.journal] for run in (Run(killed), whole)
    ]
    assert lines[0] == lines[1]
    for (step, images), (other, same) in zip(Run(killed).snapshots, whole.snapshots, strict=True):
        assert step == other
        assert np.array_equal(images, same)


def test_resume_takes_the_checkpoint_before_a_damaged_one(tmp_path: Path) -> None:
    run = train("digits-vae", tmp_path, training__steps=12)
    newest = checkpoints(run.path / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert resume(run.path, {"training.steps": 14}, visible=False)
    assert Run(run.path).last("step") == 14
    steps = [line["step"] for line in Run(run.path).journal]
    assert steps == sorted(set(steps)), "no step is recorded twice"


def test_resume_refuses_other_data(tmp_path: Path) -> None:
    run = train("digits-vae", tmp_path, training__steps=3)
    changed = (run.path / "recipe.toml").read_text().replace("split_seed = 0", "split_seed = 1")
    (run.path / "recipe.toml").write_text(changed)
    with pytest.raises(UserError, match="has changed since it was trained"):
        resume(run.path, {"training.steps": 5}, visible=False)


def test_resume_further_with_a_larger_budget(tmp_path: Path) -> None:
    run = train("digits-vae", tmp_path, training__steps=3)
    with pytest.raises(UserError, match=r"used up its budget .* such as --steps 6\.$"):
        resume(run.path, visible=False)
    assert resume(run.path, {"training.epochs": 0.2}, visible=False)
    assert Run(run.path).last("step") == 10
    assert Run(run.path).recipe.training.epochs == 0.2


class Interrupter(Callback):
    """Presses Ctrl-C once at step 4."""

    def iterated(self, trainer: Trainer) -> None:
        if trainer.step == 4:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_finishes_the_step_saves_and_can_be_resumed(tmp_path: Path) -> None:
    folder, finished = start(
        load_recipe("digits-gan", SMALL | {"training.steps": 9}), tmp_path, visible=False, callbacks=[Interrupter()]
    )
    assert not finished
    assert Checkpoint.read(checkpoints(folder / "checkpoints")[0]).state["step"] == 5
    assert resume(folder, visible=False)
    whole = train("digits-gan", tmp_path, "whole", training__steps=9)
    a, b = weights(Run(folder)), weights(whole)
    assert all(torch.equal(a[name], b[name]) for name in a)


# -- trouble ------------------------------------------------------------------------------------------


def test_a_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    class Poison(Callback):
        def iterated(self, trainer: Trainer) -> None:
            if trainer.step == 11:
                with torch.no_grad():
                    next(trainer.model.net("decoder").parameters()).fill_(float("nan"))

    with pytest.raises(UserError, match=r"step 12.*became NaN.*step-00000010.safetensors.*learning_rate=0.0005"):
        start(load_recipe("digits-vae", SMALL | {"training.steps": 40}), tmp_path, visible=False, callbacks=[Poison()])
    folder = next(tmp_path.iterdir())
    kept = Checkpoint.read(checkpoints(folder / "checkpoints")[0])
    assert kept.state["step"] == 10
    assert all(torch.isfinite(t).all() for t in kept.tensors.values())
    assert all(np.isfinite(v) for line in read_journal(folder / "journal.jsonl") for v in line.values())
    assert "NaN" in Run(folder).warnings[-1]


def test_weights_that_became_nan_are_not_saved(tmp_path: Path) -> None:
    class PoisonedGradient(Callback):
        def begin(self, trainer: Trainer) -> None:
            weight = next(trainer.model.net("decoder").parameters())
            weight.register_hook(lambda gradient: gradient * (float("nan") if trainer.step == 9 else 1))

    recipe = load_recipe("digits-vae", SMALL | {"training.steps": 40})
    with pytest.raises(UserError, match=r"step 10: a weight of the decoder became NaN.*step-00000005.safetensors"):
        start(recipe, tmp_path, visible=False, callbacks=[PoisonedGradient()])
    folder = next(tmp_path.iterdir())
    assert [path.name for path in checkpoints(folder / "checkpoints")] == ["step-00000005.safetensors"]
    assert resume(folder, visible=False)


@pytest.mark.parametrize("built_on", ["the autoencoder", "the weights"])
def test_what_a_training_began_with_is_there_after_a_kill(tmp_path: Path, built_on: str) -> None:
    class Killed(Callback):
        def iterated(self, trainer: Trainer) -> None:
            raise KeyboardInterrupt

    first = zeuxis.train("digits-vae", steps=4, runs=tmp_path, name="first", progress=False)
    latent = {"model.vae": "first", "data.source": "digits", "data.size": 16}
    recipe = load_recipe("latent-gan", latent) if built_on == "the autoencoder" else load_recipe("digits-vae")
    recipe = recipe.updated(
        {
            "training.steps": 3,
            "training.epochs": None,
            "training.minutes": None,
            "training.checkpoint_every": "never",
            "training.optimizer.learning_rate": 1e-12,
        }
    )
    with pytest.raises(KeyboardInterrupt):
        start(
            recipe,
            tmp_path,
            name="second",
            visible=False,
            callbacks=[Killed()],
            from_run=None if built_on == "the autoencoder" else first.path,
        )
    assert resume(tmp_path / "second", visible=False)
    kept = {run.name: run.model.net("decoder").state_dict() for run in (first, Run(tmp_path / "second"))}
    for name, weights in kept["first"].items():
        torch.testing.assert_close(kept["second"][name], weights, rtol=1e-4, atol=1e-6)


def test_a_clock_that_jumps_takes_no_time_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zeuxis.training import trainer as module

    jumps, clock = np.random.default_rng(0), time.perf_counter
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock() + float(jumps.choice([-5000, 0, 3000])))
    run = train("digits-vae", tmp_path, training__steps=12, training__log_every=1)
    seconds = [line["seconds"] for line in run.journal]
    assert seconds == sorted(seconds) and seconds[0] >= 0
    run = train("digits-vae", tmp_path, "minutes", training__minutes=30)
    assert run.journal[-1]["seconds"] >= 30 * 60, "which the jumps have made short"


def test_a_flipped_bit_of_a_checkpoint_is_told(trained: dict[str, Run], tmp_path: Path) -> None:
    whole = checkpoints(trained["vae"].path / "checkpoints")[0]
    content = whole.read_bytes()
    generator = np.random.default_rng(0)
    for place in [*generator.integers(8, 3000, 20).tolist(), *generator.integers(3000, len(content), 20).tolist()]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(generator.integers(8))
        (tmp_path / "x.safetensors").write_bytes(flipped)
        with pytest.raises(UserError, match="damaged or not a checkpoint"):
            Checkpoint.read(tmp_path / "x.safetensors")
    assert Checkpoint.read(whole).tensors.keys() == Checkpoint.read(whole, ("networks/", "optimizers/")).tensors.keys()


def test_the_newest_checkpoint_alone_says_which_is_best(tmp_path: Path) -> None:
    def save(step: int, best: int) -> None:
        Checkpoint({"networks/x": torch.full((2,), float(step))}, {"step": step, "best": [0.5, best]}).save(tmp_path)

    def best_step() -> int:
        path = best_checkpoint(tmp_path)
        assert path is not None
        return int(Checkpoint.read(path).state["step"])

    save(1, 1)
    save(2, 2)
    stale = (tmp_path / "best.safetensors").read_bytes()
    save(3, 3)
    assert best_step() == 3
    (tmp_path / "best.safetensors").write_bytes(stale)  # killed after the checkpoint, before the copy
    assert best_step() == 3, "the copy is not asked"
    tidy(tmp_path, 3)
    assert Checkpoint.read(tmp_path / "best.safetensors").state["step"] == 3
    save(4, 3)
    save(5, 3)
    assert best_step() == 3
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005.safetensors", "step-00000004.safetensors"]


def test_no_good_checkpoint_is_removed_for_files_that_are_none(tmp_path: Path) -> None:
    run = train("digits-vae", tmp_path, training__steps=8, training__checkpoint_every="4 steps")
    folder = run.path / "checkpoints"
    strangers = ["step-x.safetensors", "step-00000008 copy.safetensors", "step-00000012.part.safetensors"]
    for name in strangers:
        (folder / name).write_bytes(b"x")
    (folder / "step-00000008.safetensors").write_bytes(b"x")
    (folder / "step-99999999.safetensors").write_bytes(b"x")
    again = zeuxis.resume(run.path, settings={"training.checkpoint_every": "1 step"}, steps=10, progress=False)
    assert again.journal[-1]["step"] == 10 and again.step in (9, 10)
    assert [path.name for path in checkpoints(folder)] == ["step-00000010.safetensors", "step-00000009.safetensors"]
    assert all((folder / name).exists() for name in strangers)


def test_a_run_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.append((sorted(path.name for path in self.iterdir()), [p for p in tmp_path.iterdir() if p != self]))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    train("digits-vae", tmp_path, training__steps=1)
    assert seen == [(["environment.json", "journal.jsonl", "lock", "recipe.toml"], [])]


def test_what_killed_starts_left_is_removed_by_the_next(tmp_path: Path) -> None:
    for name in (".writing-1", ".writing-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    with locked(tmp_path / ".writing-2"):
        train("digits-vae", tmp_path, training__steps=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writing-2", "digits-vae-1"], "one is being made"


def test_a_second_process_is_told_that_one_trains_the_run(tmp_path: Path) -> None:
    folder = train("digits-vae", tmp_path, training__steps=1).path
    assert not is_locked(folder)
    with locked(folder):
        assert is_locked(folder)
        with pytest.raises(UserError, match="is in use by another process"):
            resume(folder, {"training.steps": 2}, visible=False)
    resume(folder, {"training.steps": 2}, visible=False)


@pytest.mark.parametrize("gone", ["", "journal.jsonl"])
def test_a_run_that_is_deleted_while_it_trains_ends_in_a_sentence(gone: str, tmp_path: Path) -> None:
    class Deletes(Callback):
        def iterated(self, trainer: Trainer) -> None:
            if trainer.step == 7:
                path = trainer.folder / gone
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    with pytest.raises(WriteError, match=r"Training of .* stopped at step"):
        start(load_recipe("digits-vae", SMALL | {"training.steps": 40}), tmp_path, visible=False, callbacks=[Deletes()])
    assert gone or not list(tmp_path.iterdir()), "and nothing of it comes back"


def test_a_folder_of_a_run_that_leads_out_of_it_is_not_written_to(tmp_path: Path) -> None:
    folder = train("digits-vae", tmp_path / "runs", training__steps=1).path
    (tmp_path / "outside").mkdir()
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="is a link that leads out of the run"):
        resume(folder, {"training.steps": 2}, visible=False)
    assert not list((tmp_path / "outside").iterdir())


def test_another_batch_size_goes_on_in_the_same_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train("digits-vae", tmp_path, training__steps=12).path
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("batch_size = 32", "batch_size = 16"))
    resume(folder, {"training.steps": 20})
    assert "training.batch_size is 16 and was 32" in " ".join(capsys.readouterr().err.split())
    lines = read_journal(folder / "journal.jsonl")
    for name in ("epoch", "images"):
        values = [line[name] for line in lines]
        assert values == sorted(values)
    assert lines[-1]["images"] == 12 * 32 + 8 * 16


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zeuxis.training import checkpoint as module

    real, saved = module._save, []

    def fail_later(tensors: object, header: object, path: Path) -> None:
        saved.append(path)
        path.write_bytes(b"half")
        if len(saved) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(tensors, header, path)

    monkeypatch.setattr(module, "_save", fail_later)
    with pytest.raises(WriteError, match=r"the disk is full. Its last good checkpoint, step-00000010.*zeuxis resume"):
        train("digits-gan", tmp_path, training__steps=40)
    assert sorted(path.name for path in (tmp_path / "digits-gan-1" / "checkpoints").iterdir()) == [
        "step-00000005.safetensors", "step-00000010.safetensors",
    ]  # fmt: skip


def test_a_disk_that_is_full_from_the_start_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"No run can be started in .*: the disk is full."):
        train("digits-vae", tmp_path / "runs", training__steps=2)
    assert not list(tmp_path.iterdir())


def lines(accuracy: float, kl: float, count: int) -> list[dict[str, float]]:
    return [
        {"step": i, "discriminator/accuracy_real": accuracy, "discriminator/accuracy_fake": accuracy, "vae/kl_nats": kl}
        for i in range(count)
    ]


ROLES = {name: role_of(name) for name in lines(0, 0, 1)[0]}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is reset on Linux alone")
def test_peak_memory_is_that_of_one_training() -> None:
    cpu = torch.device("cpu")
    keep_freed_memory()
    reset_peak_memory(cpu)
    before = peak_memory(cpu)
    held = torch.ones(75_000_000)  # 286 MiB
    assert peak_memory(cpu) > before + 200
    del held
    reset_peak_memory(cpu)
    assert peak_memory(cpu) < before + 100


def test_monitors_speak_once_an_episode() -> None:
    monitors = Monitors([], ROLES)
    said = [words for line in lines(1.0, 5.0, WINDOW + 5) for words in monitors(line)]
    assert len(said) == 1
    assert "discriminator wins" in said[0]
    assert not [words for line in lines(0.7, 5.0, WINDOW) for words in monitors(line)]
    assert len([words for line in lines(1.0, 5.0, WINDOW) for words in monitors(line)]) == 1


def test_monitors_see_a_collapsed_posterior() -> None:
    assert not any(Monitors([], ROLES)(line) for line in lines(0.7, 0.01, WINDOW)), "one line is not enough"
    monitors = Monitors([], ROLES)
    assert any("collapsed" in words for line in lines(0.7, 0.01, WINDOW) for words in monitors(line))


def test_monitors_do_not_advise_what_is_set_already() -> None:
    def said(accuracy: float, kl: float, **options: object) -> str:
        monitors = Monitors([], ROLES, options=options)
        return " ".join(words for line in lines(accuracy, kl, WINDOW) for words in monitors(line))

    assert said(0.7, 0.01, kl_weight=2.0, kl_warmup=0.0, free_bits=0.0).endswith(
        "Try a model.kl_weight below 2, model.kl_warmup, or model.free_bits."
    )
    assert "a model.kl_warmup of more than 6 epochs, or model.free_bits" in said(
        0.7, 0.01, kl_weight=2.0, kl_warmup=6.0, free_bits=0.0
    )
    assert "Try" not in said(0.7, 0.01), "nothing is known to help"
    winning = said(1.0, 5.0, merged_batches=True, label_smoothing=0.0, loss=SimpleNamespace(name="least-squares"))
    assert "merged_batches" not in winning and "Try model.label_smoothing=0.1, dropout" in winning
    assert "smoothing" not in said(1.0, 5.0, label_smoothing=0.0, loss=SimpleNamespace(name="hinge")), (
        "it has no labels"
    )


def test_monitors_say_when_it_is_too_early() -> None:
    said = too_early(lines(1.0, 0.008, WINDOW - 1), ROLES)
    assert said is not None and f"there are {WINDOW - 1}" in said
    assert "accuracy of the discriminator was 100% and latents carried 0.008 nats" in said
    assert too_early(lines(1.0, 0.008, WINDOW), ROLES) is None, "from here on the monitors speak"
    assert too_early([{"step": 1, "flow/loss": 2.0}], {"flow/loss": "loss"}) is None, "nothing that they look at"


def test_monitors_leave_out_what_is_normal_for_a_model() -> None:
    monitors = Monitors([], ROLES, {"discriminator_wins"})
    assert not [words for line in lines(1.0, 5.0, WINDOW + 5) for words in monitors(line)]
    assert MODELS["ae-gan"].healthy == {"discriminator_wins"} and not MODELS["gan"].healthy


@pytest.mark.slow
def test_a_collapsing_vae_warns(tmp_path: Path) -> None:
    run = train("digits-vae", tmp_path, training__steps=120, model__kl_weight=1000.0, training__test_every="never")
    assert any("collapsed" in words for words in run.warnings)


@pytest.mark.slow
def test_a_winning_discriminator_warns(tmp_path: Path) -> None:
    run = train(
        "digits-gan", tmp_path, training__steps=120, training__log_every=1,
        training__optimizers__generator__learning_rate=1e-7,
    )  # fmt: skip
    assert any("discriminator wins" in words for words in run.warnings)


def test_a_failed_start_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no phase"):
        train("digits-vae", tmp_path, training__optimizers__generator__learning_rate=1e-3, training__steps=2)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="names no phase"):
        train("digits-vae", tmp_path / "runs", training__optimizers__generator__learning_rate=1e-3, training__steps=2)
    assert not list(tmp_path.iterdir())


class Falling(Callback):
    """Adds a test term that falls for a while, then stays."""

    measures = ("seen",)

    def __init__(self, until: int, stderr: float = 0.0) -> None:
        self.until, self.stderr = until, stderr
        self.said: list[str] = []

    def warned(self, words: str) -> None:
        self.said.append(words)

    def tested(self, trainer: Trainer) -> dict[str, float]:
        value = 10.0 - min(trainer.step, self.until) / 2
        return {"seen": value, "seen_stderr": self.stderr}


@pytest.mark.parametrize(("stderr", "last"), [(0.0, 9), (0.7, 8), (3.0, 4)])
def test_training_ends_when_a_term_no_longer_falls(stderr: float, last: int, tmp_path: Path) -> None:
    """What falls by 1/2 a step, up to step 6, counts as better when it has fallen by more than its error since."""
    settings = {
        "training.until": "seen", "training.patience": 3, "training.test_every": "1 step", "training.steps": 50,
        "training.checkpoint_every": "never",
    }  # fmt: skip
    falling = Falling(6, stderr)
    folder, done = start(load_recipe("digits-vae", settings), tmp_path, visible=False, callbacks=[falling])
    assert len(falling.said) == 1 and falling.said[0].endswith(": seen no longer falls.")
    run = Run(folder)
    assert done and finished(folder)
    assert run.journal[-1]["step"] == last
    with pytest.raises(UserError, match="has settled: seen no longer falls"):
        resume(folder, visible=False, callbacks=[Falling(6)])
    assert resume(folder, {"training.patience": 4}, visible=False, callbacks=[Falling(30)])
    assert run.path == folder and Run(folder).journal[-1]["step"] > run.journal[-1]["step"]


def test_a_batch_larger_than_the_images_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zeuxis.train("digits-vae", steps=1, settings={"training.batch_size": 2000}, runs=tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert "Each batch holds all there is: 1618 training images, fewer than training.batch_size = 2000." in said
