"""What the variables hold that code names, for exact fingerprints of code.

A list, dict or set that is empty when a process asks first is one that the program fills, such as a memo, or a
list of calls in a test: what it holds later is no part of the code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from airflow_provider_rayworkflow.workflow.model import plain_values
from airflow_provider_rayworkflow.workflow.model.plain_values import DigestOf
from airflow_provider_rayworkflow.workflow.model.reduced import reduced_of
from airflow_provider_rayworkflow.workflow.model.tables import by_values

_CYCLE = b"cycle"
_MOST_FILLED = 10_000

#: Containers that were empty when they were asked for first, by id; with the value, so that its id stays its own.
_filled: dict[int, Any] = {}


class Variables:
    """The content of variables: containers, arrays, tables, and objects of the author's own classes.

    :param part: the digest of what stands in a variable: of functions and classes by their code.
    :param digest: the digest of a value by its content.
    :param is_own: True for a class of the author's.
    """

    def __init__(self, part: DigestOf, digest: DigestOf, is_own: Callable[[type], bool]) -> None:
        self._part = part
        self._digest = digest
        self._is_own = is_own
        self._done: dict[int, tuple[bytes, Any]] = {}  # with the value, as below
        self._open: set[int] = set()

    def digest(self, value: Any) -> bytes:
        """``b""`` for what holds something that is not told: a lock, a connection, a logger."""
        key = id(value)
        if key in self._done:
            return self._done[key][0]
        if key in self._open:
            return _CYCLE
        self._open.add(key)
        try:
            found = b"" if _is_filled(value) else self._content(value)
        except Exception:  # objects may do anything when they are asked for their content
            found = b""
        finally:
            self._open.discard(key)
        self._done[key] = found, value
        return found

    def _content(self, value: Any) -> bytes:
        kind = type(value)
        if kind is list or kind is tuple or (kind is dict and plain_values.has_sorted_keys(value)):
            return plain_values.digest(value, self._part, with_order=True)
        if kind is dict:
            return self._joined([self._part(part) for pair in value.items() for part in pair])
        if kind is set or kind is frozenset:
            return self._joined(sorted(map(self._part, value)))
        if by_values(value) is not NotImplemented:
            return self._digest(value)
        if not self._is_own(kind):
            return b""
        reduced = reduced_of(value)
        if isinstance(reduced, str):
            return reduced.encode()
        _, args, state, items, pairs = (*reduced, None, None, None)[:5]
        parts = (*args, state, tuple(items or ()), tuple(pairs or ()))
        return self._joined([self._part(part) for part in parts])

    def _joined(self, parts: list[bytes]) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()


def _is_filled(value: Any) -> bool:
    """True for a container that the program fills."""
    if id(value) not in _filled and type(value) in (list, dict, set) and not value:
        if len(_filled) >= _MOST_FILLED:
            _filled.clear()
        _filled[id(value)] = value
    return id(value) in _filled
