"""A manager of another version of this package than the one that a driver brings along."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError, said_by
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.runtime.manager_handle import find_manager
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.leases import Lease
from airflow_provider_rayworkflow.workflow.storage.overview import Overview

log = get_logger(__name__)

_CLOSE_TIMEOUT_S = 30.0


class ManagerVersionError(WorkflowError):
    """The cluster's manager is of another version, and busy for longer than we wait."""


def replace_other_version(
    store: WorkflowStore,
    *,
    wait_s: float,
    look_interval_s: float = 5.0,
    find: Callable[[str], Any] = find_manager,
) -> None:
    """Return when no manager of another version runs on this cluster.

    An idle one is ended; a busy one gets the time to finish what it has.

    :param store: where the manager stores; what it says there any version can read.
    :param wait_s: how long to wait for a busy one.
    :param look_interval_s: how long to wait between two looks at it.
    :param find: the handle of the manager of a location, None where none runs.
    :raises ManagerVersionError: when it is still busy then.
    """
    deadline = time.monotonic() + wait_s
    while True:
        handle = find(store.bytes.uri)
        lease = handle and _lease_of(store, handle._actor_id.hex())
        if lease is None or lease.package_version == __version__:
            return
        held = Overview(store).held_by([lease.manager_id])
        if not held:
            _end(handle, lease)
            while find(store.bytes.uri) is not None:
                time.sleep(0.2)
            return
        if time.monotonic() > deadline:
            raise ManagerVersionError(
                f"The workflow manager of this cluster is of version {lease.package_version}, "
                f"this is version {__version__}, and after {wait_s:g} s it still runs {held}. "
                "Wait for their end, suspend them, or give both sides the same version; then "
                "try again."
            )
        log.info(
            "The workflow manager is of version %s, not %s, and runs %d workflows: waiting",
            lease.package_version,
            __version__,
            len(held),
        )
        time.sleep(look_interval_s)


def _lease_of(store: WorkflowStore, actor_id: str) -> Lease | None:
    leases = [lease for lease in store.leases.list_all() if lease.actor_id == actor_id]
    return max(leases, key=lambda lease: lease.renewed_at, default=None)


def _end(handle: Any, lease: Lease) -> None:
    log.info("Replacing the idle workflow manager of version %s", lease.package_version)
    try:
        ray.get(handle.close.remote(), timeout=_CLOSE_TIMEOUT_S)
    except (RayError, GetTimeoutError) as exc:
        log.warning("The old workflow manager did not close: %s", said_by(exc))
    ray.kill(handle, no_restart=True)
