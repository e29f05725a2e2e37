"""Lists the runs in a folder, and keeps order among them: rename, annotate, star, prune, remove.

Reads recipes, journals, evaluations and checkpoint headers alone, so that a list of a thousand runs takes seconds and
needs no PyTorch. A run that cannot be read is listed as broken.
"""

from __future__ import annotations

import json
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zeuxis import stores
from zeuxis.errors import UserError, nearest, one_of, quoted
from zeuxis.files import exists, is_name, locked, name_fault, regular, write_file
from zeuxis.progress import rounded
from zeuxis.recipe import run_recipe
from zeuxis.trust import UntrustedError

__all__ = ["SORTS", "Entry", "annotate", "below", "entries", "entry", "folder_of", "prune", "remove", "rename"]

NOTES = "notes.json"
# As much of a journal's end as the newest line and the newest test are looked for in.
TAIL = 2**16
# The last step may exceed a budget a little; from this share on, more was used than the budget says.
MORE = 1.02


@dataclass(frozen=True)
class Entry:
    """One run of a list.

    Attributes:
        name: of its folder.
        state: running, finished, settled (ended early, as its recipe says), stopped, untrusted
            (it names code that nobody has allowed to run), or broken.
        recipe: name of its recipe.
        model: name of its model.
        data: where its images come from.
        used: how much of the budget is used.
        budget: the whole budget.
        unit: what the budget counts: epochs, steps or minutes.
        step: of its newest journal line.
        distance: Frechet distance of its evaluation, if that is of the weights in use, or of its last test; None
            without either.
        judge: what the distance was measured with; empty for that of a test.
        test_mse: test MSE of its last test.
        started: date and time, UTC.
        bytes: its size on disk, or in its store.
        star: whether it is starred.
        note: what the user wrote about it.
    """

    name: str
    state: str
    recipe: str = ""
    model: str = ""
    data: str = ""
    used: float = 0.0
    budget: float = 0.0
    unit: str = ""
    step: int = 0
    distance: float | None = None
    judge: str = ""
    test_mse: float | None = None
    started: str = ""
    bytes: int = 0
    star: bool = False
    note: str = ""

    @property
    def readable(self) -> bool:
        """Whether the run can be opened as it is."""
        return self.state not in ("untrusted", "broken")

    @property
    def progress(self) -> str:
        """How far it is, such as `2.1 of 50 epochs`; a run resumed with a smaller budget may have used more than it."""
        if self.used > MORE * self.budget:
            return f"{rounded(self.used)} {self.unit}"
        return f"{rounded(self.used)} of {rounded(self.budget)} {self.unit}" if self.unit else ""

    def row(self) -> dict[str, Any]:
        """The entry as plain values, for JSON and CSV."""
        return asdict(self)


# What a list can be sorted by; the second value says whether large ones come first.
SORTS: dict[str, tuple[str, bool]] = {
    "name": ("name", False), "date": ("started", True), "recipe": ("recipe", False), "state": ("state", False),
    "distance": ("distance", False), "mse": ("test_mse", False), "size": ("bytes", True), "step": ("step", True),
}  # fmt: skip


def entries(runs: Path, *, sort: str = "name", matching: str = "") -> list[Entry]:
    """Returns the runs in a folder; starred ones first.

    Args:
        runs: the folder of runs.
        sort: one of `SORTS`.
        matching: keep those whose name, recipe, model, data, state or note contains this text.
    """
    stores.refresh(runs)
    folders = sorted(path.parent for path in runs.glob("*/recipe.toml")) if runs.is_dir() else []
    found = [entry(folder) for folder in folders]
    text = matching.lower()
    kept = [e for e in found if text in " ".join((e.name, e.recipe, e.model, e.data, e.state, e.note)).lower()]
    if sort not in SORTS:
        raise one_of("order", sort, SORTS)
    key, descending = SORTS[sort]
    known = [e for e in kept if getattr(e, key) is not None]
    # Distances by different judges cannot be compared.
    known.sort(key=lambda e: (e.judge if key == "distance" else "", getattr(e, key)), reverse=descending)
    ordered = known + [e for e in kept if getattr(e, key) is None]
    return sorted(ordered, key=lambda e: not e.star)


