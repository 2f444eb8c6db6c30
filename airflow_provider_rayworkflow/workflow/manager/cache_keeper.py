"""Keeps the cache within its size: by itself, slowly, the oldest results first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from airflow_provider_rayworkflow.workflow.exceptions import said_by
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.offline.cache import evict_few_by_few

log = get_logger(__name__)

#: How large the cache of a storage may become, in bytes, where the environment of its managers says nothing
#: else (:data:`MAX_CACHE_VARIABLE`).
MAX_CACHE_BYTES = 10 * 1024**3
MAX_CACHE_VARIABLE = "RAY_WORKFLOW_CACHE_BYTES"
# When a manager has put such a share of the limit into the cache, a round is due.
_SHARE = 20


def max_cache_bytes(environment: Mapping[str, str]) -> int:
    """What an environment says; 0 for no cache.

    :raises ValueError: when that is no number of bytes.
    """
    text = environment.get(MAX_CACHE_VARIABLE) or str(MAX_CACHE_BYTES)
    if not text.isdecimal():
        raise ValueError(
            f"{MAX_CACHE_VARIABLE} is {text!r}. Give a number of bytes; 0 for no cache."
        )
    return int(text)


class CacheKeeper:
    """What one manager evicts in the background; what goes wrong is tried again in the next round.

    :param max_bytes: how large the storage's cache may become; 0 for a manager that uses none.
    """

    def __init__(self, known: Registry, *, max_bytes: int) -> None:
        self._known = known
        self._max_bytes = max_bytes
        self._written = 0
        self._is_due = asyncio.Event()
        known.cache.is_used = max_bytes > 0
        known.cache.on_written = self._has_written

    def _has_written(self, size: int) -> None:
        self._written += size
        if self._written > self._max_bytes // _SHARE:
            self._is_due.set()

    async def watch(self) -> None:
        """Evict now and then, and when this manager has written much."""
        while self._max_bytes:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._known.intervals.cache_s):
                    await self._is_due.wait()
            self._is_due.clear()
            self._written = 0
            try:
                await self._evict()
            except Exception as exc:
                log.warning("The cache is not kept within its size now: %s", said_by(exc))

    async def _evict(self) -> None:
        few_by_few = evict_few_by_few(
            self._known.store, max_bytes=self._max_bytes, now=self._known.clock()
        )
        count, size = 0, 0
        while not self._known.tenure.is_over:
            few = await self._known.in_thread(next, few_by_few, None)
            if few is None:
                break
            count, size = count + few[0], size + few[1]
        if count:
            log.info("%d objects of the cache with %d bytes are evicted", count, size)
