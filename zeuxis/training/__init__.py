"""Training: the trainer, checkpoints, the journal, snapshots and monitors."""

from zeuxis.training.callbacks import CALLBACKS, Callback, Display
from zeuxis.training.callbacks.tracking import Tracker, tracked
from zeuxis.training.checkpoint import Checkpoint, best_checkpoint, checkpoints, load_weights
from zeuxis.training.journal import Journal, read_journal, read_warnings
from zeuxis.training.snapshots import generate, read_snapshots, read_tiles, save_tiles
from zeuxis.training.start import completed, finished, resolved, resume, start, trained_run
from zeuxis.training.trainer import Trainer

__all__ = [
    "CALLBACKS",
    "Callback",
    "Checkpoint",
    "Display",
    "Journal",
    "Tracker",
    "Trainer",
    "best_checkpoint",
    "checkpoints",
    "completed",
    "finished",
    "generate",
    "load_weights",
    "read_journal",
    "read_snapshots",
    "read_tiles",
    "read_warnings",
    "resolved",
    "resume",
    "save_tiles",
    "start",
    "tracked",
    "trained_run",
]
