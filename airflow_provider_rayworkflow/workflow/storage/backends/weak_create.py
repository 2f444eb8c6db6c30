"""The weaker rule for stores that can't create an object only if it is absent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_rayworkflow.workflow.storage.byte_store import Data, buffers

if TYPE_CHECKING:
    from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore


def create_by_looking(
    store: ByteStore, exists: Callable[[str], bool], key: str, data: Data, *, settle_s: float
) -> bool:
    """Write the object if it is absent, wait, and see whose it is; the last writer wins.

    Two callers may both get True if one of them needs longer than ``settle_s`` from its look to
    the end of its write.

    :param settle_s: how long others, who looked when we did, have to write over it.
    """
    if exists(key):
        return False
    store.put(key, data)
    time.sleep(settle_s)
    return store.get(key) == b"".join(buffers(data))
