"""The storage of a connection, opened once in this process for some minutes."""

from __future__ import annotations

import threading
import time

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_rayworkflow.exceptions import RayWorkflowConnectionError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore

#: How long a page bears with a storage that does not answer.
RETRY_FOR_S = 5.0

# What a store has seen of leases makes its answers exact; credentials may change.
_KEPT_S = 600.0
_stores: dict[tuple[str, str, str | None], tuple[float, WorkflowStore]] = {}
_lock = threading.Lock()


def open_hook(conn_id: str) -> RayWorkflowHook:
    """The connection, with its storage opened.

    :raises RayWorkflowConnectionError: when there is no such connection, or it can't be used.
    """
    _check_type(conn_id)
    hook = RayWorkflowHook(conn_id, retry_for_s=RETRY_FOR_S)
    key = (conn_id, hook.storage_uri, hook.settings.storage_conn_id)
    now = time.monotonic()
    with _lock:
        for known, (opened_at, _) in list(_stores.items()):
            if now - opened_at > _KEPT_S:
                del _stores[known]
        if key in _stores:
            hook.store = _stores[key][1]
        else:
            _stores[key] = now, hook.store
    return hook


def _check_type(conn_id: str) -> None:
    # Anybody who is logged in may ask for any id: of other connections nothing is to be said.
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
