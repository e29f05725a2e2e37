"""Puts pages that `zeuxis reproduce` wrote into the documentation.

    python -m benchmarks.documents.reproductions runs/digits.html runs/study.html

Pictures are stored with fewer colours or as WebP, whichever takes less; the rest of a page stays as it is.
docs/reproduce.md links to the pages.
"""

from __future__ import annotations

import argparse
import base64
import re
from io import BytesIO
from pathlib import Path

from PIL import Image

PAGES = Path(__file__).parents[2] / "docs" / "extra" / "reproductions"
COLOURS, QUALITY = 64, 80


def smaller(page: str) -> str:
    """Returns a page whose pictures take fewer bytes."""
    return re.sub(r"data:image/png;base64,([A-Za-z0-9+/=]+)", lambda found: _stored(found[1]), page)


def _stored(encoded: str) -> str:
    """Returns the address of a picture, given as PNG in base64, in the form that takes the fewest bytes."""
    original = base64.b64decode(encoded)
    picture = Image.open(BytesIO(original)).convert("RGB")
    few_colours, lossy = BytesIO(), BytesIO()
    picture.quantize(COLOURS).save(few_colours, "png", optimize=True)
    picture.save(lossy, "webp", quality=QUALITY, method=6)
    forms = (("png", original), ("png", few_colours.getvalue()), ("webp", lossy.getvalue()))
    kind, least = min(forms, key=lambda form: len(form[1]))
    return f"data:image/{kind};base64,{base64.b64encode(least).decode()}"


def main() -> None:
    """Reads the command line, and writes the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("pages", nargs="+", type=Path, help="HTML files")
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in parser.parse_args().pages:
        page = smaller(path.read_text("utf-8"))
        (PAGES / path.name).write_text(page, "utf-8")
        print(f"{PAGES / path.name}: {len(page) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
