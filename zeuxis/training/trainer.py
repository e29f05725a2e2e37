"""The trainer: runs a model's phases, and keeps the run folder.

An iteration runs every phase of the model as often as it repeats. The first repeat of each phase shares one
`Step` (batch, noise, memo), the second another, and so on. After a phase, what was computed through the
networks it updated is forgotten. Everything random in an iteration comes from generators seeded with the
recipe's seed and the iteration's number, so a resumed run repeats an unbroken one bit for bit on the CPU.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zeuxis.data import Batches, Dataset
from zeuxis.data.batches import Batch, make_batch
from zeuxis.errors import DivergedError, UserError, one_of
from zeuxis.files import WriteError, subfolder, write_file
from zeuxis.models import Model, Step, Weighted
from zeuxis.models.base import total
from zeuxis.recipe import Interval
from zeuxis.threads import paced, threads
from zeuxis.training.capture import Captured, Numbers, recorder
from zeuxis.training.checkpoint import Checkpoint, checkpoints, load_into
from zeuxis.training.hardware import keep_freed_memory, peak_memory, pick_precision, require_memory, reset_peak_memory
from zeuxis.training.journal import Journal, read_warnings
from zeuxis.training.monitors import Monitors, not_finite
from zeuxis.training.optimizer import AdamW
from zeuxis.training.snapshots import draw, save_tiles

__all__ = ["Observer", "Trainer"]

# How the name ends under which a phase's gradient is journalled.
NORM = "/gradient_norm"


class Observer(Protocol):
    """Whoever watches a training: a display, a test, a running estimate.

    What is inherited from here does nothing.

    Attributes:
        measures: names of the terms that it adds to a test.
    """

    measures: tuple[str, ...] = ()

    def begin(self, trainer: Trainer) -> None:
        """Training is about to start or go on."""

    def stepped(self, trainer: Trainer) -> None:
        """An iteration is done."""

    def tested(self, trainer: Trainer) -> dict[str, float]:
        """The test set was measured, and the model is as it would be used; returns further terms of the test."""
        return {}

    def recorded(self, line: dict[str, Any]) -> None:
        """A journal line was written."""

    def say(self, text: str) -> None:
        """Something the user should know."""

    def end(self) -> None:
        """Training has stopped, for whatever reason."""


class Trainer:
    """Trains a model on a data set into a run folder.

    Args:
        folder: the run folder; exists.
        model: built from the run's recipe.
        dataset: what it learns from.
        device: where it runs.
        observer: told of what happens.
    """

    def __init__(self, folder: Path, model: Model, dataset: Dataset, device: torch.device, observer: Observer) -> None:
        self.folder, self.model, self.dataset, self.device, self.observer = folder, model, dataset, device, observer
        self.options = model.recipe.training
        self.model.to(device)
        for name in model.networks:
            model.net(name).precision = getattr(torch, pick_precision(self.options.precision, device))
        self.batches = Batches(dataset, model.recipe.data, self.options.batch_size, self.options.seed, device)
        self.phases = model.phases
        self._require_known_names()
        self._require_several()
        self.optimizers = {phase.name: self._optimizer(phase.name, phase.updates) for phase in self.phases}
        self.average = copy.deepcopy(self._generating()) if self.options.ema else None
        self.generator = torch.Generator(device)
        # Counters, all part of a checkpoint: iterations, batches read, seconds in the loop, best test value.
        self.step, self.draws, self.seconds = 0, 0, 0.0
        self._images_before = 0
        self._threads = 0  # as last journalled
        self.best: tuple[float, int] | None = None
        # Whether what `training.until` names no longer falls, as far as tests after this step tell.
        self.settled, self.watched_from = False, 0
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._stop = ""
        self._work = self._run_phases
        if self.options.capture:
            self._work = Captured(self._run_phases, recorder(device, self.generator))
        require_memory([model.net(name) for name in model.networks], self.batches.batch_size, device)
        self._require_known_term()

    # -- progress -------------------------------------------------------------------------------------

    @property
    def epoch(self) -> float:
        """Epochs so far, as a fraction."""
        return self.draws / self.batches.per_epoch

    @property
    def images(self) -> int:
        """Training images seen so far."""
        return self._images_before + self.draws * self.batches.batch_size

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0..1; 1 where the training has settled before."""
        if self.settled:
            return 1.0
        name, used = self.spent
        return min(float(used / getattr(self.options, name)), 1.0)

    @property
    def spent(self) -> tuple[str, float]:
        """What the recipe's budget is counted in, and how much of that is used."""
        used = {"epochs": self.epoch, "steps": self.step, "minutes": self.seconds / 60}
        name = next(name for name in used if getattr(self.options, name) is not None)
        return name, used[name]

    # -- training -------------------------------------------------------------------------------------

    def fit(self) -> bool:
        """Trains until the budget is used up.

        Returns:
            True if the budget is used up, False if the user interrupted; either way the run is saved.

        Raises:
            UserError: if a term became NaN or infinite, or the run folder cannot be written.
        """
        keep_freed_memory()
        reset_peak_memory(self.device)
        with self._kept():
            self.journal = Journal(self.folder / "journal.jsonl", keep=self.step)
            self.monitors = Monitors(self.journal.lines)
            self.observer.begin(self)
            try:
                number = 0 if self.options.threads == "auto" else self.options.threads
                with _stop_on_signals(self), torch.random.fork_rng(), threads.fixed(number):
                    self._loop()
            finally:
                self.journal.close()
                self.observer.end()
        return not self._stop

    def _loop(self) -> None:
        started = time.perf_counter() - self.seconds
        if self.step == 0:
            self._snapshot()
        last = self.progress >= 1
        while not last:
            before = (self.draws / self.batches.per_epoch, self.step, self.seconds / 60)
            with threads.unit("iteration"):
                self._iterate()
            self.seconds = time.perf_counter() - started
            # Read once: a signal that comes later finds its place in the next iteration, and is saved there.
            last = self.progress >= 1 or bool(self._stop)
            tested = {}
            if self._due(self.options.test_every, before) or self.progress >= 1:
                tested = self._test()
                with self._as_used():
                    tested |= self.observer.tested(self)
                self.settled = self._has_settled(tested)
                if self.settled:
                    why = f"{self.options.until} no longer falls"
                    self.observer.say(f"{self.folder.name} has settled at epoch {self.epoch:.3g}: {why}.")
                last = last or self.settled
            keep = last or self._due(self.options.checkpoint_every, before)
            if tested or keep or self.step % self.options.record_every == 0:
                self._record(tested)
            if self._due(self.options.snapshot_every, before) or self.progress >= 1:
                self._snapshot()
            if keep or tested:
                self._checkpoint(tested, keep)
            self.observer.stepped(self)

    def _iterate(self) -> None:
        seed = int(np.random.SeedSequence([self.options.seed, self.step]).generate_state(1, np.uint64)[0] >> 1)
        # Dropout draws from torch's own generator; seeding those of all devices takes 0.5 ms.
        (torch.default_generator if self.device.type == "cpu" else torch).manual_seed(seed)
        self.generator.manual_seed(seed ^ 0x5EED)
        repeats = max(phase.repeat for phase in self.phases)
        steps = [self._step(self.batches.batch_size, self._next_batch) for _ in range(repeats)]
        for name, value in self._work(steps):
            if self._norms_are_due or not name.endswith(NORM):
                self._add(name, value)
        self.step += 1
        self._update_average()

    @property
    def _norms_are_due(self) -> bool:
        return (self.step + 1) % self.options.record_every == 0 or self.step == 0

    def _run_phases(self, steps: list[Step]) -> Numbers:
        """Runs every phase as often as it repeats; returns what is journalled, of each repeat."""
        numbers = []
        for phase in self.phases:
            for step in steps[: phase.repeat]:
                terms = phase.loss(step)
                loss = total(terms)
                optimizer = self.optimizers[phase.name]
                parameters = optimizer.param_groups[0]["params"]
                optimizer.zero_grad(set_to_none=True)
                # Only what the phase updates gets gradients: the rest of the graph is passed through.
                loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
                if self._norms_are_due or self.options.capture:  # a recording does the same every time
                    grads = [p.grad for p in parameters if p.grad is not None]
                    numbers.append((phase.name + NORM, torch.nn.utils.get_total_norm(grads)))
                optimizer.step()
                for other in steps:
                    other.forget(phase.updates)
                for name, term in terms.items():
                    value = term.value if isinstance(term, Weighted) else term
                    numbers.append((f"{phase.name}/{name}", value.detach()))
                numbers.append((f"{phase.name}/loss", loss.detach()))
                numbers += [(f"{phase.name}/{name}", value) for name, value in step.recorded.items()]
                step.recorded.clear()
        return numbers

    def _next_batch(self) -> Batch:
        batch = self.batches[self.draws]
        self.draws += 1
        return batch

    def _step(self, count: int, fetch: Callable[[], Batch]) -> Step:
        return Step(torch.full((), self.epoch, device=self.device), self.generator, self.device, count, fetch)

    def _step_of(self, batch: Batch) -> Step:
        """A step on images at hand, as for a test."""
        return self._step(len(batch.images), lambda: batch)

    def _generating(self) -> nn.ModuleDict:
        return nn.ModuleDict({name: self.model.net(name) for name in self.model.generating_networks})

    def _update_average(self) -> None:
        if self.average is None:
            return
        # The decay rises from 0 in the first steps, so that the average does not hang on to the start.
        decay = min(self.options.ema, self.step / (self.step + 10))
        source = self._generating()
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), source.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
            for held, buffer in zip(self.average.buffers(), source.buffers(), strict=True):
                held.copy_(buffer)

    # -- records --------------------------------------------------------------------------------------

    def _add(self, name: str, value: Tensor) -> None:
        total, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = (value + total, count + 1)

    def _record(self, tested: dict[str, float]) -> None:
        line: dict[str, Any] = {
            "step": self.step, "epoch": round(self.epoch, 6), "images": self.images, "seconds": round(self.seconds, 3),
        }  # fmt: skip
        # One transfer for all terms: a GPU is waited for once a line, not once a term.
        names, values = list(self._sums), [total / count for total, count in self._sums.values()]
        numbers = torch.stack([v.float() for v in values]).tolist()
        line |= dict(zip(names, numbers, strict=True))
        line |= {f"test/{name}": value for name, value in tested.items()}
        self._sums.clear()
        broken = not_finite(line)
        if broken:
            raise DivergedError(self._divergence(broken))
        if threads.number != self._threads:
            line["cost/threads"] = self._threads = threads.number
        if tested or self.progress >= 1:
            line["cost/peak_memory_mib"] = round(peak_memory(self.device), 1)
        self.journal.write(line)
        self.observer.recorded(line)
        for words in self.monitors(line):
            self._warn(words)

    def _divergence(self, term: str) -> str:
        kept = checkpoints(self.folder / "checkpoints")
        safe = f"Its last good checkpoint, {kept[0].name}, is kept." if kept else "There is no checkpoint yet."
        phase = term.partition("/")[0]
        rate = self.options.optimizers.get(phase, self.options.optimizer).learning_rate
        words = (
            f"Training of {self.folder} stopped at step {self.step}: the term {term} became NaN or infinite. {safe} "
            f"Try a lower learning rate (training.optimizer.learning_rate={rate / 4:g})."
        )
        self._note(words)
        return words

    def _warn(self, words: str) -> None:
        self._note(words)
        self.observer.say(words)

    def _note(self, words: str) -> None:
        path = self.folder / "warnings.jsonl"
        told = [*read_warnings(path), {"step": self.step, "epoch": round(self.epoch, 3), "warning": words}]
        write_file(path, "".join(json.dumps(line) + "\n" for line in told))

    def _test(self) -> dict[str, float]:
        """Means of the model's test terms over the held-out images."""
        totals: dict[str, Tensor] = {}
        indices, size = self.dataset.test, 256
        self.model.eval()
        with torch.no_grad():
            for start in paced(range(0, len(indices), size), "test"):
                chosen = indices[start : start + size]
                batch = make_batch(self.dataset, self.model.recipe.data, chosen, self.device)
                terms = self.model.test(self._step_of(batch))
                if not terms:
                    break
                for name, value in terms.items():
                    totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value * len(chosen)
        self.model.train()
        return {name: float(total / len(indices)) for name, total in totals.items()}

    def _has_settled(self, tested: dict[str, float]) -> bool:
        """Whether what `training.until` names has not fallen by more than its error in the last tests."""
        name = self.options.until
        if not name or name not in tested:
            return False
        keys = (f"test/{name}", f"test/{name}_stderr")
        found = [
            (line["step"], line[keys[0]], line.get(keys[1], 0.0)) for line in self.journal.lines if keys[0] in line
        ]
        found.append((self.step, tested[name], tested.get(f"{name}_stderr", 0.0)))
        reached, since = math.inf, 0
        for step, value, stderr in found:
            if value < reached - stderr:
                reached, since = value, 0
            elif step > self.watched_from:
                since += 1
        return since >= self.options.patience

    @contextmanager
    def _as_used(self) -> Iterator[None]:
        """The model as a run will use it: averaged weights where there are such, and nothing dropped."""
        trained = self._generating()
        if self.average is not None:
            self.model.networks.update(dict(self.average.items()))
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()
            self.model.networks.update(dict(trained.items()))

    def _snapshot(self) -> None:
        with self._as_used():
            images = draw(self.model, self.device)
        if images is not None:
            save_tiles(subfolder(self.folder, "snapshots") / f"step-{self.step:08d}.png", images)

    # -- checkpoints ----------------------------------------------------------------------------------

    def _checkpoint(self, tested: dict[str, float], keep: bool) -> None:
        best = False
        watched = self.options.watched
        if watched in tested:
            best = self.best is None or tested[watched] < self.best[0]
            self.best = (tested[watched], self.step) if best else self.best
        if not keep and not best:
            return
        state = {
            "step": self.step, "draws": self.draws, "epoch": self.epoch, "images": self.images,
            "seconds": self.seconds, "best": self.best, "data": self.dataset.fingerprint,
            "settled": self.settled, "watched_from": self.watched_from,
            "recipe": self.model.recipe.model_dump(mode="json", exclude_none=True),
        }  # fmt: skip
        Checkpoint(self._tensors(), state).save(subfolder(self.folder, "checkpoints"))

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"networks/{name}": t for name, t in self.model.networks.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average/{name}": t for name, t in self.average.state_dict().items()}
        for phase, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizers/{phase}/{index}/{key}": t for key, t in state.items()}
        return tensors

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes back to where a checkpoint was written.

        Raises:
            UserError: if it belongs to other networks or other data.
        """
        state = checkpoint.state
        if state["data"] != self.dataset.fingerprint:
            raise UserError(
                f"The data of {self.folder} has changed since it was trained (fingerprint {state['data']}, now "
                f"{self.dataset.fingerprint}); put the same images back, or start a new run."
            )
        load_into(self.model.networks, checkpoint.part("networks/"))
        if self.average is not None:
            load_into(self.average, checkpoint.part("average/"))
        for phase, optimizer in self.optimizers.items():
            saved = checkpoint.part(f"optimizers/{phase}/")
            for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
                entries = {k.split("/")[1]: t for k, t in saved.items() if k.startswith(f"{index}/")}
                # Moments take the memory layout of their parameter, as they had before.
                optimizer.state[parameter] = {
                    key: torch.empty_like(parameter).copy_(t) if t.dim() else t.to(parameter.device)
                    for key, t in entries.items()
                }
        self.step, self.seconds = state["step"], state["seconds"]
        # Batches of another size than before go on in the same epoch, and what was seen stays seen.
        self.draws = round(state["epoch"] * self.batches.per_epoch)
        self._images_before = state["images"] - self.draws * self.batches.batch_size
        self.best = (state["best"][0], state["best"][1]) if state["best"] else None
        self.settled, self.watched_from = state.get("settled", False), state.get("watched_from", 0)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Adds to a failed write what is kept of the run, and how it goes on."""
        try:
            yield
        except WriteError as error:
            kept = checkpoints(self.folder / "checkpoints")
            safe = f"Its last good checkpoint, {kept[0].name}, is kept" if kept else "It has no checkpoint yet"
            more = f" {safe}. Once it can be written, go on with: zeuxis resume {self.folder}"
            raise WriteError(
                f"Training of {self.folder} stopped at step {self.step}: {error}{more if self.folder.exists() else ''}"
            ) from error

    # -- set-up ---------------------------------------------------------------------------------------

    def _optimizer(self, phase: str, networks: tuple[str, ...]) -> torch.optim.Optimizer:
        chosen = self.options.optimizers.get(phase, self.options.optimizer)
        parameters = [p for name in networks for p in self.model.networks[name].parameters()]
        return AdamW(
            parameters, lr=chosen.learning_rate, betas=chosen.betas, weight_decay=chosen.weight_decay, fused=True,
            capturable=self.options.capture,
        )  # fmt: skip

    def _require_known_names(self) -> None:
        names = [phase.name for phase in self.phases]
        for name in self.options.optimizers:
            if name not in names:
                raise UserError(
                    f"training.optimizers.{name} names no phase of this model; its phases are {', '.join(names)}."
                )

    def _require_several(self) -> None:
        """Batch normalisation has no variance to divide by in a batch of one image."""
        normalised = next((m for m in self.model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)), None)
        if normalised is not None and self.batches.batch_size == 1:
            given = f"training.batch_size is {self.options.batch_size}, and there"
            count = len(self.dataset.train)
            raise UserError(
                f"Batches of one image cannot train networks with batch normalisation (bn): {given} "
                f"{f'are {count:,} training images' if count > 1 else 'is one training image'}; two or more are needed."
            )

    def _require_known_term(self) -> None:
        """What `until` or `best` names must be measured; said before anything is trained."""
        watched = self.options.watched
        if not watched:
            return
        batch = make_batch(self.dataset, self.model.recipe.data, self.dataset.test[:2], self.device)
        self.model.eval()
        with torch.no_grad():
            terms = self.model.test(self._step_of(batch))
        self.model.train()
        known = [*terms, *self.observer.measures]
        if watched not in known:
            raise one_of(f"test term for training.{'until' if self.options.until else 'best'}", watched, known)

    def _due(self, interval: str, before: tuple[float, float, float]) -> bool:
        """Whether an interval's mark was passed in the last iteration."""
        count, unit = Interval(interval).parts
        if math.isinf(count):
            return False
        place = ("epoch", "step", "minute").index(unit)
        now = (self.epoch, self.step, self.seconds / 60)
        # A hair more than the quotient: 3 batches of 3 an epoch must make epoch 1, not 0.999...
        return math.floor(now[place] / count + 1e-9) > math.floor(before[place] / count + 1e-9)

    def stop(self, reason: str) -> None:
        """Ends the training after the running iteration."""
        self._stop = reason


@contextmanager
def _stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C, or a polite kill, ends the training after its iteration; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        for each, handler in previous.items():
            signal.signal(each, handler)
        trainer.stop(signal.Signals(number).name)

    # A terminal that is closed says SIGHUP, where there are such. What is ignored, as under nohup, stays so.
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    previous = {number: signal.getsignal(number) for number in numbers}
    previous = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}
    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
