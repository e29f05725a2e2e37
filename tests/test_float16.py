"""Training in float16: scaled losses, skipped steps, and what they must not change."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import zeuxis
from zeuxis.errors import DivergedError, UserError
from zeuxis.models.adversarial import squared_gradient
from zeuxis.run import Run
from zeuxis.training import Callback, Trainer
from zeuxis.training.distributed import ALONE
from zeuxis.training.engine import Update
from zeuxis.training.hardware import pick_precision

SETTINGS = {
    "training.batch_size": 16, "training.threads": 1, "training.log_every": 1, "training.test_every": "never",
    "training.snapshot_every": "never", "training.best": "", "data.convert": True,
}  # fmt: skip


def train(recipe: str, folder: Path, precision: str, steps: int, **more: object) -> Run:
    given = SETTINGS | {"training.precision": precision} | {key.replace("__", "."): v for key, v in more.items()}
    return zeuxis.train(recipe, data="digits", steps=steps, settings=given, runs=folder, name=precision, progress=False)


def losses(run: Run) -> dict[str, list[float]]:
    return {name: run.series(name)[1].tolist() for name in run.names_of("loss")}


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("digits-vae", {}),
        ("digits-gan", {"model__r1_penalty": 1.0, "model__lazy_penalties": 2}),
        ("digits-gan", {"model__r1_penalty": 1.0, "training__optimizer__clip": 0.5}),
        ("mnist-wgan-gp", {"training__batch_size": 8, "model__discriminator_updates": 1}),
        ("digits-flow", {}),
    ],
)  # fmt: skip
def test_trainings_learn_as_in_float32(
    recipe: str, more: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a scale at which nothing is skipped, so that the same steps are compared."""
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=64.0))
    whole, half = (train(recipe, tmp_path, precision, 6, **more) for precision in ("float32", "float16"))
    assert not any(value for name in half.names_of("diagnostic") if "skipped" in name for value in half.series(name)[1])
    expected, found = losses(whole), losses(half)
    assert expected.keys() == found.keys() and all(len(values) >= 3 for values in expected.values())
    assert expected != found, "it is another precision"
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=0.05, abs=0.02), name


@pytest.mark.parametrize("optimizer", [partial(torch.optim.AdamW, fused=True), torch.optim.RMSprop])
def test_an_overflow_skips_the_step_and_halves_the_scale(optimizer: partial[torch.optim.Optimizer]) -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    update = Update([weight], optimizer([weight], lr=0.1), 0.0, scaler)
    update.backward((weight * torch.tensor([1.0, math.inf])).sum(), 1)
    update.step(True, ALONE)
    assert weight.tolist() == [1.0, 2.0] and (update.scale, update.skips) == (512.0, 1)
    for expected in (512.0, 1024.0):
        update.clear()
        update.backward((weight * torch.tensor([3.0, 4.0])).sum(), 1)
        norm = update.step(True, ALONE)
        assert norm is not None and float(norm) == pytest.approx(5.0), "it is that of the loss, not of the scaled one"
        assert (update.scale, update.skips) == (expected, 1)
    assert weight[0] < 1 and weight[1] < 2


def test_a_gradient_is_clipped_after_it_was_divided_by_the_scale() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    update = Update([weight], torch.optim.SGD([weight], lr=1.0), 0.5, torch.amp.GradScaler("cpu"))
    update.backward(weight.square().sum() / 2, 1)
    update.step(False, ALONE)
    torch.testing.assert_close(weight.detach(), torch.tensor([3.0 - 0.3, 4.0 - 0.4]))


def test_slopes_of_penalties_are_scaled() -> None:
    """A slope of 3e-9 is 0 in float16; a scaled one is not."""
    network = nn.Linear(4, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    samples = torch.ones(3, 4, requires_grad=True)

    def slope(scale: float) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            scores = network(samples)
        return squared_gradient(scores.float() * 3e-9, samples, scale)

    assert slope(1.0).tolist() == [0, 0, 0]
    torch.testing.assert_close(slope(2.0**16), torch.full((3,), 4 * 3e-9**2), rtol=0.05, atol=0)
    plain = squared_gradient(network(samples), samples)
    torch.testing.assert_close(squared_gradient(network(samples), samples, 2.0**10), plain)


def test_skipped_steps_are_journalled_and_leave_no_infinite_number(tmp_path: Path) -> None:
    """At PyTorch's first scale, the sum over pixels of a VAE overflows a few times."""
    run = train("digits-vae", tmp_path, "float16", 12)
    scale, skipped = run.series("vae/loss_scale")[1], run.series("vae/skipped")[1]
    assert skipped[0] == 1 and not skipped[-3:].any()
    assert scale[-1] == 2 ** (16 - skipped.sum())
    assert losses(run)["vae/loss"][-1] < 0.95 * losses(run)["vae/loss"][0]


def test_a_loss_that_always_overflows_ends_the_training(tmp_path: Path) -> None:
    class Breaks(Callback):
        def begin(self, trainer: Trainer) -> None:
            with torch.no_grad():
                next(trainer.model.parameters())[:] = 1e30

    with pytest.raises(DivergedError, match=r"vae/.* Try a lower learning rate .*, or training.precision=float32"):
        zeuxis.train(
            "digits-vae", steps=100, settings=SETTINGS | {"training.precision": "float16"}, runs=tmp_path,
            progress=False, callbacks=[Breaks()],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("bfloat16", "capability", "expected"),
    [(True, (8, 0), "bfloat16"), (False, (7, 5), "float16"), (False, (7, 0), "float16"), (False, (6, 1), "float32")],
)
def test_the_format_of_a_gpu(
    bfloat16: bool, capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision("auto", SimpleNamespace(type="cuda")) == expected  # type: ignore[arg-type]


def test_steps_that_may_be_skipped_are_not_captured(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"float16 skips some; set training.precision=float32"):
        train("digits-vae", tmp_path, "float16", 2, training__capture=True)
