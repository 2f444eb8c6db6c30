"""What code consists of, and what it names: for its fingerprint."""

from __future__ import annotations

import dis
import functools
import inspect
import operator
import re
import sys
import types
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any

from airflow_provider_rayworkflow.workflow.model.ids import stable_module_name

#: Values without parts.
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))


def constants(code: types.CodeType) -> Iterator[Any]:
    """The constants of code, None in place of its docstring."""
    found = code.co_consts
    if _has_docstring(code):
        yield None
        found = found[1:]
    yield from found


def _has_docstring(code: types.CodeType) -> bool:
    if not code.co_consts or not isinstance(code.co_consts[0], str):
        return False
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & inspect.CO_HAS_DOCSTRING)
    # Before, the first constant of a function is its docstring, or None.
    return bool(code.co_flags & inspect.CO_NEWLOCALS) and not code.co_name.startswith("<")


def global_names(code: types.CodeType) -> Iterator[str]:
    """The globals that code reads, also in functions that it makes."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from global_names(constant)


def names_in(code: types.CodeType) -> Iterator[str]:
    """The names of globals and attributes in code, also in functions that it makes."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)


#: What counts by its code where code names it.
CODE_TYPES = (
    *(types.FunctionType, type, types.ModuleType, staticmethod, classmethod, property),
    functools._lru_cache_wrapper,
)


def is_of_module(value: Any) -> bool:
    """True for a function of Python that is written in C."""
    return isinstance(value, types.BuiltinFunctionType) and (
        value.__self__ is None or isinstance(value.__self__, types.ModuleType)
    )


def root_of(value: Any) -> str:
    """The package of a function, class or module: the first part of its module's name."""
    return stable_module_name(value).partition(".")[0]


def named_instead(value: Any) -> Any:
    """The function or class that the name of this one leads to, if that is another one; else None.

    So it is with what ``functools.wraps`` has given the name of another function. Where the module is not
    loaded, or has nothing of that name, the name stands for it.
    """
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    behind = found
    for _ in range(_MOST_WRAPPINGS):
        if behind is value:
            return None
        behind = _behind(behind)
    is_one = isinstance(found, (types.FunctionType, type)) or _behind(found) is not None
    return found if is_one else None


_MOST_WRAPPINGS = 20


def _behind(value: Any) -> Any:
    """The function in what stands in its place: a cache, a task, a remote function, a static method."""
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    own = getattr(value, "__dict__", {})
    return own.get("__wrapped__") or own.get("_function")


def wrapped(value: Any) -> Any:
    """The function in what a decorator has made of one; None for anything else."""
    if isinstance(value, (functools.cached_property, functools.singledispatchmethod)):
        return value.func
    own = getattr(value, "__dict__", None)
    return own.get("__wrapped__") if type(own) is dict else None


def is_constant(value: Any) -> bool:
    """True for a value that never changes."""
    if isinstance(value, (tuple, frozenset)):
        return all(map(is_constant, value))
    if isinstance(value, types.BuiltinFunctionType):  # a method, as "-".join
        return is_constant(value.__self__)
    return isinstance(value, (*PLAIN, Enum)) or type(value) in _NEVER_CHANGE


_NEVER_CHANGE = frozenset(
    {range, slice, date, datetime, time, timedelta, timezone, Decimal, Fraction, re.Pattern}
    | {PurePosixPath, PureWindowsPath, PosixPath, WindowsPath}
    | {operator.itemgetter, operator.attrgetter, operator.methodcaller}
)
