"""Trains recipes on the digits under callgrind, which counts the instructions of some steps of each.

    valgrind --tool=callgrind --instr-atstart=no python -m benchmarks.speed.steps mnist-vae-z2 mnist-gan

Counting is slow, so it is on during those steps alone. A program switches it by an instruction sequence that does
nothing on a real processor, with the request in a register; `ctypes` runs it, as Python has no other way to it.
Source: `valgrind/valgrind.h` and `valgrind/callgrind.h`, client requests on x86-64.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.speed.ours import ALONE
from benchmarks.speed.worker import ON_DIGITS
from zeuxis import data
from zeuxis.models import build_model
from zeuxis.recipe import load_recipe
from zeuxis.training import Callback, Trainer
from zeuxis.training.callbacks import standard_callbacks

# Few images, because an emulated processor is slow; float32 and one thread, which every machine has.
SETTINGS = (
    *ALONE, *ON_DIGITS, "training.batch_size=4", "training.steps=1000", "training.precision=float32",
    "training.threads=1", "training.device=cpu",
)  # fmt: skip
# Steps before counting begins, in which optimisers are built and memory is allocated; steps that are counted.
WARM, COUNTED = 3, 2
DUMP, START, STOP = (0x43540000 + number for number in (0, 4, 5))
# mov rax, rdi; xor edx, edx; rol rdi by 3, 13, 61 and 51, together once around; xchg rbx, rbx; mov rax, rdx; ret
CODE = bytes.fromhex("4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")


class Counter:
    """Callgrind, as seen from the program that it runs; without it, nothing is counted."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.memory.write(CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self._request = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(address)

    def request(self, number: int) -> None:
        """Sends a request to callgrind."""
        self._request((ctypes.c_size_t * 6)(number))


class Counted(Callback):
    """Counts some steps of a training, then stops it; callgrind writes the count into its next file."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter

    def iterated(self, trainer: Trainer) -> None:
        if trainer.step == WARM:
            gc.collect()
            self.counter.request(START)
        elif trainer.step == WARM + COUNTED:
            self.counter.request(STOP)
            self.counter.request(DUMP)
            trainer.stop("enough")


def main() -> None:
    """Trains all recipes that the command line names, one after the other."""
    counter = Counter()
    for name in sys.argv[1:]:
        recipe = load_recipe(name, SETTINGS)
        dataset = data.load(recipe.data, progress=False)
        model = build_model(recipe, dataset.classes)
        # With the callbacks of every training; the last one counts what the others do as well.
        callbacks = standard_callbacks(model, visible=False, more=[Counted(counter)])
        with TemporaryDirectory() as folder:
            Trainer(Path(folder), model, dataset, torch.device("cpu"), callbacks).fit()
        print(name, flush=True)


if __name__ == "__main__":
    main()
