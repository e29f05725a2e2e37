"""Recorded iterations, on a CPU: a tape stands for the CUDA graph, and repeats operations on the same memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zeuxis.data import load as load_data
from zeuxis.errors import UserError
from zeuxis.models import build_model
from zeuxis.recipe import load_recipe
from zeuxis.training import Trainer, capture, trainer
from zeuxis.training.callbacks import standard_callbacks
from zeuxis.training.engine import Number


class Tape(TorchDispatchMode):
    """Writes down every operation with the tensors it read and wrote."""

    subject: Trainer

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        super().__init__()
        self.generators = (generator, torch.default_generator)
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        assert function._overloadpacket.__name__ != "lift_fresh", "numbers of the host cannot be captured"
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def capture(self, work: Callable[[], list[Number]]) -> list[Number]:
        before = {name: tensor.clone() for name, tensor in self.subject.checkpoint().tensors.items()}
        drawn = [generator.get_state() for generator in self.generators]
        with self:
            found = work()
        # A CUDA graph is captured without being run.
        for name, tensor in self.subject.checkpoint().tensors.items():
            tensor.copy_(before[name])
        for generator, state in zip(self.generators, drawn, strict=True):
            generator.set_state(state)
        return found

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for function, args, kwargs, result in self.operations:
            anew = function(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(anew), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


CASES = {
    "digits-vae": ["model.kl_warmup=0.02", "training.precision=bfloat16"],
    "digits-gan": ["model.instance_noise=0.5", "model.instance_noise_epochs=0.02", "networks.generator.dropout=0.2"],
    "modern-gan-28": [],
    "digits-cgan": ["model.r1_penalty=1", "model.lazy_penalties=2"],
    "mnist-wgan-gp": [],
    "infogan-62-10-2": [],
    "mnist-cgan": [],
    "mnist-aae": [],
    "modern-vae-28": ["training.log_every=3"],
}


def trained(name: str, captured: bool, device: str, folder: Path) -> tuple[Trainer, list[dict[str, float]]]:
    """Nine iterations, of which six are replayed where they are captured, and their numbers."""
    settings = ["data.source=digits", "data.convert=true", "training.batch_size=8", *CASES[name]]
    recipe = load_recipe(name, [*settings, f"training.capture={str(captured).lower()}"])
    dataset = load_data(recipe.data, progress=False)
    model = build_model(recipe, dataset.classes)
    subject = Trainer(folder, model, dataset, torch.device(device), standard_callbacks(model, visible=False))
    Tape.subject = subject
    numbers = []
    for _ in range(9):
        for update in subject.updates.values():
            update.set_rate(1 / (1 + subject.step))
        numbers.append({f"{name} {i}": float(value) for i, (name, value, _) in enumerate(subject.iterate())})
    return subject, numbers


@pytest.mark.parametrize("name", CASES)
def test_a_captured_training_equals_a_plain_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, expected = trained(name, False, "cpu", tmp_path)
    monkeypatch.setattr(trainer, "graph_on", Tape)
    repeated, numbers = trained(name, True, "cpu", tmp_path)
    assert repeated._captured is not None
    replays = [replayed.graph.replays for replayed in repeated._captured.replayed.values()]
    assert replays == ([2, 1] if "model.lazy_penalties=2" in CASES[name] else [6])
    assert repeated.batches_read == plain.batches_read
    assert numbers == expected
    torch.testing.assert_close(repeated.checkpoint().tensors, plain.checkpoint().tensors, rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_trains_recorded_as_uncaptured(name: str, tmp_path: Path) -> None:
    (plain, _), (repeated, _) = (trained(name, captured, "cuda", tmp_path) for captured in (False, True))
    torch.testing.assert_close(repeated.checkpoint().tensors, plain.checkpoint().tensors, rtol=0.02, atol=1e-3)


def test_a_cpu_captures_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs an NVIDIA GPU, but this run is on 'cpu'; leave it off"):
        capture.graph_on(torch.device("cpu"), torch.Generator())


def test_what_cannot_be_recorded_is_said() -> None:
    class Refusing:
        def capture(self, work: Any) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing\nat ...")

        def replay(self) -> None: ...

    work = capture.Captured(lambda phases, steps: [], Refusing)
    for _ in range(work.warm):
        assert work([], []) == []
    with pytest.raises(
        UserError, match=r"\(operation not permitted when stream is capturing\).*training.capture=false"
    ):
        work([], [])
