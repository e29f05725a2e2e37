"""Labels in a file beside the images: a CSV, or the formats of Hugging Face's image folders and StyleGAN's sets.

A CSV or TSV has a file and a class in each row, with or without a header, and so has `labels.txt`, with a blank between
them. `metadata.csv` and `metadata.jsonl` have a column `file_name` and one called label, or similar. `dataset.json` is
`{"labels": [["00000/img00000000.png", 3], ...]}`; `labels.json` may also be `{"a.png": "cat", ...}`, or a list of
objects.
"""

from __future__ import annotations

import csv
import io
import json
import math
import posixpath
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from zeuxis.data.files import SUFFIXES, Archive, path_parts, readable
from zeuxis.data.notes import Note
from zeuxis.errors import UserError, quoted, shown

__all__ = ["Labels", "class_name", "in_order", "label_of", "rare_class", "read_labels", "read_numbers"]

# Files used only for labels or captions; other CSVs may contain anything.
OWN = {"metadata.csv", "metadata.jsonl", "dataset.json", "labels.csv"}
# Others that are tried: they may also hold the names of classes alone.
TRIED = {"labels.txt", "labels.json"}
TABLES = (".csv", ".tsv")
# A class needs so many images to be learned.
FEWEST_OF_CLASS = 10
FILE_COLUMNS = ("file_name", "filename", "file", "image", "path", "image_path", "image_name", "name", "img", "id")
LABEL_COLUMNS = ("label", "class", "labels", "class_name", "label_name", "category", "target", "classes")
Rows = list[tuple[str, str]]


class Labels(NamedTuple):
    """Labels read from files.

    Attributes:
        labels: class index of each image, -1 if no file names it.
        classes: names of the classes.
        files: the files that were read.
        notes: what was left out.
    """

    labels: np.ndarray
    classes: list[str]
    files: tuple[str, ...]
    notes: list[Note]


def read_labels(archive: Archive, folders: Sequence[str]) -> Labels | None:
    """Reads labels from the files of an archive; returns None if it has none.

    Args:
        archive: the images and the files beside them.
        folders: the class that each image's folder suggests, or "".

    Raises:
        UserError: if a file cannot be read or names none of the images, or if two sources contradict each other.
    """
    candidates = [
        n for n in archive.others if posixpath.basename(n).lower() in OWN | TRIED or n.lower().endswith(TABLES)
    ]
    if not candidates:
        return None
    places = _Places([readable(name) for name in archive.names])
    labelled: dict[int, tuple[str, str]] = {}
    used, notes = [], []
    for file in candidates:
        where = f"{archive.path}/{readable(file)}"
        text = _text(archive, file, where)
        rows = _rows(file, text, where, places)
        folder = readable(posixpath.dirname(file))
        placed = [(places.find(name, folder), name, label) for name, label in rows]
        missing = [name for place, name, _ in placed if place is None]
        base = posixpath.basename(file).lower()
        # Of numbered images, a list of numbered classes would label the first few.
        few = base in TRIED and 2 * (len(placed) - len(missing)) < len(archive.names)
        if len(missing) == len(placed) or few:
            if not rows or base not in OWN:
                archive.left_out[readable(file)] = "without labels for these images"
                continue
            raise UserError(
                f"None of the {len(rows)} rows of {where} names one of these images; the first names '{rows[0][0]}'."
            )
        if file.lower().endswith(TABLES):
            _table(file, text, where, strict=True)
        left: dict[str, list[str]] = {}
        for name in missing:
            left.setdefault("several images have this name" if places.shared(name) else "no such image", []).append(
                name
            )
        for why, those in left.items():
            what = f"left out ({readable(file)}: {why})"
            notes.append(Note("left out", len(those), what, readable(those[0]), len(rows), "row"))
        used.append(readable(file))
        for place, _, label in placed:
            if place is None or not label:
                continue
            earlier, other = labelled.setdefault(place, (label, where))
            if earlier != label:
                raise UserError(
                    f"{places.names[place]} is labelled '{earlier}' in {other} but '{label}' in {where}; "
                    "correct one of them, or remove it."
                )
    if not labelled:
        return None
    called = {place: label for place, (label, _) in labelled.items()}
    _require_agreement(called, folders, places.names, used)
    classes = in_order(called.values())
    numbers = {label: i for i, label in enumerate(classes)}
    labels = np.array([numbers[called[i]] if i in called else -1 for i in range(len(places.names))])
    bare = np.flatnonzero(labels < 0)
    if len(bare):
        what = f"left out (without a label in {' and '.join(used)})"
        notes.append(Note("left out", len(bare), what, places.names[bare[0]], len(labels)))
    return Labels(labels, classes, tuple(used), notes)


