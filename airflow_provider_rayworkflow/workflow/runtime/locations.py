"""Storage that the caller gives as an object instead of a URI."""

from __future__ import annotations

import base64
import functools
import pickle
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle

from airflow_provider_rayworkflow.workflow.runtime.metrics import count_write
from airflow_provider_rayworkflow.workflow.storage import (
    PICKLED,
    ByteStore,
    WorkflowStore,
    open_filesystem,
    open_store,
    resolve_storage,
)
from airflow_provider_rayworkflow.workflow.storage.backends.measured import MeasuredStore


def to_location(storage: Any) -> str:
    """What names the storage to every process of the cluster.

    :param storage: a URI, an absolute path, a ``pyarrow.fs.FileSystem`` or an fsspec one whose
        root is the storage's root (use ``SubTreeFileSystem`` or ``DirFileSystem`` for a folder of
        it), or None for the default.
    :raises TypeError: for anything else.
    :raises ValueError: for a URI that can't be opened.
    """
    if storage is None or isinstance(storage, str):
        return open_location(resolve_storage(storage)).uri
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    if _is_fsspec(storage):
        storage = PyFileSystem(FSSpecHandler(storage))
    if not isinstance(storage, FileSystem):
        raise TypeError(
            "storage must be a URI, an absolute path, a pyarrow.fs.FileSystem or an fsspec file "
            f"system, not {storage!r:.200}."
        )
    # Clients inside of an fsspec one may hold functions that only cloudpickle takes. What comes of
    # it goes to each Ray task: it is made small.
    pickled = zlib.compress(cloudpickle.dumps(storage))
    return PICKLED + base64.urlsafe_b64encode(pickled).decode()


def _is_fsspec(storage: Any) -> bool:
    # A process with such an object has fsspec imported; it is not ours to depend on.
    fsspec = sys.modules.get("fsspec")
    return fsspec is not None and isinstance(storage, fsspec.AbstractFileSystem)


def open_location(location: str) -> ByteStore:
    """Open a storage by its location."""
    if not location.startswith(PICKLED):
        return open_store(location)
    pickled = base64.urlsafe_b64decode(location.removeprefix(PICKLED))
    filesystem = pickle.loads(zlib.decompress(pickled))
    return open_filesystem(filesystem, "", location=location)


def store_at(location: str) -> WorkflowStore:
    """The workflows at a location; opened once in each process, which then counts what it writes."""
    return _given.get(location) or _opened(location)


@functools.lru_cache(maxsize=8)
def _opened(location: str) -> WorkflowStore:
    return WorkflowStore(MeasuredStore(open_location(location), count_write))


_given: dict[str, WorkflowStore] = {}


@contextmanager
def given(location: str, store: ByteStore) -> Iterator[None]:
    """While this lasts, the location names a storage that only this process has."""
    _given[location] = WorkflowStore(store)
    try:
        yield
    finally:
        del _given[location]