def below(runs: Path) -> dict[Path, int]:
    """Returns the folders inside a folder of runs that hold further runs, such as a sweep's, and how many they hold."""
    found = Counter(path.parent.parent for path in runs.glob("*/*/recipe.toml"))
    return {
        folder: count
        for folder, count in sorted(found.items())
        if is_name(folder.name) and not exists(folder / "recipe.toml")
    }


def entry(folder: Path) -> Entry:
    """Reads what a list shows of a run."""
    notes = _json(folder / NOTES)
    more: dict[str, Any] = {
        "star": notes.get("star") is True, "note": str(notes.get("note", "")),
        "bytes": stores.bytes_elsewhere(folder)
        + sum(map(_size, folder.rglob("*"))),
    }  # fmt: skip
    try:
        recipe = run_recipe(folder)
    except UserError as error:
        return Entry(folder.name, "untrusted" if isinstance(error, UntrustedError) else "broken", **more)
    lines = _tail(folder / "journal.jsonl")
    last = lines[-1] if lines else {"epoch": 0, "step": 0, "seconds": 0}
    unit, budget = recipe.training.budget
    used = recipe.training.used(last)
    header = cache(lambda: _header(folder))
    distance, judge = _evaluated(folder, header)
    return Entry(
        folder.name, _state(folder, used, budget, header), recipe.name, recipe.model.name,
        Path(recipe.data.path).name or recipe.data.source, used, budget, unit, last["step"],
        distance if distance is not None else _newest(lines, "test/fid"), judge, _newest(lines, "test/mse"),
        str(_json(folder / "environment.json").get("started", ""))[:16].replace("T", " "), **more,
    )  # fmt: skip


def _size(path: Path) -> int:
    """The bytes of a file; 0 for all else, and for a file that was there a moment ago, as in a training."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _evaluated(folder: Path, header: Callable[[], dict[str, Any]]) -> tuple[float | None, str]:
    """The distance of a run's evaluation, and its judge; None if it is of other weights than those in use."""
    evaluation = _json(folder / "evaluation.json")
    measures = evaluation.get("measures")
    fid = measures.get("fid") if isinstance(measures, dict) else None
    value = fid.get("value") if isinstance(fid, dict) else None
    distance = float(value) if isinstance(value, int | float) else None
    # Without a header, as in a store, the weights in use are not known.
    known = header() if distance is not None else {}
    if distance is None or (known and evaluation.get("step") != (known.get("best") or [0.0, known["step"]])[1]):
        return None, ""
    return distance, str(fid.get("features") or "") if isinstance(fid, dict) else ""


def _state(folder: Path, used: float, budget: float, header: Callable[[], dict[str, Any]]) -> str:
    if stores.in_use(folder):
        return "running"
    if used >= 0.999 * budget:
        return "finished"
    return "settled" if header().get("settled") else "stopped"


def _header(folder: Path) -> dict[str, Any]:
    """The counters of a run's newest checkpoint, or of its only one if it was pruned; empty without one."""
    from safetensors import SafetensorError, safe_open

    for path in sorted((folder / "checkpoints").glob("*.safetensors"), reverse=True):
        try:
            with safe_open(regular(path), framework="numpy") as file:
                state = json.loads((file.metadata() or {}).get("zeuxis", "{}"))
                return state if isinstance(state, dict) else {}
        except (SafetensorError, OSError, ValueError):
            continue
    return {}


