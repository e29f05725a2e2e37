"""Where images come from: sources, the cache of decoded images, splits and batches."""

from zeuxis.data.batches import Batch, Batches, from_unit, on_white, to_bytes, to_unit
from zeuxis.data.cache import TO_COLOUR
from zeuxis.data.dataset import Dataset, choose, choose_classes, combinations, load
from zeuxis.data.notes import Note
from zeuxis.data.pictures import read_pictures
from zeuxis.data.registry import SOURCES, Collection, data_dir, source
from zeuxis.data.streaming import batches_of

__all__ = [
    "SOURCES",
    "TO_COLOUR",
    "Batch",
    "Batches",
    "Collection",
    "Dataset",
    "Note",
    "batches_of",
    "choose",
    "choose_classes",
    "combinations",
    "data_dir",
    "from_unit",
    "load",
    "on_white",
    "read_pictures",
    "source",
    "to_bytes",
    "to_unit",
]
