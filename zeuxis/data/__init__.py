"""Where images come from: sources, the cache of decoded images, splits and batches."""

from zeuxis.data.batches import Batch, Batches, from_unit, to_bytes, to_unit
from zeuxis.data.dataset import Dataset, choose, load
from zeuxis.data.registry import Collection, cache_dir, data_dir, source, sources

__all__ = [
    "Batch",
    "Batches",
    "Collection",
    "Dataset",
    "cache_dir",
    "choose",
    "data_dir",
    "from_unit",
    "load",
    "source",
    "sources",
    "to_bytes",
    "to_unit",
]
