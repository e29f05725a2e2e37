r"""One training shared by several processes, on one machine or on several.

PyTorch's process groups connect the processes: `torchrun` starts them, or `zeuxis train --processes N`. Process p of P
reads rows p B/P to (p+1) B/P of every batch of B images. Each phase's gradient is the mean over the processes, and so
is every logged number. Every process then takes the same optimiser step from the same weights, so no weights are sent.

The result does not depend on P, up to the rounding of sums, with four exceptions, which take a process's rows for the
batch: the mean that `free_bits` limits, the pairs of `coupling = "optimal-transport"`, the rows that a second
discriminator sees by `second_share`, and the half of its fakes that a VAE-GAN reconstructs.

- **Random numbers.** All processes seed their generators alike, draw the numbers of the whole batch, keep their rows.
- **Batch normalisation.** Mean and variance are those of the whole batch, and gradients flow through them.
- **Decisions.** Time and signals are agreed on after every step; the main process, p = 0, decides about the rest.

The main process alone writes the run folder and shows progress.

Sources: S. Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training, VLDB 2020; P. Goyal et
al., Accurate, Large Minibatch SGD, 2017, section 3 (gradients as means over the whole batch).
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zeuxis import progress
from zeuxis.errors import UserError
from zeuxis.nets.layers import kept

__all__ = ["ALONE", "CODE_FILE", "FEWEST", "Share", "is_main", "joined", "launch_id", "restarted", "share"]

T = TypeVar("T")
# Rows that a process must have of every batch: fewer could not be told from the other sides of a tensor.
FEWEST = 8
# A test, a judge or a full disk may keep the main process busy for so long.
PATIENCE = timedelta(hours=6)
# Seconds that a process leaves the main one to report an error that all of them meet.
COURTESY = 5.0
# Environment variable with the path of a file: there the main process leaves its exit code for `zeuxis train
# --processes`, which would start processes again that end with another code than 0.
CODE_FILE = "ZEUXIS_EXIT_CODE"


class LostError(UserError):
    """The death of another process of the training."""


@dataclass(frozen=True)
class Share:
    """A process's share of the training.

    Attributes:
        rank: number of the process, from 0, the main one.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether it is the main process."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """Returns the rows that this process has of so many."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def require(self, batch_size: int) -> None:
        """Raises a `UserError` unless a batch can be shared equally."""
        if self.size > 1 and (batch_size % self.size or batch_size < FEWEST * self.size):
            fitting = max(round(batch_size / self.size), FEWEST) * self.size
            raise UserError(
                f"{self.size} processes cannot share a batch of {batch_size} images: each needs equally many, and at "
                f"least {FEWEST}. Set training.batch_size={fitting}."
            )

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors, which all processes give in the same order, by their means over the processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten().float() for tensor in tensors])
        _reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def totals(self, numbers: dict[str, float]) -> dict[str, float]:
        """Returns the sums of numbers over the processes, some of which may have none."""
        if self.size == 1:
            return numbers
        names = self.told(list(numbers))
        sums = self._agreed([numbers.get(name, 0.0) for name in names], "SUM")
        return dict(zip(names, sums, strict=True))

    def most(self, *numbers: float) -> list[float]:
        """Returns the largest of each number over the processes."""
        return self._agreed(numbers, "MAX") if self.size > 1 else list(numbers)

    def _agreed(self, numbers: Sequence[float], how: Literal["SUM", "MAX"]) -> list[float]:
        agreed = torch.tensor(numbers, dtype=torch.float64)
        _reduce(agreed, how)
        return [float(number) for number in agreed]

    def told(self, value: T) -> T:
        """Returns the main process's value."""
        if self.size == 1:
            return value
        values = [value]
        with _together():
            dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def drawing(self, rows: int) -> AbstractContextManager[object]:
        """Returns a context in which random numbers and batch statistics are those of the whole batch.

        Args:
            rows: of each batch that this process has.
        """
        return _Whole(self, rows) if self.size > 1 else nullcontext()


ALONE = Share()


def share() -> Share:
    """Returns this process's share of the training; the whole of it where there is one process."""
    if dist.is_available() and dist.is_initialized():
        return Share(dist.get_rank(), dist.get_world_size())
    return ALONE


