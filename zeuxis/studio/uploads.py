"""Images that are dropped on a page: written into a folder of their own below the runs, bounded in number and size.

How large a picture may be is checked where all images are read (`zeuxis.data.files`), before it is decoded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex

from zeuxis.data.files import SUFFIXES
from zeuxis.errors import UserError, quoted
from zeuxis.files import PACKED, make_folder, path_part, write_file

__all__ = ["MOST_BYTES", "MOST_FILES", "Uploads"]

TAKEN = (*SUFFIXES, ".csv", ".tsv", ".txt", ".json", ".jsonl", *PACKED)
# Files of one drop, bytes of one file, and bytes of all; folders within folders.
MOST_FILES, MOST_BYTES, MOST_TOTAL, DEEPEST = 20_000, 256 * 2**20, 4 * 2**30, 4


class Uploads:
    """What was dropped, a folder each.

    Args:
        folder: that holds these folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sizes: dict[str, tuple[int, int]] = {}

    def begin(self) -> str:
        """Makes a folder for one drop, and returns its name."""
        name = token_hex(8)
        make_folder(self.folder / name)
        self._sizes[name] = (0, 0)
        return name

    def place(self, name: str) -> Path:
        """Returns what a drop gave: its folder, or the one archive in it.

        Raises:
            UserError: if there is no such drop in this session.
        """
        if name not in self._sizes:
            raise UserError("These files belong to no drop on this page; drop them again.")
        files = list((self.folder / name).iterdir())
        if len(files) == 1 and files[0].suffix.lower() in PACKED:
            return files[0]
        return self.folder / name

    async def store(self, name: str, file: str, content: AsyncIterator[bytes]) -> None:
        """Writes one file of a drop.

        Args:
            name: of the drop.
            file: its path within what was dropped, with forward slashes.
            content: its bytes.

        Raises:
            UserError: if it is no image, or if it is too much.
        """
        if name not in self._sizes:
            raise UserError("These files belong to no drop on this page; drop them again.")
        parts = [path_part(part) for part in file.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if not parts or not parts[-1].lower().endswith(TAKEN):
            raise UserError(f"'{quoted(file)}' is not an image, an archive of images, or a file of labels.")
        if len(parts) > DEEPEST:
            raise UserError(f"'{quoted(file)}' lies too many folders deep.")
        if self._sizes[name][0] >= MOST_FILES:
            raise UserError(f"More than {MOST_FILES:,} files: put them into a zip, or into the data folder.")
        pieces, size = [], 0
        async for piece in content:
            size += len(piece)
            if size > MOST_BYTES or self._sizes[name][1] + size > MOST_TOTAL:
                raise UserError(f"'{quoted(file)}' is too large to be dropped; put it into the data folder.")
            pieces.append(piece)
        path = (self.folder / name).joinpath(*parts)
        make_folder(path.parent)
        write_file(path, b"".join(pieces))
        count, total = self._sizes[name]  # as they are now: other files of the drop came meanwhile
        self._sizes[name] = (count + 1, total + size)
