"""Iterations captured once on a GPU and replayed.

An iteration of a small network is hundreds of short operations, and a GPU ends each before Python has asked for the
next. A CUDA graph holds them all, forwards, backwards and the optimisers' updates, and is launched as one. It works on
the same memory every time, so what differs between iterations is put where the graph reads it: the batches, the
epoch and the learning rates. Random numbers follow their generators, whose seeds are set before each replay. Whatever
else Python decided during the capture stays decided.

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
    """Captures operations on tensors and repeats them on the same memory."""

    def capture(self, work: Callable[[], list[Number]]) -> list[Number]:
        """Captures what `work` does, without doing it, and returns what it returns."""

    def replay(self) -> None:
        """Does it."""


def graph_on(device: torch.device, generator: torch.Generator) -> Graph:
    """A graph on a device, where numbers are drawn from this generator besides the device's own.

    Raises:
        UserError: if nothing can.
    """
    if device.type != "cuda":
        raise UserError(f"training.capture needs a GPU by NVIDIA, and this run is on '{device}'; leave it off.")
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
    """The work of an iteration: done as it is at first, then captured and replayed.

    In the first iterations libraries choose their algorithms, and optimisers set up their state. Where phases are due
    at intervals, each set of phases has a graph of its own.

    Args:
        work: runs the phases that are due on what each repeat is given, and returns the numbers; may change nothing but
            tensors.
        graph: makes a graph.
    """

    warm = 3

    def __init__(self, work: Work, graph: Callable[[], Graph]) -> None:
        self.work, self.graph = work, graph
        self.replayed: dict[tuple[str, ...], _Replayed] = {}
        self._first: Graph | None = graph()  # before anything is trained, as there may be none

    def __call__(self, phases: Sequence[Phase], iterations: Iterations) -> list[Number]:
        """Does the work; what it returns is overwritten by the next call.

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
        # Images come from the host, which a capture cannot wait for: what will be read is read before.
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
