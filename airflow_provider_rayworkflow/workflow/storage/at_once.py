"""Several calls at the same time, where the storage gains by it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore

T = TypeVar("T")
R = TypeVar("R")

_MOST_THREADS = 16


def map_at_once(store: ByteStore, call: Callable[[T], R], wanted: Sequence[T]) -> list[R]:
    """What ``call`` gives for each, in their order; in threads where the store says so.

    They are parts of what the caller does: an action that is noted (:class:`.ChangeNotes`) is theirs, too.
    The first error is raised when no call is under way any more, and what has not begun by then is left out.
    """
    at_once = min(store.reads_at_once, len(wanted), _MOST_THREADS)
    if at_once <= 1:
        return [call(one) for one in wanted]
    context = contextvars.copy_context()
    with ThreadPoolExecutor(at_once, thread_name_prefix="storage-calls") as threads:
        try:
            return list(threads.map(lambda one: context.copy().run(call, one), wanted))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
