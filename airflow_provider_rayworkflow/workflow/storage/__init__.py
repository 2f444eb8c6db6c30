"""Everything that a workflow keeps, on whatever holds bytes by key."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.backends.retrying import (
    RETRY_FOR_S,
    RetryingStore,
)
from airflow_provider_rayworkflow.workflow.storage.backends.roots import DEFAULT_ROOT
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Data, Entry
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

__all__ = [
    "DEFAULT_STORAGE",
    "PICKLED",
    "STORAGE_VARIABLE",
    "ByteStore",
    "Data",
    "Entry",
    "WorkflowStore",
    "local_folder",
    "open_filesystem",
    "open_store",
    "resolve_storage",
    "shown",
]

DEFAULT_STORAGE = DEFAULT_ROOT
STORAGE_VARIABLE = "RAY_WORKFLOW_STORAGE"
#: In front of a location that is a pickled file system, not a URI. Only the runtime opens such a
#: location; Airflow's side refuses it, since opening unpickles.
PICKLED = "pyarrow-filesystem:"


def resolve_storage(storage: str | None) -> str:
    """The storage to use: the argument, the environment variable, or the default."""
    return storage or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE


def shown(uri: str) -> str:
    """The URI for people: without the credentials that it may carry."""
    if uri.startswith(PICKLED):
        return "a file system that was given as an object"
    # A secret may have slashes; an account or container alone is none.
    without_user = re.sub("://[^:@]*:.*@", "://***@", uri)
    return re.sub(
        r"([?&](?:access_key|secret_key|[^=&]*token[^=&]*)=)[^&]*", r"\1***", without_user
    )


def open_store(uri: str, *, retry_for_s: float = RETRY_FOR_S) -> ByteStore:
    """Open the storage that a URI or an absolute path names. Nothing is written.

    :param uri: an absolute path, ``file://…``, or whatever ``pyarrow.fs.FileSystem.from_uri``
        takes: ``s3://bucket/prefix?region=…``, ``gs://…``, ``abfs://…``, ``hdfs://…``.
    :param retry_for_s: how long a call is tried again that may work a moment later.
    :raises ValueError: for a relative path, or a URI that pyarrow can't open or that has parts
        which nothing would heed.
    """
    if (folder := local_folder(uri)) is not None:
        return RetryingStore(LocalStore(folder), deadline_s=retry_for_s)
    if "://" not in uri:
        raise ValueError(
            f"The workflow storage {shown(uri)!r} can't be used. Give an absolute path or a URI, "
            "for example s3://bucket/prefix."
        )
    filesystem, root = _from_uri(uri)
    return open_filesystem(filesystem, root, location=uri, retry_for_s=retry_for_s)


def local_folder(uri: str) -> str | None:
    """The path of the folder that a storage is, None for what is on no file system.

    :raises ValueError: when it can't be taken as it is written.
    """
    if problem := _problem(uri):
        raise ValueError(f"The workflow storage {shown(uri)!r} can't be used: {problem}.")
    if os.path.isabs(uri):
        return uri
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else None


def _problem(uri: str) -> str:
    """Why a URI or path can't be taken as it is written, ``""`` if it can."""
    try:
        os.fsencode(uri)
    except UnicodeEncodeError:
        return "it has characters that no name can have"
    if "\0" in uri:
        return "it has characters that no name can have"
    parts = urlsplit(uri)
    if parts.scheme == "file" and (parts.query or parts.fragment):
        return "files have no options; write '?' as %3F and '#' as %23"
    if parts.scheme == "file" and (
        parts.netloc not in ("", "localhost") or not parts.path.startswith("/")
    ):
        return "it names no folder of this machine; give an absolute path: file:///data/workflows"
    if "\0" in unquote(uri):
        return "it has characters that no name can have"
    return ""


def open_filesystem(
    filesystem: Any, root: str, *, location: str, retry_for_s: float = RETRY_FOR_S
) -> ByteStore:
    """Open a folder of a ``pyarrow.fs.FileSystem``. Nothing is written.

    :param location: what opens the same storage elsewhere.
    :param retry_for_s: how long a call is tried again that may work a moment later.
    """
    from airflow_provider_rayworkflow.workflow.storage.backends.clients import store_on

    store = store_on(filesystem, root, location=location)
    return RetryingStore(store, deadline_s=retry_for_s)


def _from_uri(uri: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    try:
        filesystem, root = FileSystem.from_uri(uri)
    except (OSError, ValueError) as exc:  # pyarrow's own errors are both
        why = str(exc).replace(uri, shown(uri))  # pyarrow says the URI as it is
        raise ValueError(f"The workflow storage {shown(uri)!r} can't be used: {why}.") from None
    return filesystem, root
