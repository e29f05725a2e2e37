"""How it is learned: the trainer, checkpoints, the journal, snapshots and monitors."""

from zeuxis.training.checkpoint import Checkpoint, best_checkpoint, checkpoints, load_weights
from zeuxis.training.display import Display
from zeuxis.training.journal import Journal, read_journal, read_warnings
from zeuxis.training.snapshots import draw, read_snapshots, read_tiles, save_tiles
from zeuxis.training.start import finished, resolved, resume, start
from zeuxis.training.trainer import Observer, Trainer

__all__ = [
    "Checkpoint",
    "Display",
    "Journal",
    "Observer",
    "Trainer",
    "best_checkpoint",
    "checkpoints",
    "draw",
    "finished",
    "load_weights",
    "read_journal",
    "read_snapshots",
    "read_tiles",
    "read_warnings",
    "resolved",
    "resume",
    "save_tiles",
    "start",
]
