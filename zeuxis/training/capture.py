"""Iterations recorded once on a GPU and replayed.

An iteration of a small network is hundreds of short operations, and a GPU ends each before Python has asked for the
next. A CUDA graph holds them all, forwards, backwards and the optimisers' updates, and is launched as one. It works on
the same memory every time, so what differs between iterations is put where the recording read it: the batches, and
the epoch. Random numbers follow their generators, whose seeds are set before each replay. Whatever else Python decided
while it recorded stays decided.

Source: PyTorch's notes on CUDA semantics, section CUDA graphs, whole-network capture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from zeuxis.errors import UserError
from zeuxis.models import Step

__all__ = ["Captured", "Numbers", "Recorder", "recorder"]

# Names and values of what an iteration journals; a phase that repeats gives a name several times.
Numbers = list[tuple[str, Tensor]]


class Recorder(Protocol):
    """What records operations on tensors and repeats them on the same memory."""

    def record(self, work: Callable[[], Numbers]) -> Numbers:
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

    def record(self, work: Callable[[], Numbers]) -> Numbers:
        with torch.cuda.graph(self.graph):
            return work()

    def replay(self) -> None:
        self.graph.replay()


class Captured:
    """Work on the steps of an iteration, which is recorded once the first iterations have been done as they are.

    In those libraries choose their algorithms, and optimisers set up their state.

    Args:
        work: from an iteration's steps to what is journalled; may change nothing but tensors.
        recorder: records it.
    """

    warm = 3

    def __init__(self, work: Callable[[list[Step]], Numbers], recorder: Recorder) -> None:
        self.work, self.recorder = work, recorder
        self.done = 0
        self.reads: list[bool] = []
        self.held: list[Step] = []

    def __call__(self, steps: list[Step]) -> Numbers:
        """Does the work for these steps; what it returns is overwritten by the next call.

        Raises:
            UserError: if it cannot be recorded.
        """
        self.done += 1
        if self.done <= self.warm:
            found = self.work(steps)
            self.reads = [step.is_read for step in steps]
            return found
        if not self.held:
            self._record(steps)
        for held, step, read in zip(self.held, steps, self.reads, strict=True):
            held.epoch.copy_(step.epoch)
            if read:
                for mine, new in ((held.batch.images, step.batch.images), (held.batch.labels, step.batch.labels)):
                    if mine is not None and new is not None:
                        mine.copy_(new)
        self.recorder.replay()
        return self.found

    def _record(self, steps: list[Step]) -> None:
        # Images come from the host, which a recording cannot wait for: what will be read is read before.
        self.held = [
            replace(step, _batch=step.batch if read else None) for step, read in zip(steps, self.reads, strict=True)
        ]
        try:
            self.found = self.recorder.record(lambda: self.work(self.held))
        except RuntimeError as error:
            raise UserError(
                f"An iteration of this model cannot be recorded ({str(error).splitlines()[0]}); train it with "
                "training.capture=false."
            ) from error
