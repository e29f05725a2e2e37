"""The command line: one function per command, which parses its arguments, calls the library and prints the result.

The commands stand in one file per purpose; importing them registers them.
"""

from __future__ import annotations

import re
import sys
from io import StringIO
from typing import NoReturn, cast

import typer

# Importing them registers their commands, in the order in which the help lists them.
from zeuxis.cli import training, images, latent, measures, sharing, runs, recipes, studio  # noqa: F401  # isort: skip
from zeuxis.cli.shared import app
from zeuxis.errors import StoppedError, UserError, shortened
from zeuxis.files import why

__all__ = ["app", "main"]

# The base class of all errors in a command line's arguments; typer exports only some of its subclasses.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])


def main() -> NoReturn:
    """Runs the command line and exits with its code; a user's mistake prints a sentence and exits with code 2."""
    try:
        try:
            code = app(standalone_mode=False)
        finally:
            if "zeuxis.stores" in sys.modules:
                sys.modules["zeuxis.stores"].finish()
    except UsageError as error:
        usage = StringIO()
        error.show(usage)
        _fail(usage.getvalue().rstrip("\n"), 2)
    except StoppedError as error:
        _fail(str(error), 130)
    except UserError as error:
        _fail(f"Error: {error}", 2)
    except OSError as error:
        _fail(f"Error: {error.filename or 'A file'} cannot be used: {why(error)}.", 2)
    except (MemoryError, RuntimeError) as error:
        # PyTorch raises a plain RuntimeError when the CPU runs out of memory.
        if isinstance(error, RuntimeError) and not re.search("tried to allocate|out of memory", str(error)):
            raise
        _fail("Error: There is not enough memory for this; ask for less at once.", 2)
    sys.exit(code)


def _fail(message: str, code: int) -> NoReturn:
    from zeuxis.progress import plain

    print(plain(shortened(message)), file=sys.stderr)  # noqa: T201 - the only place that prints failures
    sys.exit(code)
