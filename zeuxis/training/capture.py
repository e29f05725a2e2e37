"""Steps captured once on a GPU as a CUDA graph and replayed.

A step of a small network is hundreds of short operations, and the GPU finishes each before Python launches the next. A
CUDA graph holds all of them (forward passes, backward passes, optimiser updates) and is launched as one. It works on
the same memory every time, so what differs between steps is copied to where the graph reads it: the batches, the epoch
and the learning rates. Random numbers follow their generators, whose seeds are set before each replay. Every other
decision that Python made during the capture is fixed.

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
from zeuxis.models import Iteration, Phase
from zeuxis.training.engine import Number

__all__ = ["Captured", "Graph", "graph_on"]

Iterations = Sequence[Sequence[Iteration]]
Work = Callable[[Sequence[Phase], Iterations], list[Number]]


class Graph(Protocol):
    """Captures operations on tensors and replays them on the same memory."""

    def capture(self, work: Callable[[], list[Number]]) -> list[Number]:
        """Captures the operations of `work` without executing them, and returns its result."""

    def replay(self) -> None:
        """Executes the captured operations."""


def graph_on(device: torch.device, generator: torch.Generator) -> Graph:
    """Returns a graph on a device, for operations that use this generator or the device's own.

    Raises:
        UserError: if the device cannot capture.
    """
    if device.type != "cuda":
        raise UserError(f"training.capture needs an NVIDIA GPU, but this run is on '{device}'; leave it off.")
    return _CudaGraph(generator)


class _CudaGraph:
    def __init__(self, generator: torch.Generator) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)

    def capture(self, work: Callable[[], list[Number]]) -> list[Number]:
        with torch.cuda.graph(self.graph):
            return work()

    def replay(self) -> None:
        self.graph.replay()


class Captured:
    """The work of a step: executed normally at first, then captured and replayed.

    In the first steps, libraries choose their algorithms and optimisers create their state. If some phases are due at
    intervals, each set of phases that are due together has its own graph.

    Args:
        work: runs the phases that are due on the iterations of each repeat and returns the numbers; must change only
            tensors.
        graph: creates a graph.
    """

    warm = 3

    def __init__(self, work: Work, graph: Callable[[], Graph]) -> None:
        self.work, self.graph = work, graph
        self.replayed: dict[tuple[str, ...], _Replayed] = {}
        self._first: Graph | None = graph()  # at once, so that an unsuitable device is reported before training

    def __call__(self, phases: Sequence[Phase], iterations: Iterations) -> list[Number]:
        """Does the work of a step and returns its numbers, which the next call overwrites.

        Raises:
            UserError: if it cannot be captured.
        """
        key = tuple(phase.name for phase in phases)
        if key not in self.replayed:
            self.replayed[key] = _Replayed(self._first or self.graph())
            self._first = None
        replayed = self.replayed[key]
        replayed.done += 1
        if replayed.done <= self.warm:
            numbers = self.work(phases, iterations)
            replayed.reads = [iteration.is_read for iteration in _flat(iterations)]
            return numbers
        if not replayed.held:
            replayed.capture(lambda held: self.work(phases, held), iterations)
        return replayed.replay(iterations)


class _Replayed:
    """The graph of one set of phases."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.done = graph, 0
        self.reads: list[bool] = []
        self.held: list[Iteration] = []
        self.numbers: list[Number] = []

    def capture(self, work: Callable[[Iterations], list[Number]], iterations: Iterations) -> None:
        # A capture cannot wait for images from the host, so the batches that will be read are loaded before it.
        reads = iter(self.reads)
        nested = [
            [replace(iteration, _batch=iteration.batch if next(reads) else None) for iteration in parts]
            for parts in iterations
        ]
        self.held = _flat(nested)
        try:
            self.numbers = self.graph.capture(lambda: work(nested))
        except RuntimeError as error:
            raise UserError(
                f"An iteration of this model cannot be captured ({str(error).splitlines()[0]}); train it with "
                "training.capture=false."
            ) from error

    def replay(self, iterations: Iterations) -> list[Number]:
        for held, iteration, read in zip(self.held, _flat(iterations), self.reads, strict=True):
            held.epoch.copy_(iteration.epoch)
            for part in fields(Batch) if read else ():
                mine, new = getattr(held.batch, part.name), getattr(iteration.batch, part.name)
                if isinstance(mine, Tensor):
                    mine.copy_(new)
        self.graph.replay()
        return self.numbers


def _flat(iterations: Iterations) -> list[Iteration]:
    return [iteration for parts in iterations for iteration in parts]
