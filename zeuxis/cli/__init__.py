"""The command line: one function per command, which parses its arguments, calls the library and prints the result.

The commands stand in one file per purpose; importing them registers them.
"""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn, cast

import typer

# Importing them registers their commands, in the order in which the help lists them.
from zeuxis.cli import training, images, latent, measures, sharing, runs, recipes, studio  # noqa: F401  # isort: skip
from zeuxis.cli.shared import app
from zeuxis.errors import StoppedError, UserError, shortened, shown
from zeuxis.files import why
from zeuxis.plugins import failure

__all__ = ["app", "main"]

# Pydantic's names of what is wrong with a number out of its range.
RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
# Similarity, 0..1, from which on an option's name may be what was meant: two letters of seven may be exchanged.
NEAR = 0.75

# The base class of all errors in a command line's arguments; typer exports only some of its subclasses.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])


def main() -> NoReturn:
    """Runs the command line and exits with its code; a user's mistake prints a sentence and exits with code 2."""
    try:
        Path.cwd()
    except OSError:
        _fail("Error: The folder in which this command was called is gone; change to another one.", 2)
    try:
        try:
            code = app(standalone_mode=False)
        finally:
            if "zeuxis.stores" in sys.modules:
                sys.modules["zeuxis.stores"].finish()
    except UsageError as error:
        _reword(error)
        usage = StringIO()
        error.show(usage)
        _fail(usage.getvalue().rstrip("\n"), 2)
    except StoppedError as error:
        _fail(str(error), 130)
    except UserError as error:
        _fail(f"Error: {error}", 2)
    except OSError as error:
        _fail(f"Error: {error.filename or 'A file'} cannot be used: {why(error)}.", 2)
    except Exception as error:
        # PyTorch raises a plain RuntimeError when the CPU runs out of memory.
        full = isinstance(error, RuntimeError) and re.search("tried to allocate|out of memory", str(error))
        if full or isinstance(error, MemoryError):
            _fail("Error: There is not enough memory for this; ask for less at once.", 2)
        if message := failure(error):
            _fail(f"Error: {message}", 2)
        raise
    sys.exit(code)


def _reword(error: Any) -> None:
    """Changes what typer says of a wrong command line: values in the words of recipes, and only names that are near."""
    if findings := getattr(error.__cause__, "errors", None):  # pydantic's
        from zeuxis.recipe import expected

        finding, low, high = findings()[0], *(getattr(error.param, end, None) for end in ("min", "max"))
        if finding["type"] == "value_error":
            error.message = str(finding["ctx"]["error"])
        elif low is not None and high is not None and finding["type"] in RANGE:
            error.message = f"it should be from {low:,} to {high:,}, not {finding['input']}."
        else:
            error.message = f"it should be {expected(finding)}, not {shown(finding['input'])}."
    elif names := getattr(error, "possibilities", None):
        near = get_close_matches(error.option_name, names, cutoff=NEAR)
        error.possibilities = None
        error.message += f". Did you mean {' or '.join(near)}?" if near else "."
    elif match := re.fullmatch(r"No such command '(ls|list|show)'\.", str(error.message)):
        path = error.ctx.command_path.split()
        lists = path[-1] if path[-1] in ("runs", "data") else "runs"
        error.message = f"{match[0]} To list {'data sources' if lists == 'data' else 'runs'}: zeuxis {lists}."


def _fail(message: str, code: int) -> NoReturn:
    from zeuxis.progress import plain

    print(plain(shortened(message)), file=sys.stderr)  # noqa: T201 - the only place that prints failures
    sys.exit(code)
