"""One switch for the package's own CPU kernels.

They are on unless the environment sets `ZEUXIS_KERNELS=plain` or code runs inside `with plain():`. When they are off,
layers use only PyTorch's operations, with the same results up to rounding: for a compiler, or to measure what the
kernels gain. `torch.export` never sees them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["own_kernels", "plain"]

_own: ContextVar[bool] = ContextVar("own_kernels", default=os.environ.get("ZEUXIS_KERNELS") != "plain")


def own_kernels(x: Tensor) -> bool:
    """Returns whether a layer uses the package's own kernels for this input."""
    return x.device.type == "cpu" and not torch.compiler.is_exporting() and _own.get()


@contextmanager
def plain() -> Iterator[None]:
    """Makes layers use only PyTorch's operations inside a `with` block."""
    token = _own.set(False)
    try:
        yield
    finally:
        _own.reset(token)
