"""CelebA in its published layout: aligned faces, 40 binary attributes, a published split.

Images are in a zip or a folder, beside `list_attr_celeba.txt` and `list_eval_partition.txt`. The middle square of
148 pixels, out of a width of 178, is used, as is usual for this set; images that are already square are not cropped.

Source: Z. Liu, P. Luo, X. Wang and X. Tang, Deep Learning Face Attributes in the Wild, ICCV 2015.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from zeuxis.data.files import CHANGES, SIZE, Archive
from zeuxis.data.registry import Collection, data_dir, locate, source
from zeuxis.errors import UserError
from zeuxis.recipe import DataOptions

_ATTRIBUTES = "list_attr_celeba.txt"
_PARTITION = "list_eval_partition.txt"
_CROP = 148 / 178


def cropped(image: Image.Image) -> Image.Image:
    """Crops an image that is not square to its middle, where the face is."""
    if image.width == image.height:
        return image
    side = round(min(image.size) * _CROP)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = image.crop((left, top, left + side, top + side))
    changes = [*image.info.get(CHANGES, ()), "not square: the middle, where the face is, is used"]
    middle.info = {SIZE: middle.size, CHANGES: changes}
    return middle


@source(
    "celeba",
    "CelebA: aligned faces with 40 attributes, in the published layout",
    mirrors=True,
    frame=cropped,
    licence="for research that is not commercial",
)
def celeba(options: DataOptions) -> Collection:
    path = locate(options.path) if options.path else data_dir() / "celeba"
    # A path may name the folder of the whole set, or a zip or folder of images inside it.
    root = path if (path / _ATTRIBUTES).is_file() else path.parent
    images = path
    if root == path:
        candidates = [root / name for name in ("img_align_celeba", "img_align_celeba.zip") if (root / name).exists()]
        images = candidates[0] if candidates else root / "img_align_celeba.zip"
    missing = [str(p) for p in (images, root / _ATTRIBUTES) if not p.exists()]
    if missing:
        raise UserError(
            f"CelebA is incomplete: {' and '.join(missing)} missing. Get img_align_celeba.zip, {_ATTRIBUTES} and "
            f"{_PARTITION} from its publishers (mmlab.ie.cuhk.edu.hk/projects/CelebA.html) and put them into "
            f"{data_dir() / 'celeba'}. Another data directory is named by ZEUXIS_DATA, and their folder alone by a "
            "recipe's data.path."
        )
    archive = Archive(images)
    if not archive.names:
        raise UserError(f"{images} contains no images.")
    names, table = _attributes(root / _ATTRIBUTES)
    files = [name.rpartition("/")[2] for name in archive.names]
    unlisted = [file for file in files if file not in table]
    if unlisted:
        raise UserError(
            f"{root / _ATTRIBUTES} has no row for {len(unlisted)} of the {len(files)} images in {images}, "
            f"such as {unlisted[0]}; the list belongs to another set."
        )
    split = None
    if (root / _PARTITION).is_file():
        parts = _partition(root / _PARTITION)
        # 0 is training, 1 validation, 2 test; without test rows, the validation rows are the test set.
        found = np.array([parts.get(file, 0) for file in files])
        split = (found == (2 if (found == 2).any() else 1)).astype(int)
    survey = archive.survey()
    return Collection(
        fingerprint=f"celeba {archive.fingerprint}",
        names=archive.names,
        channels=survey.channels,
        sizes=survey.sizes,
        side=survey.side,
        transparent=survey.transparent,
        read=lambda i, size: cropped(archive.image(archive.names[i], size * 2)),
        attributes=np.stack([table[file] for file in files]),
        attribute_names=names,
        split=split if split is not None and 0 < split.sum() < len(split) else None,
        sampled=survey.sampled,
        notes=archive.notes(),
        left_out=archive.left_out,
    )


def _attributes(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    lines = _lines(path)
    names = lines[1].split() if len(lines) > 1 else []
    table = {}
    for number, line in enumerate(lines[2:], 3):
        file, *values = line.split()
        if len(values) != len(names) or not set(values) <= {"1", "-1", "0"}:
            raise UserError(f"{path}, line {number}: {len(names)} values of 1 or -1 should follow {file}.")
        table[file] = np.array([value == "1" for value in values], dtype=np.uint8)
    if not table:
        raise UserError(
            f"{path} contains no attributes; it should have a line with a count, one with names, and a row per image."
        )
    return names, table


def _partition(path: Path) -> dict[str, int]:
    parts = {}
    for number, line in enumerate(_lines(path), 1):
        match line.split():
            case [file, ("0" | "1" | "2") as part]:
                parts[file] = int(part)
            case _:
                raise UserError(f"{path}, line {number}: should be 'FILE 0', 'FILE 1' or 'FILE 2', not '{line}'.")
    return parts


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}.") from error
