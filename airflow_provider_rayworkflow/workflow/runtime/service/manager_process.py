"""What the manager's process is made of: a :class:`Manager` on Ray, and the threads that keep its lease."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import uuid

import ray

from airflow_provider_rayworkflow import __version__
from airflow_provider_rayworkflow.workflow.exceptions import said_by
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.cache_keeper import max_cache_bytes
from airflow_provider_rayworkflow.workflow.manager.log_writer import max_log_bytes
from airflow_provider_rayworkflow.workflow.manager.manager import Manager
from airflow_provider_rayworkflow.workflow.manager.registry import Intervals
from airflow_provider_rayworkflow.workflow.model.event_posts import read_settings
from airflow_provider_rayworkflow.workflow.model.limits import Limits
from airflow_provider_rayworkflow.workflow.runtime.locations import store_at
from airflow_provider_rayworkflow.workflow.runtime.metrics import RayMetrics
from airflow_provider_rayworkflow.workflow.runtime.service.builder import RayBuilder
from airflow_provider_rayworkflow.workflow.runtime.service.infeasible import infeasible_after_s
from airflow_provider_rayworkflow.workflow.runtime.service.runner import RayRunner
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S

log = get_logger(__name__)


def make_manager(
    uri: str, limits: Limits, *, sharing: bool, is_kept: bool
) -> tuple[Manager, RayRunner]:
    """The manager of a storage, which is not started, and what runs its tasks.

    :param uri: the location of the storage, for :func:`store_at`.
    :param sharing: short tasks may share a Ray task.
    :param is_kept: the one after it is another actor of the same local Ray.
    """
    gc.freeze()  # what is imported stays: to look through it for garbage again and again takes 50 ms each
    runner = RayRunner(
        uri,
        sharing=sharing,
        infeasible_after_s=infeasible_after_s(os.environ),
        on_lines=lambda lines: manager.logs.add(lines),
    )
    context = ray.get_runtime_context()
    manager = Manager(
        store=store_at(uri),
        runner=runner,
        manager_id=uuid.uuid4().hex,
        actor_id=context.get_session_name() if is_kept else context.get_actor_id() or "",
        limits=limits,
        package_version=__version__,
        metrics=RayMetrics(),
        event_settings=read_settings(os.environ),
        max_log_bytes=max_log_bytes(os.environ),
        max_cache_bytes=max_cache_bytes(os.environ),
        intervals=_intervals(uri),
        cluster=context.get_session_name(),
        builder=RayBuilder(uri),
    )
    return manager, runner


def _intervals(location: str) -> Intervals:
    """A look for submissions is one listing: a request of an object store, next to nothing on files."""
    return Intervals(submissions_s=0.1) if location.startswith("/") else Intervals()


def keep_lease(manager: Manager, loop: asyncio.AbstractEventLoop) -> None:
    """Renew the lease from a thread; a lease that can't be renewed stops the manager in time.

    Another thread looks at the time: a renewal may hang as long as the storage does.
    """

    def renew() -> None:
        while True:
            time.sleep(LEASE_TTL_S / 3)
            try:
                manager.renew_lease()
            except Exception as exc:  # it is tried again as long as there is time
                log.warning("The manager's lease could not be renewed: %s", said_by(exc))

    def watch() -> None:
        while manager.tenure.left_s > LEASE_TTL_S / 3 and not manager.tenure.is_over:
            time.sleep(0.5)
        log.error("The manager's lease could not be renewed for too long: it stops all its work")
        loop.call_soon_threadsafe(manager.fence)
        os._exit(1)

    threading.Thread(target=renew, name="lease", daemon=True).start()
    threading.Thread(target=watch, name="lease-watch", daemon=True).start()
