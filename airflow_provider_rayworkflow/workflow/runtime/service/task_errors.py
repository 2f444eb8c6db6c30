"""Errors of the manager as its callers get them: of their own class, and Ray's task errors too.

``ray.get`` raises the error of a task as both, and programs for Ray Workflows catch either.
"""

from __future__ import annotations

import functools
from typing import Any

from ray.exceptions import RayTaskError


def as_task_error(error: Exception) -> Exception:
    """The same error, which ``except RayTaskError`` catches as well; its ``cause`` is the original.

    It has the name, the text, the attributes and the ``__cause__`` of the original, and survives
    pickling.
    """
    try:
        kind = _kind(type(error))  # type: ignore[arg-type]  # mypy takes classes for unhashable
        raised: Any = kind.__new__(kind)
    except TypeError:  # a class that can't be combined with another, or made without arguments
        return error
    raised.__dict__.update(error.__dict__)
    raised.args, raised.cause, raised.__cause__ = error.args, error, error.__cause__
    return raised  # type: ignore[no-any-return]


@functools.cache
def _kind(kind: type[Exception]) -> type[Exception]:
    # By hand, because RayTaskError's own would come before those of the built-in exceptions.
    methods = {
        "__str__": lambda self: str(self.cause),
        "__reduce__": lambda self: (as_task_error, (self.cause,)),
    }
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind, RayTaskError), methods | names)
