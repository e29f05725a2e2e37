"""One switch for the kernels of our own that layers use on a CPU.

They are on unless the environment says `ZEUXIS_KERNELS=plain`, or code says `with plain():`. Switched off, layers are
PyTorch's alone and compute the same up to rounding: for an exporter, a compiler, or a look at what our kernels gain.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

__all__ = ["own_kernels", "plain"]

_own: ContextVar[bool] = ContextVar("own_kernels", default=os.environ.get("ZEUXIS_KERNELS") != "plain")


def own_kernels(x: Tensor) -> bool:
    """Whether a layer computes with kernels of our own for this input."""
    return x.device.type == "cpu" and _own.get()


@contextmanager
def plain() -> Iterator[None]:
    """While it holds, layers use PyTorch's operations alone."""
    token = _own.set(False)
    try:
        yield
    finally:
        _own.reset(token)
