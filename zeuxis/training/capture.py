"""Iterations recorded once on a GPU and replayed.

An iteration of a small network is hundreds of short operations, and a GPU ends each before Python has asked for the
next. A CUDA graph holds them all, forwards, backwards and the optimisers' updates, and is launched as one. It works on
the same memory every time, so what differs between iterations is put where the recording read it: the batches, the
epoch and the learning rates. Random numbers follow their generators, whose seeds are set before each replay. Whatever
else Python decided while it recorded stays decided.

Source: PyTorch's notes on CUDA semantics, section CUDA graphs, whole-network capture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Protocol

import torch
from torch import Tensor

from zeuxis.data.batches import Batch
from zeuxis.errors import UserError
from zeuxis.models import Phase, Step
from zeuxis.training.engine import Number

__all__ = ["Captured", "Recorder", "recorder"]

Steps = Sequence[Sequence[Step]]
Work = Callable[[Sequence[Phase], Steps], list[Number]]


class Recorder(Protocol):
    """What records operations on tensors and repeats them on the same memory."""

    def record(self, work: Callable[[], list[Number]]) -> list[Number]:
        """Records what `work` does, without doing it, and returns what it returns."""

    def replay(self) -> None:
        """Does it."""


def recorder(device: torch.device, generator: torch.Generator) -> Recorder:
    """What records on a device, where numbers are drawn from this generator besides the device's own.

    Raises:
        UserError: if nothing can.
    """
    if device.type != "cuda":
        raise UserError(f"training.capture records on GPUs by NVIDIA, and this run is on '{device}'; leave it off.")
    return _CudaGraph(generator)


class _CudaGraph:
    def __init__(self, generator: torch.Generator) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)

    def record(self, work: Callable[[], list[Number]]) -> list[Number]:
        with torch.cuda.graph(self.graph):
            return work()

    def replay(self) -> None:
        self.graph.replay()


class Captured:
    """Work on the steps of an iteration, which is recorded once the first iterations have been done as they are.

    In those libraries choose their algorithms, and optimisers set up their state. Where phases are due at intervals,
    each set of phases has a recording of its own.

    Args:
        work: from the phases that are due and an iteration's steps to its numbers; may change nothing but tensors.
        recorder: gives what records it.
    """

    warm = 3

    def __init__(self, work: Work, recorder: Callable[[], Recorder]) -> None:
        self.work, self.recorder = work, recorder
        self.recordings: dict[tuple[str, ...], _Recording] = {}
        self._first: Recorder | None = recorder()  # before anything is trained, as there may be none

    def __call__(self, phases: Sequence[Phase], steps: Steps) -> list[Number]:
        """Does the work; what it returns is overwritten by the next call.

        Raises:
            UserError: if it cannot be recorded.
        """
        key = tuple(phase.name for phase in phases)
        if key not in self.recordings:
            self.recordings[key] = _Recording(self._first or self.recorder())
            self._first = None
        recording = self.recordings[key]
        recording.done += 1
        if recording.done <= self.warm:
            numbers = self.work(phases, steps)
            recording.reads = [step.is_read for step in _flat(steps)]
            return numbers
        if not recording.held:
            recording.record(lambda held: self.work(phases, held), steps)
        return recording.replay(steps)


class _Recording:
    """What was recorded of one set of phases."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.done = recorder, 0
        self.reads: list[bool] = []
        self.held: list[Step] = []
        self.numbers: list[Number] = []

    def record(self, work: Callable[[Steps], list[Number]], steps: Steps) -> None:
        # Images come from the host, which a recording cannot wait for: what will be read is read before.
        reads = iter(self.reads)
        nested = [[replace(step, _batch=step.batch if next(reads) else None) for step in parts] for parts in steps]
        self.held = _flat(nested)
        try:
            self.numbers = self.recorder.record(lambda: work(nested))
        except RuntimeError as error:
            raise UserError(
                f"An iteration of this model cannot be recorded ({str(error).splitlines()[0]}); train it with "
                "training.capture=false."
            ) from error

    def replay(self, steps: Steps) -> list[Number]:
        for held, step, read in zip(self.held, _flat(steps), self.reads, strict=True):
            held.epoch.copy_(step.epoch)
            for part in fields(Batch) if read else ():
                mine, new = getattr(held.batch, part.name), getattr(step.batch, part.name)
                if isinstance(mine, Tensor):
                    mine.copy_(new)
        self.recorder.replay()
        return self.numbers


def _flat(steps: Steps) -> list[Step]:
    return [step for parts in steps for step in parts]
