"""One lock for each workflow, kept while a call holds it or waits for it."""

from __future__ import annotations

import asyncio


class Locks:
    """Locks by name."""

    def __init__(self) -> None:
        self._locks: dict[str, _CountedLock] = {}

    def of(self, name: str) -> _CountedLock:
        """The lock of this name, for ``async with``."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = _CountedLock(self._locks, name)
        return lock


class _CountedLock:
    """A lock that leaves its registry when its last holder or waiter has left it."""

    def __init__(self, registry: dict[str, _CountedLock], name: str) -> None:
        self._registry = registry
        self._name = name
        self._lock = asyncio.Lock()
        self._users = 0

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            del self._registry[self._name]
