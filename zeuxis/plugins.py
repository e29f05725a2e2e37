"""Plugins: the user's Python files that register models, layers, losses, data sources, measures and so on.

A recipe names files beside it, `plugins = ["mine.py"]`, or the command line does, `--plugin mine.py`. A run keeps a
copy of each, so that it opens on another machine. Loading a plugin runs it: `zeuxis.trust` decides which may run.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType

from zeuxis.errors import UserError, quoted
from zeuxis.files import is_name, why

__all__ = ["FOLDER", "Plugin", "failure", "load_plugins", "read_plugin"]

# A run's folder of plugins.
FOLDER = "plugins"
# Beginning of the names of the modules that plugins become.
MODULE = "zeuxis_plugin_"
MOST_BYTES = 2**20


@dataclass(frozen=True)
class Plugin:
    """A plugin's file.

    Attributes:
        name: name of the file, such as `"mine.py"`.
        content: its bytes.
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        return f"the plugin {self.name}"

    def digest(self, folder: Path | None = None) -> str:
        """Returns the SHA-256 of the content, and of the run that it belongs to."""
        place = str(folder.resolve()) if folder else ""
        return hashlib.sha256(b"plugin\0" + place.encode("utf-8", "surrogatepass") + b"\0" + self.content).hexdigest()


def read_plugin(path: Path, where: str) -> Plugin:
    """Reads a plugin's file; does not run it.

    Args:
        path: path of the file.
        where: what names it, for messages.

    Raises:
        UserError: if it is not a Python file, too large, or cannot be read.
    """
    if path.suffix != ".py" or not is_name(path.name):
        raise UserError(f"{where}: the plugin '{quoted(str(path))}' is not a Python file (.py).")
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{where}: the plugin {path} is not a file.")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: the plugin {path} cannot be read: {why(error)}.") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{where}: the plugin {path} is larger than {MOST_BYTES:,} bytes.")
    return Plugin(path.name, content)


def load_plugins(plugins: Iterable[Plugin]) -> None:
    """Runs plugins, each once per process; the caller must check that they are trusted.

    Raises:
        UserError: if one fails.
    """
    for plugin in plugins:
        # Files of the same content register the same entries, wherever they are.
        name = f"{MODULE}{Path(plugin.name).stem}_{plugin.digest()[:12]}"
        if name in sys.modules:
            continue
        spec = spec_from_loader(name, loader=None, origin=plugin.name)
        assert spec is not None
        module = module_from_spec(spec)
        sys.modules[name] = module
        try:
            exec(compile(plugin.content, plugin.name, "exec"), module.__dict__)
        except UserError:
            del sys.modules[name]
            raise
        except BaseException as error:
            del sys.modules[name]
            if not isinstance(error, Exception | SystemExit):
                raise
            _, line = _innermost(error, name)
            line = error.lineno if isinstance(error, SyntaxError) else line
            place = f", line {line}" if line else ""
            raise UserError(f"The plugin {plugin.name} cannot be loaded{place}: {_described(error)}.") from error


def failure(error: BaseException) -> str:
    """Returns in a sentence which plugin's code raised an error, or called what did; empty if none was involved."""
    code, line = _innermost(error, MODULE)
    if code is None:
        return ""
    return f"The plugin {code.co_filename} failed in line {line}, in {code.co_name}: {_described(error)}."


def _innermost(error: BaseException, module: str) -> tuple[CodeType | None, int | None]:
    """Returns the innermost code, and its line, of modules whose names begin so in an error's traceback."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").startswith(module):
            return frame.f_code, line
    return None, None


def _described(error: BaseException) -> str:
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {quoted(message, 300)}" if message else type(error).__name__
