"""The storage of a connection, opened once in this process for some minutes."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator
from typing import Any, cast

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_rayworkflow.exceptions import RayWorkflowConnectionError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.plugin.web.lanes import stop_if_abandoned
from airflow_provider_rayworkflow.workflow.storage import ByteStore, WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import Entry

#: How long a page tries again what a storage does not answer; less than a page waits in all.
RETRY_FOR_S = 3.0

# What a store has seen of leases makes its answers exact; credentials may change.
_KEPT_S = 600.0
_Key = tuple[str, str, str | None, str | None]
_stores: dict[_Key, tuple[float, WorkflowStore]] = {}
_lock = threading.Lock()


def lane_of(conn_id: str) -> Hashable:
    """What tells the storage of a connection from all others, None if the connection is of no use."""
    try:
        _check_type(conn_id)
        return _key(RayWorkflowHook(conn_id))[:3]
    except Exception:  # it says why where it is used
        return None


def open_hook(conn_id: str) -> RayWorkflowHook:
    """The connection, with its storage opened.

    :raises RayWorkflowConnectionError: when there is no such connection, or it can't be used.
    """
    _check_type(conn_id)
    hook = RayWorkflowHook(conn_id, retry_for_s=RETRY_FOR_S)
    key, now = _key(hook), time.monotonic()
    with _lock:
        for known, (opened_at, _) in list(_stores.items()):
            if now - opened_at > _KEPT_S:
                del _stores[known]
        kept = _stores.get(key)
    if kept is not None:
        hook.store = kept[1]
        return hook
    # May take long: without the lock, which all connections share.
    wanted = cast(ByteStore, _WhileWanted(hook.store.bytes))
    opened = WorkflowStore(wanted, signing=hook.store.signing)
    with _lock:
        hook.store = _stores.setdefault(key, (now, opened))[1]
    return hook


class _WhileWanted:
    """A :class:`ByteStore` that does nothing more for a request that was abandoned."""

    def __init__(self, store: ByteStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        stop_if_abandoned()
        return getattr(self._store, name)

    def list(self, folder: str) -> Iterator[Entry]:
        stop_if_abandoned()
        for entry in self._store.list(folder):
            stop_if_abandoned()  # a listing may be long
            yield entry


def _key(hook: RayWorkflowHook) -> _Key:
    settings = hook.settings
    return (
        hook.ray_workflow_conn_id,
        hook.storage_uri,
        settings.storage_conn_id,
        settings.signing_secret,
    )


def _check_type(conn_id: str) -> None:
    # Every user who is logged in may ask for any id: the answer must tell nothing of other connections.
    try:
        found = RayWorkflowHook.get_connection(conn_id).conn_type
    except AirflowNotFoundException:
        if conn_id == RayWorkflowHook.default_conn_name:
            return
        found = ""
    if found != RayWorkflowHook.conn_type:
        raise RayWorkflowConnectionError(
            f"There is no connection {conn_id!r} of the type {RayWorkflowHook.conn_type!r}."
        )
