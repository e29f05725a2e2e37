"""The trainer: runs a model's phases step by step and notifies the callbacks.

The first repeats of all phases share one `Iteration` (batch, noise, memo), the second repeats another, and so on. All
random numbers are sampled by generators seeded with the recipe's seed and the number of the step. So on the CPU, with a
fixed number of threads, a resumed run repeats an uninterrupted one bit for bit. Which step is the best, or the last, by
`fid` may differ: its tests are spaced by the time that they take (`zeuxis.evaluation.running`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zeuxis.data import Dataset, batches_of
from zeuxis.data.batches import Batch
from zeuxis.errors import UserError
from zeuxis.files import WriteError
from zeuxis.models import Iteration, Model, Phase
from zeuxis.recipe import Interval
from zeuxis.system import freed_memory_kept, set_handlers, signal_name, stop_handlers
from zeuxis.threads import threads
from zeuxis.training.callbacks.base import Callback
from zeuxis.training.capture import Captured, graph_on
from zeuxis.training.checkpoint import Checkpoint, checkpoints, load_into
from zeuxis.training.distributed import share
from zeuxis.training.engine import Number, iterate
from zeuxis.training.hardware import pick_precision, require_memory, reset_peak_memory
from zeuxis.training.journal import Journal
from zeuxis.training.optimizers import build_updates

__all__ = ["Trainer"]


class Trainer:
    """Trains a model on a data set into a run folder.

    Args:
        folder: the run folder; must exist when `fit` is called.
        model: built from the run's recipe.
        dataset: the training and held-out images.
        device: of the model.
        callbacks: in the order in which they are called.

    Attributes:
        step: steps done.
        batches_read: batches read from the data set.
        seconds: time spent in the training loop.
        numbers: logged in the last step.
        tests: test terms of the last step; empty if there was no test.
        saving: whether a callback asks for a checkpoint of the last step.
        settled: whether the training has ended before its budget was used up.
        share: of every batch, where several processes train together.
        warm: whether it starts from weights of another run, which no seed could make again.
    """

    def __init__(
        self, folder: Path, model: Model, dataset: Dataset, device: torch.device, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.folder, self.model, self.dataset, self.device = folder, model, dataset, device
        self.callbacks, self.options = list(callbacks), model.recipe.training
        model.to(device)
        for name in model.networks:
            model.net(name).precision = getattr(torch, pick_precision(self.options.precision, device))
        self.share = share()
        self.batches = batches_of(
            dataset, model.recipe.data, self.options.batch_size, self.options.seed, device, part=self.share.rows
        )
        self.share.require(self.batches.batch_size)
        self.phases = model.phases
        self.updates = build_updates(model)
        self.generator = torch.Generator(device)
        self.step, self.batches_read, self.seconds = 0, 0, 0.0
        self.numbers: list[Number] = []
        self.tests: dict[str, float] = {}
        self.saving = self.settled = self.warm = False
        self._images_before = 0
        self._before = (0.0, 0, 0.0)
        self._ending, self._stop = False, ""
        if self.options.capture and any(update.scaler for update in self.updates.values()):
            raise UserError(
                "training.capture repeats the same operations in every step, and float16 skips some; set "
                "training.precision=float32, or leave capture off."
            )
        captures = self.options.capture and self.share.size == 1  # messages between processes are not recorded
        self._captured = Captured(self._run, lambda: graph_on(device, self.generator)) if captures else None
        self._require_several()
        model.require_packages()
        require_memory([model.net(name) for name in model.networks], self.batches.batch_size, device)
        for callback in list(self.callbacks):  # a copy, as a callback may add another
            callback.attached(self)

    # -- progress -------------------------------------------------------------------------------------

    @property
    def epoch(self) -> float:
        """Epochs trained so far, with the fraction."""
        return self.batches_read / self.batches.per_epoch

    @property
    def images(self) -> int:
        """Training images seen so far."""
        return self._images_before + self.batches_read * self.batches.batch_size

    @property
    def counters(self) -> dict[str, float]:
        """Steps, epochs and seconds so far."""
        return {"epoch": self.epoch, "step": self.step, "seconds": self.seconds}

    @property
    def spent(self) -> tuple[str, float]:
        """The unit of the recipe's budget, and how much of the budget is used in that unit."""
        return self.options.budget[0], self.options.used(self.counters)

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0..1; 1 if the training has settled."""
        name, used = self.spent
        return 1.0 if self.settled else min(float(used / getattr(self.options, name)), 1.0)

    @property
    def complete(self) -> bool:
        """Whether the budget is used up, or the training has settled."""
        return self.progress >= 1

    @property
    def saves(self) -> bool:
        """Whether the last step is saved: because it is due, the training ends, or a callback asks for it."""
        return self.saving or self._ending or self.is_due(self.options.checkpoint_every)

    def is_due(self, interval: str) -> bool:
        """Returns whether the last step reached a multiple of an interval."""
        count, unit = Interval(interval).parts
        if math.isinf(count):
            return False
        index = ("epoch", "step", "minute").index(unit)
        now = (self.epoch, self.step, self.seconds / 60)
        # The offset guards against rounding: three batches of three per epoch must make epoch 1, not 0.999...
        return math.floor(now[index] / count + 1e-9) > math.floor(self._before[index] / count + 1e-9)

    # -- training -------------------------------------------------------------------------------------

    def fit(self) -> bool:
        """Trains until the budget is used up.

        Returns:
            True if the budget is used up, False if the training was stopped before; the run is saved in both cases.

        Raises:
            DivergedError: if a number became NaN or infinite.
            WriteError: if the run folder cannot be written.
        """
        reset_peak_memory(self.device)
        number = 0 if self.options.threads == "auto" else self.options.threads
        with self._write_errors_explained(), freed_memory_kept(), ExitStack() as ending:
            if self.share.main:
                self.journal = Journal(self.folder / "journal.jsonl", keep=self.step)
                ending.callback(self.journal.close)
            ending.callback(self.batches.close)
            ending.enter_context(_stop_on_signals(self))
            ending.enter_context(torch.random.fork_rng())
            ending.enter_context(threads.fixed(number))
            for callback in reversed(self.callbacks):  # the first begins last: it may have a message for the others
                callback.begin(self)
                ending.callback(callback.end, self)
            before = time.perf_counter()
            while not self._is_over():
                self._before = (self.epoch, self.step, self.seconds / 60)
                with threads.unit("iteration"):
                    self.iterate()
                now = time.perf_counter()
                self.seconds += max(now - before, 0.0)  # in case the clock is set back
                before = now
                self._agree()
                # Read only once per step: a signal that arrives later takes effect after the next step, which is saved.
                self._ending = self.complete or bool(self._stop)
                for callback in self.callbacks:
                    callback.iterated(self)
        return self.complete or not self._stop

    def _agree(self) -> None:
        """Makes all processes count the same time, and stop if one of them is stopped."""
        self.seconds, stopped = self.share.most(self.seconds, bool(self._stop))
        if stopped and not self._stop:
            self.stop("another process was stopped")

    def _is_over(self) -> bool:
        """Returns whether the training ends here; the main process's callbacks may have decided so."""
        over, settled = self.share.most(self._ending or self.complete, self.settled)
        self.settled = bool(settled)
        return bool(over)

    def iterate(self) -> list[Number]:
        """Runs one step of all phases that are due and returns its numbers; calls no callback."""
        seed = int(np.random.SeedSequence([self.options.seed, self.step]).generate_state(1, np.uint64)[0]) >> 1
        # Dropout uses torch's global generator; seeding the generators of all devices takes 0.5 ms.
        (torch.default_generator if self.device.type == "cpu" else torch).manual_seed(seed)
        self.generator.manual_seed(seed ^ 0x5EED)
        used = self.progress
        due = [phase for phase in self.phases if phase.is_due(self.step, used)]
        repeats = max(phase.repeat for phase in due)
        rows = self.batches.batch_size // self.share.size
        names = frozenset(phase.name for phase in due)
        iterations = [
            [self._iteration(rows, self._next_batch, names) for _ in range(self.options.accumulate)]
            for _ in range(repeats)
        ]
        skips = self._skips
        norms = (self.step + 1) % self.options.log_every == 0 or self.step == 0
        with self.share.drawing(rows):
            numbers = self._captured(due, iterations) if self._captured else self._run(due, iterations, norms)
        self.share.average([number.value for number in numbers])
        # A captured iteration always measures the gradients' norms.
        self.numbers = [number for number in numbers if norms or number.role != "gradient"]
        if self._skips > skips:  # what overflowed in float16 changed nothing
            self.numbers = [number for number in self.numbers if number.value.isfinite()]
        self.step += 1
        self.tests, self.saving = {}, False
        return self.numbers

    @property
    def _skips(self) -> int:
        return sum(update.skips for update in self.updates.values())

    def _run(
        self, phases: Sequence[Phase], iterations: Sequence[Sequence[Iteration]], norms: bool = True
    ) -> list[Number]:
        return iterate(phases, self.updates, iterations, norms=norms, share=self.share)

    def _next_batch(self) -> Batch:
        batch = self.batches[self.batches_read]
        self.batches_read += 1
        return batch

    def _iteration(self, count: int, fetch: Callable[[], Batch], due: frozenset[str] | None = None) -> Iteration:
        epoch = torch.full((), self.epoch, device=self.device)
        return Iteration(epoch, self.generator, self.device, count, fetch, due=due)

    def iteration_on(self, batch: Batch) -> Iteration:
        """Returns an iteration on a given batch, for example for a test."""
        return self._iteration(len(batch.images), lambda: batch)

    @contextmanager
    def as_used(self) -> Iterator[None]:
        """Puts the model in the state in which a run uses it: averaged weights, if any, and evaluation mode."""
        with ExitStack() as stack:
            for callback in self.callbacks:
                stack.enter_context(callback.used(self))
            self.model.eval()
            try:
                yield
            finally:
                self.model.train()

    def say(self, words: str) -> None:
        """Shows the user a message through the callbacks."""
        for callback in self.callbacks:
            callback.warned(words)

    def settle(self) -> None:
        """Ends the training after the running step, as if its budget were used up."""
        self.settled = self._ending = True

    def extend(self) -> None:
        """Continues a training that has settled."""
        self.settled = False
        for callback in self.callbacks:
            callback.extended(self)

    def stop(self, reason: str) -> None:
        """Ends the training after the running step; it can be resumed."""
        self._stop = reason

    # -- checkpoints ----------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Returns everything that is needed to resume the training from here."""
        tensors: dict[str, Tensor] = {f"networks/{name}": t for name, t in self.model.networks.state_dict().items()}
        state: dict[str, Any] = {
            "step": self.step, "epoch": self.epoch, "images": self.images,
            "seconds": self.seconds, "settled": self.settled, "data": self.dataset.fingerprint,
            "recipe": self.model.recipe.model_dump(mode="json", exclude_none=True),
        }  # fmt: skip
        states = [callback.state() for callback in self.callbacks]
        states += [update.state(f"optimizers/{phase}") for phase, update in self.updates.items()]
        for name, value in ((name, value) for entries in states for name, value in entries.items()):
            if isinstance(value, Tensor):
                tensors[name] = value
            else:
                state[name] = value
        return Checkpoint(tensors, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Returns to the state of a checkpoint.

        Raises:
            UserError: if it belongs to other networks, other optimisers or other data.
        """
        state = checkpoint.state
        if state["data"] != self.dataset.fingerprint:
            raise UserError(
                f"The data of {self.folder} has changed since it was trained (fingerprint {state['data']}, now "
                f"{self.dataset.fingerprint}); put the same images back, or start a new run."
            )
        load_into(self.model.networks, checkpoint.part("networks/"))
        for phase, update in self.updates.items():
            update.restore(checkpoint, f"optimizers/{phase}")
        for callback in self.callbacks:
            callback.restore(checkpoint)
        self.step, self.seconds, self.settled = state["step"], state["seconds"], state.get("settled", False)
        # If the batch size has changed, epoch and number of images stay the same; the number of batches is converted.
        self.batches_read = round(state["epoch"] * self.batches.per_epoch)
        self._images_before = state["images"] - self.batches_read * self.batches.batch_size

    @contextmanager
    def _write_errors_explained(self) -> Iterator[None]:
        """Adds to the message of a failed write which checkpoint is safe and how to resume."""
        try:
            yield
        except WriteError as error:
            paths = checkpoints(self.folder / "checkpoints")
            safe = f"Its last good checkpoint, {paths[0].name}, is kept" if paths else "It has no checkpoint yet"
            hint = f" {safe}. Once it can be written, go on with: zeuxis resume {quote(str(self.folder))}"
            raise WriteError(
                f"Training of {self.folder} stopped at step {self.step}: {error}{hint if self.folder.exists() else ''}"
            ) from error

    def _require_several(self) -> None:
        """Raises a `UserError` for batch normalisation on batches of one image, which have no variance."""
        normalised = next((m for m in self.model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)), None)
        if normalised is not None and self.batches.batch_size == 1:
            reason = f"training.batch_size is {self.options.batch_size}, and there"
            count = len(self.dataset.train)
            raise UserError(
                f"Batches of one image cannot train networks with batch normalisation (bn): {reason} "
                f"{f'are {count:,} training images' if count > 1 else 'is one training image'}; two or more are needed."
            )


@contextmanager
def _stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """Makes Ctrl-C or SIGTERM end the training after the running step, and a second one end it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        set_handlers(previous)
        trainer.stop(signal_name(number))
        for callback in trainer.callbacks:
            callback.stopping()

    previous = stop_handlers()
    set_handlers(dict.fromkeys(previous, handle))
    try:
        yield
    finally:
        set_handlers(previous)
