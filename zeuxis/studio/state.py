"""What all pages share: the runs, the jobs, and the one thread that models run on."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from zeuxis.curves import Curves
from zeuxis.data import TO_COLOUR, choose, data_dir, load
from zeuxis.figures.datasheet import datasheet
from zeuxis.pretrained import cards
from zeuxis.recipe import DataOptions, Recipe, load_recipe
from zeuxis.run import Run
from zeuxis.studio.explorer import Explorer
from zeuxis.studio.jobs import Jobs
from zeuxis.studio.shelf import Shelf
from zeuxis.studio.trials import Sitting
from zeuxis.studio.uploads import Uploads
from zeuxis.threads import threads

__all__ = ["LIVE", "PATIENCE", "SLOW", "Studio", "Worker", "address"]

T = TypeVar("T")
# Urgency of work for models: a picture under a pointer goes before everything else.
LIVE, SLOW = 0, 1
# Seconds that a browser waits for a page, at most: a large model takes some to be read from the disk.
PATIENCE = 120.0
# Explorers that stay in memory.
EXPLORED = 4
# Sittings of blind tests that stay in memory.
SITTINGS = 50


class Worker:
    """One thread for all models: two at a time would only slow each other down, and PyTorch's threads are shared."""

    def __init__(self) -> None:
        self._queue: queue.PriorityQueue[tuple[int, int, Callable[[], None]]] = queue.PriorityQueue()
        self._count = itertools.count()
        threading.Thread(target=self._work, name="models", daemon=True).start()

    async def do(self, urgency: int, function: Callable[..., T], *arguments: Any) -> T:
        """Runs a function on the thread, and returns or raises what it does; more urgent work goes first."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(set_: Callable[[Any], None], value: Any) -> None:
            if not future.done():
                set_(value)

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = function(*arguments)
            except Exception as error:  # noqa: BLE001 - raised again where it is awaited
                loop.call_soon_threadsafe(settle, future.set_exception, error)
            else:
                loop.call_soon_threadsafe(settle, future.set_result, result)

        self._queue.put((urgency, next(self._count), work))
        return await future

    def _work(self) -> None:
        # One picture is too little work for two threads, and beside a training the second one waits for its core.
        with threads.fixed(1):
            while True:
                _, _, work = self._queue.get()
                with suppress(RuntimeError):  # the loop that asked for it has ended
                    work()


class Studio:
    """What all pages share.

    Args:
        runs: the folder of runs.
        images: folders that images may be read from, besides the data directory.
    """

    def __init__(self, runs: Path, images: Sequence[Path] = ()) -> None:
        self.shelf, self.jobs, self.models = Shelf(runs), Jobs(runs), Worker()
        self.uploads = Uploads(self.jobs.folder / "uploads")
        self.readable = [data_dir(), self.uploads.folder, *images]
        self.sittings: OrderedDict[str, Sitting] = OrderedDict()
        self._explorers: OrderedDict[int, tuple[Run, Explorer]] = OrderedDict()

    def recipe(self, name: str) -> Recipe:
        """Returns a recipe that comes with the package."""
        return self.shelf.once(("recipe", name), lambda: load_recipe(name))

    def free_name(self, base: str) -> str:
        """Returns the first free name of a run, `BASE-1` and so on, that no job is about to take."""
        taken = {*self.shelf.names(), *(job.run for job in self.jobs.all() if self.jobs.alive(job))}
        return next(name for number in itertools.count(1) if (name := f"{base}-{number}") not in taken)

    def sheet(self, data: str) -> dict[str, Any]:
        """Looks at some images: returns words, notes, what is left out, and the key of a sample sheet that is drawn.

        Raises:
            UserError: if they cannot be read.
        """
        location = {key.removeprefix("data."): value for key, value in choose(data).items()}
        dataset = load(DataOptions(**location, size=64, channels=3, convert=True), progress=False)
        key = dataset.fingerprint[:16]
        path = self.jobs.folder / "sheets" / f"{key}.png"
        if not path.exists():
            datasheet(dataset, path)
        kind = "grey" if dataset.source["channels"] == 1 else "in colour"
        words = f"{dataset.train_count + len(dataset.test):,} images of {dataset.source['sizes']} pixels, {kind}"
        words += f", in {len(dataset.classes)} classes." if dataset.classes else ", without classes."
        notes = [str(note) for note in dataset.notes if note.what != TO_COLOUR]
        return {"key": key, "words": words, "notes": notes, "left_out": dataset.left_out}

    def example(self, recipe: str) -> str:
        """Returns the address of a picture of what a recipe learns; "" if there is nothing to show."""
        if recipe in {card.name for card in cards()}:
            return address("picture/pretrained", recipe)
        name = next((entry.name for entry in reversed(self.shelf.known()) if entry.recipe == recipe), "")
        return f"{address('picture/strip', name)}?v={self.shelf.version(name)}" if name else ""

    def sit(self, sitting: Sitting) -> None:
        """Keeps a sitting of a blind test, whose pictures pages ask for."""
        self.sittings[sitting.id] = sitting
        while len(self.sittings) > SITTINGS:
            self.sittings.popitem(last=False)

    def curves(self, name: str) -> Curves:
        """Returns the curves of a run, shared by all pages that show it."""
        folder = self.shelf.folder(name)
        return self.shelf.once(("curves", name), lambda: Curves(folder / "journal.jsonl"))

    def explorer(self, name: str) -> Explorer:
        """Returns the explorer of a run, for use on the models' thread alone.

        Raises:
            UserError: if there is no such run, or if it makes no images.
        """
        run = self.shelf.open(name)
        if id(run) not in self._explorers:
            self._explorers[id(run)] = run, Explorer(run)  # the run is kept too, so that its id stays its own
            while len(self._explorers) > EXPLORED:
                self._explorers.popitem(last=False)
        self._explorers.move_to_end(id(run))
        return self._explorers[id(run)][1]


def address(place: str, runs: str | Iterable[str]) -> str:
    """Returns the address of a page of one run, `/PLACE/RUN`, or of several, `/PLACE?runs=A&runs=B`."""
    if isinstance(runs, str):
        return f"/{place}/{quote(runs, safe='')}"
    return f"/{place}?" + "&".join(f"runs={quote(name, safe='')}" for name in runs)