def _started() -> int:
    """Returns how many processes were started to train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the main one of its training, or the only one."""
    return _started() == 1 or os.environ.get("RANK", "0") == "0"


def launch_id() -> str:
    """Returns the name of the launch that started the processes; empty where there is one process.

    A launcher without a name of its own is told apart by its process, which stays while it restarts others.
    """
    if _started() == 1:
        return ""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return name if name != "none" else f"{platform.node()} {os.getppid()}"


def restarted() -> bool:
    """Whether the processes were started again, because one of them had died."""
    return bool(launch_id()) and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def joined() -> Iterator[Share]:
    """Joins the other processes of the training while the block runs, if the process was started as one of several.

    Raises:
        UserError: as the block does; in processes beside the main one a little later, as they meet the same errors.
    """
    if _started() == 1 or dist.is_initialized():
        yield share()
        return
    # Not at the top: some builds of PyTorch have no process groups.
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, size = next(rendezvous("env://"))
    # After a restart the store still holds the addresses of the processes that were.
    store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=size)
    progress.console.quiet = not is_main()
    try:
        yield share()
    except LostError:
        if CODE_FILE in os.environ:  # the launcher sees which process died, and starts all of them again
            os._exit(1)
        raise
    except UserError:
        if not is_main():
            _leave_it_to_the_main_process()
        raise
    finally:
        dist.destroy_process_group()


def _leave_it_to_the_main_process() -> None:
    """Ends this process silently if the main one, which meets the same errors, has ended with a message."""
    file = Path(os.environ.get(CODE_FILE, "-"))
    deadline = time.monotonic() + COURTESY
    while time.monotonic() < deadline:
        if file.exists():
            sys.exit(0)
        time.sleep(0.05)


@contextmanager
def _together() -> Iterator[None]:
    """Raises a `LostError` if another process ends while all of them exchange numbers."""
    try:
        yield
    except RuntimeError as error:
        raise LostError("Another process of this training has ended, so this one ends too.") from error


def _reduce(tensor: Tensor, how: Literal["SUM", "MAX"] = "SUM") -> None:
    """Adds up a tensor over the processes in place, or takes the largest values."""
    with _together():
        dist.all_reduce(tensor, getattr(dist.ReduceOp, how))


def _summed(x: Tensor) -> Tensor:
    """Returns a tensor's sum over the processes; its gradient is the sum of the gradients, of any order."""
    summed: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return summed


