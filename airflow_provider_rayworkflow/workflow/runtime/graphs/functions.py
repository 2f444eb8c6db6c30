"""Users' functions as they are stored: pickled once a graph, unpickled once a process."""

from __future__ import annotations

import functools
import hashlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MAX_FUNCTIONS = 1_000

_functions: dict[bytes, Any] = {}
_users_of_originals = 0


def load(pickled: bytes) -> Any:
    """The function of these bytes."""
    digest = _digest(pickled)
    if digest not in _functions:
        _remember(digest, pickle.loads(pickled))
    return _functions[digest]


def dumped(pickled: bytes, function: Any) -> None:
    """Take note of a function that was pickled in this process; see :func:`originals`."""
    if _users_of_originals:
        _remember(_digest(pickled), function)


@contextmanager
def originals() -> Iterator[None]:
    """While this lasts, what was pickled in this process is loaded as the very same function.

    So a test sees what its functions do to the variables around them.
    """
    global _users_of_originals
    _users_of_originals += 1
    try:
        yield
    finally:
        _users_of_originals -= 1


@functools.lru_cache(maxsize=8)  # the tasks of a Ray task have few functions, each the same object
def _digest(pickled: bytes) -> bytes:
    return hashlib.sha256(pickled).digest()


def _remember(digest: bytes, function: Any) -> None:
    if len(_functions) >= _MAX_FUNCTIONS:
        _functions.clear()
    _functions[digest] = function
