"""Operations on inactive workflows, which need the storage alone.

Managers do them, and so does a side that reaches no cluster. The workflow is claimed first, so that
no manager begins to run it meanwhile.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace

from airflow_provider_rayworkflow.workflow.exceptions import (
    IllegalTransitionError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.status import (
    RUN_AGAIN,
    WorkflowStatus,
    check_transition,
)
from airflow_provider_rayworkflow.workflow.storage.change_notes import new_visitor_id
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.leases import LEASE_TTL_S
from airflow_provider_rayworkflow.workflow.storage.mailbox import How, StopRequest
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader, StoredWorkflow
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

# How often a lease is read that has to stay the same for its whole time.
_LOOK_INTERVAL_S = 0.5


def change_status(
    store: WorkflowStore,
    found: StoredWorkflow,
    status: WorkflowStatus,
    *,
    manager_id: str,
    now: float,
    waits: bool = False,
) -> None:
    """Give an inactive workflow another status, under an epoch of our own.

    :param manager_id: who we are.
    :param waits: as for :func:`claim`.
    :raises IllegalTransitionError: when its status may not become that one.
    :raises WorkflowStillActiveError: when a manager has begun to run it.
    """
    record = found.record
    check_transition(record.workflow_id, found.status, status)
    earlier = store.read_claim(record.workflow_id, record.epoch)
    taken = claim(
        store,
        found,
        why=status.value,
        manager_id=manager_id,
        now=now,
        continues=earlier,
        waits=waits,
    )
    changed = replace(
        record,
        status=status,
        epoch=taken.epoch,
        number=0,
        manager_id=manager_id,
        changed_at=now,
        ended_at=None,
    )
    store.write_status(changed, replaces=record)


def forget_from(
    store: WorkflowStore, found: StoredWorkflow, task_id: str, *, manager_id: str, now: float
) -> None:
    """Drop the checkpoints of a task and of all that depend on it: they count no more.

    The workflow is RESUMABLE then, also one that was successful. Nothing is run.

    :raises ValueError: when the workflow has no such task.
    :raises WorkflowNotResumableError: when it was canceled.
    :raises WorkflowStillActiveError: when a manager runs it, or has begun to.
    """
    record = found.record
    workflow_id = record.workflow_id
    if found.status.is_active:
        raise WorkflowStillActiveError("RESTART", workflow_id)
    if not found.status.can_be_restarted:
        raise WorkflowNotResumableError(workflow_id, reason="It was canceled, which is final.")
    snapshot = read_snapshot(store, record)
    snapshot.check_restart(task_id)
    taken = claim(
        store,
        found,
        why="RESTART",
        manager_id=manager_id,
        now=now,
        continues=snapshot.claim,
        from_task=task_id,
    )
    changed = replace(
        record,
        status=RUN_AGAIN[found.status],
        epoch=taken.epoch,
        number=0,
        manager_id=manager_id,
        changed_at=now,
        failure=None,
        output=None,
        reuse=None,
    )
    store.write_status(changed, replaces=record)


def delete(
    store: WorkflowStore, found: StoredWorkflow, *, manager_id: str, now: float, waits: bool = False
) -> None:
    """Delete all that is stored of an inactive workflow.

    :param found: what the name of its status says is enough.
    :param waits: as for :func:`claim`.
    :raises WorkflowStillActiveError: when a manager runs it, or has begun to.
    """
    if found.status.is_active:
        raise WorkflowStillActiveError("DELETE", found.record.workflow_id)
    claim(store, found, why="DELETE", manager_id=manager_id, now=now, waits=waits)
    store.delete(found.record.workflow_id)


def cancel(store: WorkflowStore, workflow_id: str, *, now: float) -> WorkflowStatus:
    """Cancel an inactive workflow; ask the manager of an active one to. Does not wait.

    Ask again until it is: who runs it may die before it has obeyed.

    :returns: CANCELED, or how it stands until that is obeyed.
    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises IllegalTransitionError: when it has been successful.
    """
    found = StatusReader(store, lambda: now).read(workflow_id)
    if found is None:
        raise WorkflowNotFoundError(workflow_id)
    if found.status is WorkflowStatus.CANCELED:
        return found.status
    if not found.status.is_active:
        try:
            change_status(
                store, found, WorkflowStatus.CANCELED, manager_id=new_visitor_id(), now=now
            )
            return WorkflowStatus.CANCELED
        except WorkflowStillActiveError:
            pass  # a manager has begun to run it just now
    _request_stop(store, found, how="cancel", now=now)
    return found.status


def suspend(store: WorkflowStore, workflow_id: str, *, now: float) -> None:
    """Ask the manager of a workflow to stop it so that it can be resumed. Does not wait.

    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises IllegalTransitionError: when it is inactive.
    """
    found = StatusReader(store, lambda: now).read(workflow_id)
    if found is None:
        raise WorkflowNotFoundError(workflow_id)
    if not found.status.is_active:
        raise IllegalTransitionError(workflow_id, found.status.value, "RESUMABLE")
    _request_stop(store, found, how="suspend", now=now)


def _request_stop(store: WorkflowStore, found: StoredWorkflow, *, how: How, now: float) -> None:
    record = found.record
    base_epoch = store.read_claim(record.workflow_id, record.epoch).base_epoch
    store.mailbox.request_stop(
        StopRequest.by_anybody(record.workflow_id, base_epoch, how=how, now=now)
    )


def obey_pending_cancel(
    store: WorkflowStore, found: StoredWorkflow, *, manager_id: str, now: float
) -> bool:
    """Cancel a workflow if that was asked for while no manager could obey; True if so.

    A request counts until a manager takes the workflow over, or it is started over.
    """
    if not found.status.can_be_resumed:
        return False
    record = found.record
    requests = [r for r in store.mailbox.list_requests(record.workflow_id) if r.how == "cancel"]
    if not requests:
        return False
    base_epoch = store.read_claim(record.workflow_id, record.epoch).base_epoch
    # A later one is for a run that was started over since the status was read.
    requests = [request for request in requests if request.base_epoch <= base_epoch]
    valid = [request for request in requests if store.mailbox.is_valid(request, base_epoch)]
    if valid:
        change_status(store, found, WorkflowStatus.CANCELED, manager_id=manager_id, now=now)
    for request in requests:
        store.mailbox.delete_request(request)
    return bool(valid)


def claim(
    store: WorkflowStore,
    found: StoredWorkflow,
    *,
    why: str,
    manager_id: str,
    now: float,
    continues: Claim | None = None,
    from_task: str = "",
    waits: bool = False,
) -> Claim:
    """Claim an inactive workflow.

    :param why: what for, for the error.
    :param waits: where its owner only looks gone, watch its lease until that is certain: at most one
        lease time. Else that is an error.
    :raises WorkflowStillActiveError: when a manager runs it, or has begun to.
    """
    record = found.record
    workflow_id = record.workflow_id
    if found.owner_may_live:
        _check_gone(store, record.manager_id, why, workflow_id, waits=waits)
    latest = store.last_epoch(workflow_id)
    status_now = store.latest_status(workflow_id)
    if status_now is None or status_now.epoch > record.epoch:
        raise WorkflowStillActiveError(why, workflow_id)
    if latest > record.epoch:
        # A manager has claimed it and not written a status: it starts, or its start failed.
        starter = store.read_claim(workflow_id, latest).manager_id
        if starter != manager_id:
            _check_gone(store, starter, why, workflow_id, waits=waits)
    taken = next_claim(
        workflow_id,
        after=latest,
        manager_id=manager_id,
        now=now,
        user_metadata=record.user_metadata,
        has_graph=False,
        continues=continues,
        from_task=from_task,
    )
    if not store.claim(taken):
        raise WorkflowStillActiveError(why, workflow_id)
    return taken


def _check_gone(
    store: WorkflowStore, manager_id: str, why: str, workflow_id: str, *, waits: bool
) -> None:
    give_up = time.monotonic() + 2 * LEASE_TTL_S  # of a lease that can't be read nothing is known
    reader = StatusReader(store)
    # One thread watches a lease for all that wait for it.
    with store.leases.watch.turn(manager_id) if waits else nullcontext():
        while True:
            look = reader.look()
            if look.may_be_replaced(manager_id):
                return
            if look.is_alive(manager_id) or not waits or time.monotonic() > give_up:
                raise WorkflowStillActiveError(
                    why, workflow_id, may_be_gone=not look.is_alive(manager_id)
                )
            time.sleep(_LOOK_INTERVAL_S)
