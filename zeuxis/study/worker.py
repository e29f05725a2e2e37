"""A process of `zeuxis.processes`: takes a training from its standard input, trains it, and answers how it ended.

The answer is None or a `UserError`, pickled, on standard output; any other end is a death. When its standard input is
closed, the training is saved and ends.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading

from zeuxis.errors import UserError
from zeuxis.plugins import load_plugins
from zeuxis.processes import stopped
from zeuxis.study.plan import train_part
from zeuxis.system import hear_interrupts, interrupt
from zeuxis.training.callbacks import display

# Seconds between the lines that say how far it is: the other end shows the newest.
LINE_EVERY = 1.0


def main() -> None:
    """Trains what standard input says."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand in the answer
    hear_interrupts()  # a background job ignores them, and a Ray worker blocks them
    display.LINE_EVERY, display.STOPPING = LINE_EVERY, ""  # who started it answers Ctrl-C
    part, folder, progress = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_input, daemon=True).start()
    error: UserError | None = None
    try:
        load_plugins(part.recipe.code)
        train_part(part, folder, progress=progress)
    except UserError as failure:
        error = failure
    except KeyboardInterrupt:  # before the training began, or by a second signal
        error = stopped(folder)
    with answer:
        pickle.dump(error, answer)


def _end_with_input() -> None:
    os.read(0, 1)  # returns when the other end closes it, or dies
    interrupt()


if __name__ == "__main__":
    main()
