"""A cancel that takes a while, because tasks clean up after it, and that outlives its manager."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.held_workflow import HeldWorkflow
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.outcome import Stop
from airflow_provider_rayworkflow.workflow.storage.mailbox import StopRequest

log = get_logger(__name__)


@asynccontextmanager
async def requesting_cancel(
    known: Registry, live: HeldWorkflow, reason: Stop
) -> AsyncIterator[None]:
    """While a cancel cleans up, have a request for it in the storage.

    A manager that finds the workflow without an owner then obeys that.
    """
    is_slow = reason is Stop.CANCEL and live.executor is not None and live.executor.cleans_up
    if not is_slow or live.pending_cancel is not None:
        yield
        return
    workflow_id = live.claim.workflow_id
    request = live.pending_cancel = StopRequest.by_anybody(
        workflow_id, live.claim.base_epoch, how="cancel", now=known.clock()
    )
    mailbox = known.store.mailbox
    try:
        await known.in_thread(mailbox.request_stop, request)
    except StorageError as exc:  # the cancel itself may be luckier
        log.warning("Workflow %s: its cancel is not noted: %s", workflow_id, exc)
    yield
    if live.unwritten is None and live.lost is None:
        try:
            await known.in_thread(mailbox.delete_request, request)
        except StorageError as exc:  # it is void: the workflow is canceled
            log.warning("Workflow %s: a request to cancel it stays: %s", workflow_id, exc)
