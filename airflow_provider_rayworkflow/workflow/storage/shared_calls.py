"""Calls that do the same for all who want it at the same time, made once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class SharedCalls(Generic[K]):
    """Calls a function for a key; whoever comes before it begins shares that call.

    One that has begun already may have missed what they did just before, so they wait for the
    next one.
    """

    def __init__(self, function: Callable[[K], None]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._next: dict[K, _Call] = {}
        self._under_way: dict[K, _Call] = {}

    def __call__(self, key: K) -> None:
        with self._lock:
            call = self._next.get(key)
            is_ours = call is None
            if call is None:
                call = self._next[key] = _Call()
            call.callers += 1
            before = self._under_way.get(key)
        if is_ours:
            self._make(key, call, before)
        call.ended.wait()
        if call.error is not None:
            raise call.error

    def _make(self, key: K, call: _Call, before: _Call | None) -> None:
        if before is not None:
            before.ended.wait()
        with self._lock:
            del self._next[key]
            self._under_way[key] = call
        try:
            self._function(key)
        except BaseException as exc:
            call.error = exc
        finally:
            with self._lock:
                del self._under_way[key]
            call.ended.set()


class _Call:
    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.callers = 0