def _tail(path: Path) -> list[dict[str, Any]]:
    """The last lines of a journal that can be read."""
    try:
        with regular(path).open("rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL, 0))
            pieces = file.read().split(b"\n")
    except OSError:
        return []
    lines = []
    for piece in pieces:
        try:
            line = json.loads(piece)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and all(
            isinstance(line.get(key), int | float) for key in ("step", "epoch", "seconds")
        ):
            lines.append(line)
    return lines


def _newest(lines: list[dict[str, Any]], key: str) -> float | None:
    value = next((line[key] for line in reversed(lines) if key in line), None)
    return float(value) if isinstance(value, int | float) else None


def _json(path: Path) -> dict[str, Any]:
    """A file of one JSON object; empty if there is none, or if it is damaged."""
    try:
        tree = json.loads(regular(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def folder_of(name: str, runs: Path) -> Path:
    """Returns the folder of a run in a list, by its name or its path.

    Raises:
        UserError: if there is none of this name.
    """
    if exists(Path(name) / "recipe.toml") and Path(name).parent.resolve() == runs.resolve():
        return runs / Path(name).name
    if not is_name(name) or not exists(stores.at_hand(runs / name) / "recipe.toml"):
        known = [path.parent.name for path in runs.glob("*/recipe.toml")] if runs.is_dir() else []
        raise UserError(f"There is no run '{quoted(name)}' in {runs}.{nearest(name, known)}")
    return runs / name


def annotate(folder: Path, *, note: str | None = None, star: bool | None = None) -> None:
    """Changes a run's note or its star.

    Raises:
        UserError: if what was noted before cannot be read, and would be lost.
    """
    path = folder / NOTES
    if exists(path) and not _json(path) and path.read_bytes().strip() not in (b"", b"{}"):
        raise UserError(f"{path} is damaged; correct it, or remove it to begin anew.")
    if note is not None:
        with suppress(UnicodeEncodeError):  # where the locale is not UTF-8, words on a command line arrive as bytes
            note = note.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    notes = _json(path) | {key: v for key, v in (("note", note), ("star", star)) if v is not None}
    write_file(path, json.dumps(notes, indent=1) + "\n")


def rename(folder: Path, name: str) -> Path:
    """Renames a run that nothing is training, and returns its new folder.

    Raises:
        UserError: for a name that is taken or not allowed, and for a run that is being trained.
    """
    target = folder.parent / name
    if fault := name_fault(name):
        raise UserError(f"'{quoted(name)}' cannot name a run: {fault}.")
    if exists(target):
        raise UserError(f"{target} exists already; choose another name.")
    _require_idle(folder)
    folder.rename(target)
    stores.rename(folder, target)
    return target


def remove(folders: Iterable[Path]) -> None:
    """Deletes runs, none of which is being trained.

    Raises:
        LockedError: for the first that is being trained; nothing is deleted.
        UserError: for a link to a run.
    """
    chosen = list(folders)
    for folder in chosen:
        if folder.is_symlink():
            raise UserError(f"{folder} is a link to {folder.resolve()}; remove that run by its own name, or the link.")
        _require_idle(folder)
    for folder in chosen:
        stores.remove(folder)
        shutil.rmtree(folder)


def _require_idle(folder: Path) -> None:
    """Raises a `LockedError` for a run that is being trained."""
    stores.require_free(folder)
    with locked(folder):
        pass


def prune(folder: Path) -> int:
    """Keeps a run's weights alone, of its best or newest checkpoint, and returns the bytes that are freed.

    Such a run still samples, evaluates and reports; it cannot be resumed.
    """
    from zeuxis.training.checkpoint import Checkpoint, best_checkpoint, checkpoints

    stores.require_free(folder)
    with locked(folder):
        place = folder / "checkpoints"
        before = sum(path.stat().st_size for path in place.glob("*"))
        path = best_checkpoint(place)
        if path is None:
            return 0
        whole = Checkpoint.read(path, parts=("networks/", "average/"))
        state = whole.state | {"best": [0.0, whole.state["step"]]}
        for old in checkpoints(place):
            if old.name != f"step-{whole.state['step']:08d}.safetensors":
                old.unlink()
        written = Checkpoint(whole.tensors, state).save(place)
        (place / "best.safetensors").unlink(missing_ok=True)
        written.rename(place / "best.safetensors")
        return before - sum(path.stat().st_size for path in place.glob("*"))