def read_numbers(archive: Archive) -> dict[str, np.ndarray]:
    """Reads the numeric columns of an archive's label files, `(N,)` each, with NaN where an image has no value."""
    places = _Places([readable(name) for name in archive.names])
    columns: dict[str, np.ndarray] = {}
    for file in archive.others:
        if not file.lower().endswith((*TABLES, ".jsonl")):
            continue
        where = f"{archive.path}/{readable(file)}"
        table = _table(file, _text(archive, file, where), where)
        head = [cell.strip() for cell in table[0]] if table else []
        lower = [cell.lower() for cell in head]
        names = next((lower.index(name) for name in FILE_COLUMNS if name in lower), 0)
        folder = readable(posixpath.dirname(file))
        for row in table[1:]:
            place = places.find(row[names], folder) if len(row) > names else None
            for i, cell in enumerate(row[: len(head)]) if place is not None else ():
                value = _number(cell)
                if i != names and value is not None:
                    if head[i] not in columns:
                        columns[head[i]] = np.full(len(archive.names), np.nan)
                    columns[head[i]][place] = value
    return columns


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class _Places:
    """Finds an image's index in the list of names by its path, its file name, or either without the suffix."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._by_path = {"/".join(path_parts(name)): i for i, name in enumerate(names)}
        self._by_name: dict[str, int | None] = {}
        for path, i in self._by_path.items():
            base = posixpath.basename(path)
            for key in {base, posixpath.splitext(base)[0], posixpath.splitext(path)[0]}:
                # A name that several images share identifies none.
                self._by_name[key] = None if key in self._by_name else i

    def find(self, name: str, folder: str = "") -> int | None:
        """Returns the index of the image that a label file in `folder` calls `name`; None if there is none."""
        path = self._path(name)
        for candidate in ("/".join(path_parts(f"{folder}/{path}")), path):
            if candidate in self._by_path:
                return self._by_path[candidate]
        return self._by_name.get(path, self._by_name.get(posixpath.basename(path)) if path else None)

    def shared(self, name: str) -> bool:
        """Returns whether several images are called `name`."""
        path = self._path(name)
        return any(self._by_name.get(key, -1) is None for key in (path, posixpath.basename(path)))

    @staticmethod
    def _path(name: str) -> str:
        return "/".join(path_parts(readable(name.strip()).replace("\\", "/")))


def _text(archive: Archive, file: str, where: str) -> str:
    try:
        content = archive.bytes(file)
        return content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be read as text in UTF-8: {error}.") from error


def _rows(file: str, text: str, where: str, places: _Places) -> Rows:
    """Returns file names and labels; an empty list if the file has no labels."""
    try:
        if file.lower().endswith(".json"):
            tree = json.loads(text, object_pairs_hook=_unique)
            tried = posixpath.basename(file).lower() in TRIED
            labels = (tree.get("labels", tree if tried else None) if isinstance(tree, dict) else tree) or []
            if tried and isinstance(labels, list) and all(isinstance(record, dict) for record in labels):
                return _columns(_of_objects(labels), where, places)
            pairs = list(labels.items()) if isinstance(labels, dict) else labels
            if not isinstance(pairs, list) or not all(
                isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
            ):
                if tried:
                    return []
                raise UserError(f'{where} should hold pairs of a file and a label, as {{"labels": [["a.png", 3]]}}.')
            odd = [label for _, label in pairs if isinstance(label, list | dict) or _is_nan(label)]
            if odd and not tried:
                raise UserError(f"{where} should give each file one label, and to one it gives {shown(odd[0])}.")
            return [(str(name), class_name(label)) for name, label in pairs if not isinstance(label, list | dict)]
    except RecursionError as error:
        raise UserError(f"{where} is nested too deep.") from error
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON: {error}.") from error
    return _columns(_table(file, text, where), where, places)


def _table(file: str, text: str, where: str, *, strict: bool = False) -> list[list[str]]:
    """Returns the rows of a CSV, or of a JSON Lines file below a row of its keys; `strict` for one that has labels."""
    try:
        if file.lower().endswith(".jsonl"):
            return _of_objects(_objects(text, where))
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        if file.lower().endswith(".txt") and delimiter not in first:
            return [line.rsplit(maxsplit=1) for line in text.splitlines() if line.strip()]
        return [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict) if any(row)
        ]
    except csv.Error as error:
        raise UserError(f"{where} is not valid CSV: {error}{'; is a quote not closed?' if strict else '.'}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; raises a `ValueError` for a key that has two values."""
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree and tree[key] != value:
            raise ValueError(f"{quoted(key)} is given twice, as {shown(tree[key])} and as {shown(value)}")
        tree[key] = value
    return tree