class _Sum(torch.autograd.Function):
    """The sum, to be called through `_summed`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        _reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return _summed(slope)


class _Whole(TorchFunctionMode):
    """Makes random functions draw for the whole batch and keep this process's rows; normalises over the whole batch.

    The batch is the first side of a tensor that is at least half as long as this process's rows: models also draw for
    half a batch, or for real and fake images together.
    """

    def __init__(self, share: Share, rows: int) -> None:
        super().__init__()
        self.share, self.count = share, rows

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (torch.randn, torch.rand, torch.randint):
            return self._made(function, args, kwargs)
        if function in (torch.randn_like, torch.rand_like):
            like = args[0]
            made = {"dtype": like.dtype, "device": like.device} | kwargs
            return self._made(torch.randn if function is torch.randn_like else torch.rand, (like.shape,), made)
        if function in (F.dropout, F.dropout1d, F.dropout2d):
            return self._dropped(function, *args, **kwargs)
        if function is kept:
            return self._rows(kept(self._like(args[0]), args[1]), args[0].shape)
        if function is F.batch_norm:
            return self._normalised(*args, **kwargs)
        return function(*args, **kwargs)

    def _made(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        kwargs = dict(kwargs)
        if "size" in kwargs:
            before, size = args, kwargs.pop("size")
        elif args and isinstance(args[-1], Sequence):
            before, size = args[:-1], args[-1]
        else:
            before, size = (), args
        whole = self._whole(size)
        made: Tensor = function(*before, whole, **kwargs)
        return self._rows(made, size)

    def _side(self, size: Sequence[int]) -> int | None:
        """Returns which side of a tensor is the batch."""
        return next((i for i, length in enumerate(size) if 2 * length >= self.count), None)

    def _whole(self, size: Sequence[int]) -> tuple[int, ...]:
        side = self._side(size)
        return tuple(length * self.share.size if i == side else length for i, length in enumerate(size))

    def _rows(self, whole: Tensor, size: Sequence[int]) -> Tensor:
        side = self._side(size)
        if side is None:
            return whole
        parts = size[side] // self.count if size[side] % self.count == 0 else 1
        split = whole.reshape(*size[:side], parts, self.share.size, size[side] // parts, *size[side + 1 :])
        return split.select(side + 1, self.share.rank).reshape(*size)

    def _dropped(
        self, function: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or not p:
            return x
        return x * self._rows(function(self._like(x).fill_(1), p, True), x.shape)

    def _like(self, x: Tensor) -> Tensor:
        """Returns an empty tensor of the whole batch, in the memory layout of this process's rows."""
        columns = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if columns else torch.contiguous_format
        return torch.empty(self._whole(x.shape), dtype=x.dtype, device=x.device, memory_format=layout)

    def _normalised(
        self, x: Tensor, mean: Tensor | None, variance: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        if not training:
            plain: Tensor = F.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
            return plain
        y, middle, spread = _Normalised.apply(x.float(), weight, bias, eps)  # type: ignore[no-untyped-call]
        if mean is not None and variance is not None:
            count = _count(x)
            with torch.no_grad():
                mean.lerp_(middle, momentum)
                variance.lerp_(spread * count / max(count - 1, 1), momentum)
        normed: Tensor = y
        return normed


class _Normalised(torch.autograd.Function):
    """Batch normalisation over the rows of all processes; also returns their mean and variance `(C,)`.

    Messages, not sums, are what a small network waits for, so each direction sends one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        # As quick as a sum, which torch.var_mean is not for channels-last images.
        mean, variance = torch.ops.aten.batch_norm_update_stats(x, None, None, 0.0)
        moments = torch.stack([mean, variance]).double()  # of the squares a difference is taken
        moments[1] += moments[0].square()
        _reduce(moments)
        moments /= dist.get_world_size()
        moments[1] -= moments[0].square()
        middle, spread = moments.float()
        ctx.save_for_backward(x, weight, bias, middle, spread)
        ctx.eps = eps
        ctx.mark_non_differentiable(middle, spread)
        return F.batch_norm(x, middle, spread, weight, bias, False, 0.0, eps), middle, spread

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Any) -> Any:
        x, weight, bias, middle, spread = ctx.saved_tensors
        if torch.is_grad_enabled():  # for gradients of gradients, which PyTorch derives from plain operations
            given = [t for t in (x, weight, bias) if t is not None and t.requires_grad]
            found = iter(torch.autograd.grad(_normalised(x, weight, bias, ctx.eps), given, slope, create_graph=True))
            return *(next(found) if t is not None and t.requires_grad else None for t in (x, weight, bias)), None
        # As if mean and variance were constants; then what goes through them, per channel.
        constant, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            slope, x, weight, middle, spread, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([to_bias, to_weight])
        _reduce(sums)
        along, by_spread = sums / _count(x)
        scale = (spread + ctx.eps).rsqrt()
        steep = scale if weight is None else scale * weight
        shape = [1, -1, *[1] * (x.dim() - 2)]
        constant.addcmul_(x, (-steep * scale * by_spread).view(shape))
        constant += (steep * (scale * middle * by_spread - along)).view(shape)
        return constant, to_weight if weight is not None else None, to_bias if bias is not None else None, None


def _count(x: Tensor) -> int:
    """Returns how many numbers of each channel all processes have together."""
    return dist.get_world_size() * x.numel() // x.shape[1]


def _others(x: Tensor) -> list[int]:
    """Returns the sides of a tensor beside its channels."""
    return [i for i in range(x.dim()) if i != 1]


def _normalised(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Returns the same as `_Normalised`, by operations whose gradients have gradients."""
    count, shape = _count(x), [1, -1, *[1] * (x.dim() - 2)]
    centred = x - (_summed(x.sum(_others(x))) / count).view(shape)
    spread = _summed(centred.square().sum(_others(x))) / count
    normed = centred * (spread + eps).rsqrt().view(shape)
    return normed if weight is None or bias is None else normed * weight.view(shape) + bias.view(shape)
