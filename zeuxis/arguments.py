"""Checks of what a program passes to the public functions.

`checked` compares arguments with a function's annotations before its first line runs, so that a wrong type is told in a
sentence, not found deep inside. Numbers of NumPy count as those of Python. What is annotated as an array is left to the
function: lists and tensors may stand for arrays, and shapes say more than types.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache, wraps
from importlib import import_module
from inspect import signature
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

from zeuxis.errors import UserError, nearest, shown

__all__ = ["checked"]

# Types that annotations name and some modules import for type checkers alone.
TYPES = {"Run": "zeuxis.run", "Callback": "zeuxis.training", "Judge": "zeuxis.evaluation.judge"}
P = ParamSpec("P")
T = TypeVar("T")


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Makes a function raise a `UserError` for arguments that its annotations exclude; text is no list of letters."""
    parameters = signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            given = parameters.bind(*args, **kwargs)
        except TypeError as error:
            raise _misfit(function, list(parameters.parameters), kwargs, error) from None
        for name, value in given.arguments.items():
            parameter = parameters.parameters[name]
            annotation = parameter.annotation
            if (
                name == "self"
                or parameter.kind is parameter.VAR_KEYWORD
                or "ndarray" in annotation
                or annotation == "Any"
            ):
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                given.arguments[name] = tuple(map(_of_python, value))
                for each in given.arguments[name]:
                    _require(function, name, annotation, each)
                continue
            given.arguments[name] = _of_python(value)
            _require(function, name, annotation, given.arguments[name])
        return function(*given.args, **given.kwargs)

    return call


def _misfit(function: Callable[..., Any], names: list[str], given: Mapping[str, Any], error: TypeError) -> UserError:
    """Returns what to say of arguments that do not fit a function's."""
    unknown = next((name for name in given if name not in names), "")
    if unknown:
        known = [name for name in names if name != "self"]
        return UserError(f"{function.__qualname__} has no argument '{unknown}'.{nearest(unknown, known)}")
    return UserError(f"{function.__qualname__}: {error}.")


def _of_python(value: Any) -> Any:
    """Returns a number, or the keys of a mapping, as Python's; anything else as it is."""
    if isinstance(value, Mapping):
        return {_of_python(key): each for key, each in value.items()}
    if isinstance(value, Integral):
        return value if isinstance(value, bool) else int(value)
    return float(value) if isinstance(value, Real) else value


def _require(function: Callable[..., Any], name: str, annotation: str, value: Any) -> None:
    from pydantic import ValidationError

    from zeuxis.recipe import expected

    try:
        _adapter(function.__module__, annotation).validate_python(value)
    except ValidationError as error:
        findings = error.errors(include_url=False)
        verb = "hold" if any(isinstance(part, int) for part in findings[0]["loc"]) else "be"
        wanted = " or ".join(dict.fromkeys(map(expected, findings)))
        raise UserError(f"{function.__qualname__}: {name} should {verb} {wanted}, not {shown(value)}.") from None


@cache
def _adapter(module: str, annotation: str) -> Any:
    """Returns what validates an annotation in a module, with the names that are imported there for types alone."""
    from pydantic import ConfigDict, TypeAdapter

    names = dict(vars(sys.modules[module]))
    for name, place in TYPES.items():
        if name in annotation and name not in names:
            names[name] = getattr(import_module(place), name)
    kind = eval(annotation, names)
    return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True, strict=True))
