"""The folder of an export: it appears whole, and replaces only an earlier export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zeuxis.errors import UserError
from zeuxis.files import WriteError, exists, make_folder, unfinished, why, write_file

__all__ = ["replaced"]

# A file that marks a folder as ours to replace.
MARK = ".zeuxis-export"


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yields a new folder to fill; at the end it takes the place of `folder`.

    Raises:
        UserError: if `folder` is a file, or holds something that is not an export.
        WriteError: if it cannot be filled; what was there before remains.
    """
    if exists(folder) and not folder.is_dir():
        raise UserError(f"{folder} is a file; an export is a folder. Choose another place with --out.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UserError(f"{folder} holds other files, which an export would replace. Choose another place with --out.")
    with unfinished(folder.parent) as aside:
        filling = make_folder(aside / "new")
        try:
            write_file(filling / MARK, "")
            yield filling
            if folder.is_dir():
                folder.rename(aside / "old")
            filling.rename(folder)
        except OSError as error:
            raise WriteError(f"{folder} cannot be written: {why(error)}.") from error
        except WriteError as error:  # under the name that the user knows
            raise WriteError(str(error).replace(str(filling), str(folder))) from error
