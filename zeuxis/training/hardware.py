"""The hardware of a run: device, precision, memory."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import psutil
import torch

from zeuxis import system
from zeuxis.errors import UserError
from zeuxis.nets import Network

__all__ = [
    "describe_machine",
    "peak_memory",
    "pick_device",
    "pick_precision",
    "require_memory",
    "reset_peak_memory",
]


def pick_device(name: str) -> torch.device:
    """Returns the device of this name; `auto` is a GPU if there is one.

    Raises:
        UserError: if the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type not in ("cpu", "cuda", "mps"):
            raise NotImplementedError(device.type)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"The device '{name}' cannot be used here; write cpu, cuda, mps or auto.") from error
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """Returns the precision of this name.

    `auto` is bfloat16 on NVIDIA GPUs and processors that support it, float16 on NVIDIA GPUs that only have products of
    float16 (from Volta on; earlier ones compute them slowly), else float32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        if not has_bfloat16 and torch.cuda.get_device_capability(device) >= (7, 0):
            return "float16"
    else:
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        has_bfloat16 = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return "bfloat16" if has_bfloat16 else "float32"


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Returns versions, processor and device as plain data."""
    packages = ("zeuxis", "torch", "numpy", "pillow", "scikit-learn")
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "processor": system.processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def require_memory(networks: Sequence[Network], batch_size: int, device: torch.device) -> None:
    """Raises a `UserError` if a batch alone needs more memory than there is; a batch that passes may still not fit."""
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = psutil.virtual_memory().total
    needed = batch_size * sum(network.kept_values * network.precision.itemsize for network in networks)
    if needed > memory:
        raise UserError(
            f"A batch of {batch_size} images needs at least {needed / 2**30:,.1f} GiB in these networks, and there are "
            f"{memory / 2**30:,.1f}; set a smaller training.batch_size or data.size, or smaller layers."
        )


def reset_peak_memory(device: torch.device) -> None:
    """Resets the measurement of peak memory, where the system supports it."""
    gc.collect()  # memory left over by an earlier training does not count
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    system.return_freed_memory()
    system.reset_peak_memory()


def peak_memory(device: torch.device) -> float:
    """Returns the peak memory in MiB since the last reset: of the device if it has its own, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return system.peak_memory()
