"""Resumable downloads with checksums.

pooch verifies the checksum and moves the finished file into place. The transfer writes to a `.part` file, so that an
interrupted download continues where it stopped (HTTP range requests, RFC 9110 section 14).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from zeuxis.errors import UserError
from zeuxis.progress import bar, say

__all__ = ["fetch"]


def fetch(url: str, known_hash: str, target: Path, *, instead: str = "--data digits needs no download.") -> Path:
    """Downloads a file, unless it exists with the right checksum; returns its path.

    Args:
        url: published address.
        known_hash: `"md5:..."` or `"sha256:..."`.
        target: path of the file; its folder is made.
        instead: what needs no download, for messages.

    Raises:
        UserError: if the address cannot be reached or the checksum is wrong.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    if not target.exists():
        say(f"Downloading {url}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(url, known_hash, fname=target.name, path=target.parent, downloader=_resume)
    except (requests.RequestException, OSError) as error:
        raise UserError(
            f"{url} cannot be downloaded to {target} ({type(error).__name__}). Check the network and run the command "
            f"again, which continues the download, or put the file there by hand. {instead}"
        ) from error
    except ValueError as error:
        raise UserError(
            f"The file from {url} does not have the published checksum {known_hash}; try again later."
        ) from error
    return target


def _resume(url: str, output_file: Any, pooch: Any) -> None:
    """Transfers `url` to a `.part` file beside the target, continuing where an earlier attempt stopped."""
    import requests

    output = Path(output_file)
    part = output.parent / f"{url.rsplit('/', 1)[-1]}.part"
    done = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    with requests.get(url, headers=headers, stream=True, timeout=30) as response:
        if response.status_code == 416:  # nothing is left to send: the .part file is complete
            shutil.move(part, output)
            return
        response.raise_for_status()
        resumed = response.status_code == 206
        length = int(response.headers.get("Content-Length", 0)) + (done if resumed else 0)
        with part.open("ab" if resumed else "wb") as file, bar(part.stem, length or None) as advance:
            advance(done if resumed else 0)
            for block in response.iter_content(1 << 16):
                file.write(block)
                advance(len(block))
    if length and part.stat().st_size < length:
        raise requests.ConnectionError(f"connection closed after {part.stat().st_size} of {length} bytes")
    shutil.move(part, output)
