"""From a driver to the manager of its cluster, starting what is missing."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import ray
from ray.exceptions import RayTaskError

from airflow_provider_rayworkflow.workflow.concurrency import Limits
from airflow_provider_rayworkflow.workflow.runtime.actor import WorkflowManagementActor
from airflow_provider_rayworkflow.workflow.runtime.names import ACTOR_NAME, NAMESPACE
from airflow_provider_rayworkflow.workflow.storage import (
    DEFAULT_STORAGE,
    open_store,
    resolve_storage,
)

log = logging.getLogger(__name__)

_MAX_CALLS_AT_ONCE = 100_000  # one waits for each output that somebody wants


def manager(*, storage: str | None = None, limits: Limits | None = None) -> Any:
    """The manager's actor handle; Ray and the manager are started if need be.

    :raises ValueError: when the manager runs with another storage or other limits.
    :raises DataSaveError: when the storage can't be written.
    """
    if not ray.is_initialized():
        ray.init()
    handle: Any = _find()
    if handle is None:
        uri = resolve_storage(storage)
        open_store(uri)  # refused here, before there is an actor that can't start
        if uri == DEFAULT_STORAGE:
            warnings.warn(
                f"Workflows are stored in {uri}, which only this machine has. Give a storage "
                "with workflow.init(storage=…) or RAY_WORKFLOW_STORAGE.",
                stacklevel=3,
            )
        handle = (
            ray.remote(WorkflowManagementActor)
            .options(
                name=ACTOR_NAME,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=_MAX_CALLS_AT_ONCE,
            )
            .remote(uri, limits or Limits())
        )
        call(handle.configure.remote(uri, limits or Limits()))
    elif storage is not None or limits is not None:
        call(handle.configure.remote(storage, limits or Limits()))
    return handle


def join(address: str | None = None) -> None:
    """Connect to a cluster that is there, quietly; none is started. A connection is kept.

    :param address: as for ``ray.init``; by default ``RAY_ADDRESS``, or this machine's cluster.
    :raises ConnectionError: when there is none.
    """
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    if address == "local":
        raise ConnectionError("The address 'local' would start a Ray cluster that ends with us.")
    ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)


def call(ref: Any) -> Any:
    """Get what a call of the manager returns; its errors as they were raised there."""
    try:
        return ray.get(ref)
    except RayTaskError as exc:
        error = exc.cause if isinstance(exc.cause, Exception) else exc
    raise error  # not inside of the except clause: the error has a cause of its own


def _find() -> Any:
    try:
        return ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
    except ValueError:
        return None
