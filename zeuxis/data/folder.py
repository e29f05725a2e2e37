"""The user's own images: a folder or zip with one folder per class, or flat, with or without a file of labels; arrays.

Folders around the class folders are skipped, however many; folders named like the parts of a split define the split.
"""

from __future__ import annotations

import numpy as np

from zeuxis.data.arrays import ARRAYS, arrays
from zeuxis.data.files import FORMATS_IN_WORDS, Archive, is_packed, path_parts, readable
from zeuxis.data.labels import read_labels, read_numbers
from zeuxis.data.registry import Collection, locate, source
from zeuxis.errors import UserError, quoted
from zeuxis.recipe import DataOptions

_SPLITS = {"train": 0, "training": 0, "test": 1, "val": 1, "valid": 1, "validation": 1}
Parts = list[tuple[str, ...]]


@source("folder", "your images: a folder or zip, with or without classes, or arrays in .npy or .npz", mirrors=True)
def folder(options: DataOptions) -> Collection:
    if not options.path:
        raise UserError("The data source 'folder' needs a path: --data PATH, or data.path in the recipe.")
    path = locate(options.path)
    if path.suffix.lower() in ARRAYS and path.is_file():
        return arrays(path)
    archive = Archive(path)
    if not archive.names:
        packed = [name for name in archive.others if is_packed(name)]
        count, first = len(archive.others), readable(next(iter([*packed, *archive.others]), ""))
        hint = f"; it has {count} other files, such as {first}" if count > 1 else f"; it has only {first}" * count
        inner = "; unpack that first" if packed else ""
        raise UserError(f"{archive.path} contains no images ({FORMATS_IN_WORDS}){hint}{inner}.")
    parts, folders, split = _layout([tuple(path_parts(name)) for name in archive.names], archive.folders)
    kinds = {top: readable(top) for top in {p[0] for p in parts if len(p) > 1}}
    named = read_labels(archive, [kinds[p[0]] if len(p) > 1 else "" for p in parts])
    survey = archive.survey()
    labels, classes = None, []
    if named:
        labels, classes = named.labels, named.classes
    elif kinds:
        stray = next((name for name, p in zip(archive.names, parts, strict=True) if len(p) == 1), None)
        if stray:
            raise UserError(
                f"{archive.path} mixes class folders with images beside them, such as {stray}; "
                "put every image into a class folder, or all of them into one."
            )
        classes = sorted(set(kinds.values()))
        empty = sorted({readable(f[0]) for f in folders} - set(classes))
        if empty:
            raise UserError(f"The class folder '{empty[0]}' in {archive.path} has no images; fill it or remove it.")
        numbers = {top: classes.index(kind) for top, kind in kinds.items()}
        labels = np.array([numbers[p[0]] for p in parts])
    used = named.files if named else ()
    return Collection(
        fingerprint=archive.fingerprint,
        names=[readable(name) for name in archive.names],
        channels=survey.channels,
        sizes=survey.sizes,
        side=survey.side,
        transparent=survey.transparent,
        read=lambda i, size: archive.image(archive.names[i], size),
        content=lambda i: archive.bytes(archive.names[i]),
        labels=labels,
        classes=classes,
        numbers=read_numbers(archive) if options.numbers else {},
        split=split,
        sampled=survey.sampled,
        notes=[*archive.notes(used), *(named.notes if named else ())],
        left_out={name: reason for name, reason in archive.left_out.items() if name not in used},
    )


def _layout(parts: Parts, folders: Parts) -> tuple[Parts, Parts, np.ndarray | None]:
    """Returns paths of images and folders relative to where the class folders are, and the split (0 and 1), if any."""
    split = None
    while True:
        tops = {p[0] for p in parts}
        if all(len(p) > 2 for p in parts) and len(tops) == 1 == len({f[0] for f in folders}):
            pass  # one folder around all others, which has no meaning
        elif split is None and len(tops) > 1 and all(len(p) > 1 and p[0].lower() in _SPLITS for p in parts):
            split = np.array([_SPLITS[p[0].lower()] for p in parts])
        else:
            if split is None:
                _require_no_split(tops)
            return parts, folders, split
        parts = [p[1:] for p in parts]
        folders = [f[1:] for f in folders if len(f) > 1]


def _require_no_split(tops: set[str]) -> None:
    """Raises a `UserError` if folders of a split stand beside others, and would be taken for classes."""
    parts = {top: _SPLITS[top.lower()] for top in sorted(tops) if top.lower() in _SPLITS}
    others = sorted(tops - parts.keys())
    if len({*parts.values()}) > 1 and others:
        raise UserError(
            f"{' and '.join(parts)} are the parts of a split, and {quoted(others[0])} stands beside them; put it into "
            "one of them, or move it elsewhere."
        )
