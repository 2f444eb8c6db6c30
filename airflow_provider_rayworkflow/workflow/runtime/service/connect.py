"""From a driver to the manager of its cluster, starting what is missing."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RaySystemError, RayTaskError

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.execution.context import get_context, in_task
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.model.records import Asker
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at, to_location
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import find_manager
from airflow_provider_rayworkflow.workflow.runtime.names import (
    KEEPER_VARIABLE,
    NAMESPACE,
    current_location,
    manager_name,
)
from airflow_provider_rayworkflow.workflow.runtime.service.actor import WorkflowManagementActor
from airflow_provider_rayworkflow.workflow.runtime.service.task_errors import as_task_error
from airflow_provider_rayworkflow.workflow.storage import DEFAULT_STORAGE, WorkflowStore

#: "0": tasks don't share Ray tasks, unless ``init`` says so.
SHARING_VARIABLE = "RAY_WORKFLOW_SHARING"

_MAX_CALLS_AT_ONCE = 100_000  # one waits for each output that was asked for

# A call is sent again when the manager restarts meanwhile; each takes a try or two. Not without
# end, because a call may be what kills it.
_MAX_CALL_RETRIES = 10


def manager(
    *,
    storage: Any = None,
    limits: Limits | None = None,
    sharing: bool | None = None,
    retention: dict[str, float] | None = None,
) -> Any:
    """The actor handle of a storage's manager; Ray and the manager are started if need be.

    :param storage: see :func:`to_location`. None: that of the task which runs here, else the one
        that this driver has named before, else that of the cluster's only manager.
    :param sharing: short tasks may share a Ray task; None: as it is, or as the environment says.
    :param retention: days by status, in place of those that were set; None: as it is.
    :raises ValueError: when the manager runs with other limits or sharing.
    :raises DataSaveError: when the storage can't be written.
    """
    if _stand_ins:
        handle = _stand_ins[-1]
        if any(given is not None for given in (storage, limits, sharing, retention)):
            _configure(handle, None, limits or Limits(), sharing, retention)
        return handle
    if not ray.is_initialized():
        ray.init()
    location = _chosen() if storage is None else to_location(storage)
    handle = find_manager(location)
    if handle is None:
        location = location or to_location(None)
        handle = _start(location, limits or Limits(), sharing, retention)
    elif any(given is not None for given in (storage, limits, sharing, retention)):
        _configure(handle, location, limits or Limits(), sharing, retention)
    if storage is not None:
        _choose(location)
    return handle


def start_manager(location: str) -> Any:
    """The actor handle of a storage's manager, which is started if need be; Ray runs already.

    :param location: as :func:`store_at` takes it.
    :raises StorageError: when the storage can't be used.
    """
    handle = find_manager(location)
    return _start(location, Limits(), None) if handle is None else handle


def in_worker() -> bool:
    """True in a process that runs Ray tasks or an actor; False in a driver, and without Ray."""
    return ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def asker() -> Asker | None:
    """This process, if it is a worker's: it may hold what it waits for. None for a driver."""
    if in_task():
        current = get_context()
        return Asker(current.workflow_id, current.epoch)
    return Asker() if in_worker() else None


def _configure(
    handle: Any,
    location: str | None,
    limits: Limits,
    sharing: bool | None = None,
    retention: dict[str, float] | None = None,
) -> None:
    weakness = call(handle.configure.remote(location, limits, sharing, retention))
    if weakness:
        warnings.warn(f"The workflow storage is not safe against races: {weakness}", stacklevel=5)


def _start(
    location: str,
    limits: Limits,
    sharing: bool | None,
    retention: dict[str, float] | None = None,
) -> Any:
    if sharing is None:
        sharing = os.environ.get(SHARING_VARIABLE) != "0"
    is_kept = KEEPER_VARIABLE in os.environ
    if location == DEFAULT_STORAGE:
        warnings.warn(
            f"Workflows are stored in {location}, which only this machine has. Give a storage "
            "with workflow.init(storage=…) or RAY_WORKFLOW_STORAGE.",
            stacklevel=4,
        )
    handle: Any = (
        ray.remote(WorkflowManagementActor)
        .options(
            name=manager_name(location),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=0 if is_kept else -1,
            max_task_retries=_MAX_CALL_RETRIES,
            max_concurrency=_MAX_CALLS_AT_ONCE,
        )
        .remote(location, limits, sharing, is_kept)
    )
    try:
        _configure(handle, location, limits, retention=retention)
    except StorageError:
        ray.kill(handle)  # it can't start; the next one may be given a storage that works
        raise
    return handle


def join(address: str | None = None) -> None:
    """Connect to a cluster that is there, quietly; none is started. A connection is kept.

    :param address: as for ``ray.init``; by default ``RAY_ADDRESS``, or this machine's cluster.
    :raises ConnectionError: when no cluster is found.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    if address == "local":
        raise ConnectionError("The address 'local' would start a Ray cluster that ends with us.")
    if ray.is_initialized():
        return
    ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)


def known_store(storage: Any = None) -> WorkflowStore:
    """The storage of this process's workflows; starts neither Ray nor a manager.

    :param storage: another one.
    """
    if storage is not None:
        return store_at(to_location(storage))
    if _stand_ins:
        return store_at(call(_stand_ins[-1].location.remote()))
    if not ray.is_initialized():
        return store_at(to_location(None))
    if location := _chosen():
        return store_at(location)
    handle = find_manager(None)
    return store_at(call(handle.location.remote()) if handle is not None else to_location(None))


def call(ref: Any) -> Any:
    """Get what a call of the manager returns; its errors as :func:`as_task_error`."""
    try:
        return ray.get(ref)
    except RayTaskError as exc:
        error = as_task_error(exc.cause) if isinstance(exc.cause, Exception) else exc
    except RaySystemError as exc:  # what comes of loading the value in this process
        error = exc.client_exc if isinstance(exc.client_exc, StorageError) else exc
    raise error  # not inside of the except clause: the error has a cause of its own


def ask(method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the manager: :meth:`.WorkflowManagementActor.ask`."""
    return call(manager().ask.remote(method, *args, **kwargs))


@contextmanager
def stand_in(handle: Any) -> Iterator[None]:
    """While this lasts, all calls of this process go to this handle, whatever storage they want."""
    _stand_ins.append(handle)
    try:
        yield
    finally:
        _stand_ins.remove(handle)


_stand_ins: list[Any] = []


# The storage that this driver has named, with the connection to Ray for which it holds.
_choice: tuple[str, str] | None = None


def _choose(location: str | None) -> None:
    global _choice
    _choice = (_connection(), location) if location else None


def _chosen() -> str | None:
    if location := current_location():
        return location
    return _choice[1] if _choice and _choice[0] == _connection() else None


def _connection() -> str:
    context = ray.get_runtime_context()
    return f"{context.gcs_address} {context.get_job_id()}"