def _of_objects(objects: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Returns JSON objects as rows, below a row of their keys."""
    names = list(dict.fromkeys(str(key) for record in objects for key in record))
    return [names, *([class_name(record.get(name)) for name in names] for record in objects)]


def _objects(text: str, where: str) -> list[dict[str, Any]]:
    """Returns the objects of a JSON Lines file."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            tree = json.loads(line, object_pairs_hook=_unique) if line.strip() else {}
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict):
            raise UserError(f'Line {number} of {where} is not a JSON object, as {{"file_name": "a.png", "label": 3}}.')
        found += [tree] if tree else []
    return found


def _is_picture(cell: str) -> bool:
    """Whether a cell names a picture, perhaps one that is not there."""
    return posixpath.splitext(cell.strip())[1].lower() in SUFFIXES


def _columns(table: list[list[str]], where: str, places: _Places) -> Rows:
    if not table:
        return []
    head = [cell.strip().lower() for cell in table[0]]
    named = [i for i, cell in enumerate(table[0]) if places.find(cell) is not None or _is_picture(cell)]
    file = next((head.index(name) for name in FILE_COLUMNS if name in head), None)
    label = next((head.index(name) for name in LABEL_COLUMNS if name in head), None)
    if named:  # no header: the first line is a row like the others
        file, label, rows = named[0], None, table
    else:
        rows = table[1:]
        if label is None:
            label = next((i for i, name in enumerate(head) if "label" in name or "class" in name), None)
    if len(head) == 2 and label is None:
        label = 1 - (file or 0)
        # Captions differ from row to row; classes repeat.
        if not named and len({row[label] for row in rows if len(row) > label}) * 2 > len(rows):
            return []
    if file is None and label is not None:
        file = 0 if label else 1
    if file is None or label is None:
        return []
    full = [row for row in rows if len(row) > max(file, label)]
    long = next((row for row in full if "\n" in row[label].strip() and places.find(row[file]) is not None), None)
    if long:
        raise UserError(
            f"{where} gives {quoted(long[file])} a label of several lines, '{quoted(long[label])}'; is a quote not "
            "closed?"
        )
    return [(row[file], class_name(row[label])) for row in full]


def rare_class(labels: np.ndarray, classes: Sequence[str]) -> str:
    """Returns the name of the rarest class if it has too few images to be learned; else an empty text."""
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    return classes[int(counts.argmin())] if counts.min() < FEWEST_OF_CLASS else ""


def class_name(value: Any) -> str:
    """Returns a label as the name of a class."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return readable(str(value)).strip()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def label_of(value: Any) -> str:
    """Returns a record's label as the name of a class; a list or a table is none."""
    return "" if isinstance(value, list | dict) else class_name(value)


def in_order(labels: Iterable[str]) -> list[str]:
    """Returns the different labels: whole numbers by their values, then the others by their letters."""
    return sorted(set(labels), key=lambda label: (0, int(label), "") if _whole(label) else (1, 0, label))


def _whole(label: str) -> bool:
    return label.isascii() and label.removeprefix("-").isdigit() and len(label) < 19


def _require_agreement(called: dict[int, str], folders: Sequence[str], names: list[str], used: list[str]) -> None:
    """Raises a `UserError` if folders and files name the same classes but disagree; ignores numbered folders."""
    kinds = {folder for folder in folders if folder}
    if len(kinds) < 2 or all(kind.isdigit() for kind in kinds):
        return
    known, means = set(called.values()), dict[str, str]()
    for place, label in called.items():
        folder = folders[place]
        # Other names for the same classes, such as numbers, must each belong to one folder.
        expected = folder if folder in known else means.setdefault(folder, label) if len(known) == len(kinds) else label
        if expected != label:
            raise UserError(
                f"{names[place]} is labelled '{label}' in {' and '.join(used)}, but images in its folder are "
                f"'{expected}'; move the image, correct the label, or remove the file of labels."
            )
