"""Features of real images, kept in the cache: all runs on the same images are compared with the same features.

A file is named by a hash of the images' bytes and of the judge: a classifier's weights, or the name of a fixed network.
"""

from __future__ import annotations

import hashlib
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from zeuxis.evaluation.judge import Judge, judge_name
from zeuxis.files import WriteError, cache_dir, make_folder, write_file
from zeuxis.run import Run

__all__ = ["judge_images", "judge_images_once"]

Judged = tuple[np.ndarray, np.ndarray]

# Increased when a judge computes other features from the same images; earlier files are then ignored.
VERSION = 1
# Bytes of the cache; beyond them, the files that were written first are removed.
MOST = 2**30


def judge_images(judge: Judge, images: np.ndarray) -> Judged:
    """Returns features `(N, F)` and class probabilities `(N, K)` of `(N, H, W, C)` images; K is 0 without classes."""
    if isinstance(judge, Run):
        return judge.features_and_classes(images)
    return judge.features(images), np.empty((len(images), 0), np.float32)


def judge_images_once(judge: Judge, images: np.ndarray) -> Judged:
    """Returns what `judge_images` does for `(N, H, W, C)` bytes, from the cache if the judge has seen them before."""
    path = cache_dir() / "features" / f"{_name(judge, images)}.npz"
    if (kept := _read(path, len(images))) is not None:
        return kept
    judged = judge_images(judge, images)
    with suppress(WriteError):  # what cannot be kept is computed again
        make_folder(path.parent)
        write_file(path, lambda unfinished: np.savez(unfinished, features=judged[0], classes=judged[1]))
        _prune(path)
    return judged


def _prune(newest: Path) -> None:
    """Removes the oldest files until the cache has at most MOST bytes; the newest one stays."""
    with suppress(OSError):  # another process may remove the same files
        files = sorted(newest.parent.glob("*.npz"), key=lambda path: path.stat().st_mtime)
        size = sum(path.stat().st_size for path in files)
        for path in files:
            if size <= MOST or path == newest:
                break
            size -= path.stat().st_size
            path.unlink()


def _name(judge: Judge, images: np.ndarray) -> str:
    digest = hashlib.sha256(f"{VERSION} {judge_name(judge)} {images.shape}".encode())
    if isinstance(judge, Run):
        for name, weights in judge.model.state_dict().items():
            digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
            digest.update(weights.cpu().numpy().tobytes())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()[:24]


def _read(path: Path, count: int) -> Judged | None:
    """Reads a file of the cache; None if there is none, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            features, classes = stored["features"], stored["classes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return (features, classes) if len(features) == len(classes) == count else None
