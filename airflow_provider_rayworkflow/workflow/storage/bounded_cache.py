"""What this process remembers of documents that stay as they are: bounded in bytes, the oldest go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Values by key, of so many bytes at most.

    :param size_of: how many bytes a key and its value take, about.
    """

    def __init__(self, *, max_bytes: int, size_of: Callable[[K, V], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def __setitem__(self, key: K, value: V) -> None:
        size = self._size_of(key, value)
        with self._lock:
            self._drop(key)
            if size > self._max_bytes:
                return
            self._values[key] = value, size
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._values)))

    def _drop(self, key: K) -> None:
        _, size = self._values.pop(key, (None, 0))
        self._bytes -= size
