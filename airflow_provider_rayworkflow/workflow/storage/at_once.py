"""Several reads at the same time, where the storage gains by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore

T = TypeVar("T")
R = TypeVar("R")

_MOST_THREADS = 16


def map_at_once(store: ByteStore, read: Callable[[T], R], wanted: Sequence[T]) -> list[R]:
    """What ``read`` gives for each, in their order; in threads where the store says so.

    The first error is raised, and what has not begun by then is left out.
    """
    at_once = min(store.reads_at_once, len(wanted), _MOST_THREADS)
    if at_once <= 1:
        return [read(one) for one in wanted]
    with ThreadPoolExecutor(at_once, thread_name_prefix="storage-reads") as threads:
        try:
            return list(threads.map(read, wanted))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
