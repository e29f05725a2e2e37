"""What all pages share: the runs, the jobs, and the one thread that models run on."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from zeuxis.run import Run
from zeuxis.studio.explorer import Explorer
from zeuxis.studio.jobs import Jobs
from zeuxis.studio.shelf import Shelf
from zeuxis.threads import threads

__all__ = ["LIVE", "SLOW", "Studio", "Worker", "address"]

T = TypeVar("T")
# Urgency of work for models: a picture under a pointer goes before everything else.
LIVE, SLOW = 0, 1
# Explorers that stay in memory.
EXPLORED = 4


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
    """

    def __init__(self, runs: Path) -> None:
        self.shelf, self.jobs, self.models = Shelf(runs), Jobs(runs), Worker()
        self._explorers: OrderedDict[int, tuple[Run, Explorer]] = OrderedDict()

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
