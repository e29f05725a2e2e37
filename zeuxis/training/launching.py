"""Starts several processes that train together on this machine, as `torchrun` does.

PyTorch's elastic agent starts the processes and connects them. If one of them dies, it ends the others and starts all
of them again, which go on from the run's last checkpoint. A process that ends with a message of its own, such as a
user's mistake, must not be started again: it leaves its exit code in a file and tells the agent that it is done.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from zeuxis.errors import UserError
from zeuxis.system import cores_each
from zeuxis.training.distributed import CODE_FILE

__all__ = ["launch"]

RESTARTS = 3
# Seconds that the processes have to save their run after Ctrl-C.
GRACE = 120


def launch(processes: int, words: Sequence[str]) -> int:
    """Runs a command of Zeuxis in several processes that train together; returns its exit code.

    Args:
        processes: how many.
        words: the command's words after `zeuxis`.

    Raises:
        UserError: if processes die again and again.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(cores_each(processes)))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "code"
        os.environ[CODE_FILE] = str(file)
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid4().hex, max_restarts=RESTARTS,
            rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1", shutdown_timeout=GRACE,
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)("-m", "zeuxis", *words)
        except ChildFailedError as error:
            raise UserError(
                f"A process of the training died {RESTARTS + 1} times; the run can be resumed from its last checkpoint."
            ) from error
        except SignalException:
            pass
        return int(file.read_text()) if file.exists() else 130
