"""The user's own images: a folder or zip with one folder per class, or flat without labels."""

from __future__ import annotations

import numpy as np

from zeuxis.data.files import Archive, path_parts
from zeuxis.data.registry import Collection, locate, source
from zeuxis.errors import UserError
from zeuxis.recipe import DataOptions

_SPLITS = {"train": 0, "training": 0, "test": 1, "val": 1, "valid": 1, "validation": 1}


@source("folder", "a folder or zip of images: one folder per class, or flat without labels", mirrors=True)
def folder(options: DataOptions) -> Collection:
    if not options.path:
        raise UserError("The data source 'folder' needs a path: --data PATH, or data.path in the recipe.")
    archive = Archive(locate(options.path))
    if not archive.names:
        hint = f"; it holds {len(archive.others)} other files" if archive.others else ""
        raise UserError(f"{archive.path} holds no images (JPEG, PNG, WebP, GIF, BMP or TIFF){hint}.")
    parts = [path_parts(name) for name in archive.names]
    folders = archive.folders
    # A zip often wraps everything in one folder of its own name; nothing is learned from it.
    wrapped = all(len(p) > 2 for p in parts) and len({p[0] for p in parts}) == 1 and len(folders) == 1
    if wrapped:
        parts = [p[1:] for p in parts]
        folders = sorted({p[0] for p in parts})
    split = None
    tops = {p[0].lower() for p in parts}
    if all(len(p) > 1 for p in parts) and len(tops) > 1 and tops <= set(_SPLITS):
        split = np.array([_SPLITS[p[0].lower()] for p in parts])
        parts = [p[1:] for p in parts]
        folders = sorted({p[0] for p in parts if len(p) > 1})
    channels, sizes = archive.survey()
    labels, classes = None, []
    if any(len(p) > 1 for p in parts):
        stray = next((name for name, p in zip(archive.names, parts, strict=True) if len(p) == 1), None)
        if stray:
            raise UserError(
                f"{archive.path} mixes class folders with images beside them, such as {stray}; "
                "put every image into a class folder, or all of them into one."
            )
        classes = sorted({p[0] for p in parts})
        empty = sorted(set(folders) - set(classes))
        if empty:
            raise UserError(f"The class folder '{empty[0]}' in {archive.path} holds no image; fill it or remove it.")
        labels = np.array([classes.index(p[0]) for p in parts])
    return Collection(
        fingerprint=archive.fingerprint,
        names=archive.names,
        channels=channels,
        sizes=sizes,
        read=lambda i, size: archive.image(archive.names[i], size),
        labels=labels,
        classes=classes,
        split=split,
    )
