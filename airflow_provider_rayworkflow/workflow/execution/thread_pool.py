"""Threads for what blocks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class ThreadPool(ThreadPoolExecutor):
    """A pool that goes on with the threads that it has where the system gives no more.

    Python's own says then that a call failed, and makes it all the same a moment later.
    """

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except (RuntimeError, MemoryError):
            if not self._threads:
                raise
