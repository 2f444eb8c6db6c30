"""What may be done to a workflow that nobody runs, by whoever has the storage.

Managers do it, and so does a side that reaches no cluster. The workflow is claimed first, so that
nobody begins to run it meanwhile.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from airflow_provider_rayworkflow.workflow.exceptions import (
    IllegalTransitionError,
    WorkflowNotFoundError,
    WorkflowNotResumableError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.snapshot import read_snapshot
from airflow_provider_rayworkflow.workflow.status import WorkflowStatus, check_transition
from airflow_provider_rayworkflow.workflow.storage.handover import Handover, How, StopRequest
from airflow_provider_rayworkflow.workflow.storage.workflows import (
    Claim,
    Found,
    HonestStatuses,
    WorkflowStore,
)


def change_status(
    store: WorkflowStore, found: Found, status: WorkflowStatus, *, manager_id: str, now: float
) -> None:
    """Give a workflow that nobody runs another status, under an epoch of our own.

    :param manager_id: who we are.
    :raises IllegalTransitionError: when its status may not become that one.
    :raises WorkflowStillActiveError: when somebody has begun to run it.
    """
    record = found.record
    check_transition(record.workflow_id, found.status, status)
    earlier = store.read_claim(record.workflow_id, record.epoch)
    taken = claim(store, found, why=status.value, manager_id=manager_id, now=now, continues=earlier)
    changed = replace(
        record, status=status, epoch=taken.epoch, number=0, manager_id=manager_id, ended_at=None
    )
    store.write_status(changed, replaces=record)


def forget_from(
    store: WorkflowStore, found: Found, task_id: str, *, manager_id: str, now: float
) -> None:
    """Let the checkpoints of a task, and of all that depend on it, not count any more.

    The workflow is RESUMABLE then, also one that was successful. Nothing is run.

    :raises ValueError: when the workflow has no such task.
    :raises WorkflowNotResumableError: when it was canceled.
    :raises WorkflowStillActiveError: when somebody runs it, or has begun to.
    """
    record = found.record
    workflow_id = record.workflow_id
    if found.status.is_active:
        raise WorkflowStillActiveError("RESTART", workflow_id)
    if found.status is WorkflowStatus.CANCELED:
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
        status=WorkflowStatus.RESUMABLE,
        epoch=taken.epoch,
        number=0,
        manager_id=manager_id,
        failure=None,
        output=None,
        reuse=None,
    )
    store.write_status(changed, replaces=record)


def delete(store: WorkflowStore, found: Found, *, manager_id: str, now: float) -> None:
    """Delete all that is stored of a workflow that nobody runs.

    :param found: what the name of its status says is enough.
    :raises WorkflowStillActiveError: when somebody runs it, or has begun to.
    """
    if found.status.is_active:
        raise WorkflowStillActiveError("DELETE", found.record.workflow_id)
    claim(store, found, why="DELETE", manager_id=manager_id, now=now)
    store.delete(found.record.workflow_id)


def cancel(store: WorkflowStore, workflow_id: str, *, now: float) -> WorkflowStatus:
    """Cancel a workflow if nobody runs it, else ask whoever does. Does not wait.

    Ask again until it is: who runs it may die before it has obeyed.

    :returns: CANCELED, or how it stands until that is obeyed.
    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises IllegalTransitionError: when it has been successful.
    """
    found = HonestStatuses(store, now=now).read(workflow_id)
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
            pass  # somebody has begun to run it just now
    _request_stop(store, found, how="cancel", now=now)
    return found.status


def suspend(store: WorkflowStore, workflow_id: str, *, now: float) -> None:
    """Ask whoever runs a workflow to stop it so that it can be resumed. Does not wait.

    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises IllegalTransitionError: when nobody runs it.
    """
    found = HonestStatuses(store, now=now).read(workflow_id)
    if found is None:
        raise WorkflowNotFoundError(workflow_id)
    if not found.status.is_active:
        raise IllegalTransitionError(workflow_id, found.status.value, "RESUMABLE")
    _request_stop(store, found, how="suspend", now=now)


def _request_stop(store: WorkflowStore, found: Found, *, how: How, now: float) -> None:
    record = found.record
    base_epoch = store.read_claim(record.workflow_id, record.epoch).base_epoch
    Handover(store.bytes, signing=store.signing).request_stop(
        StopRequest.by_anybody(record.workflow_id, base_epoch, how=how, now=now)
    )


def obey_pending_cancel(store: WorkflowStore, found: Found, *, manager_id: str, now: float) -> bool:
    """Cancel a workflow if that was asked for while nobody could obey; True if so.

    A request counts as long as nobody has taken the workflow over, or started it over, since.
    """
    if not found.status.can_be_resumed:
        return False
    handover = Handover(store.bytes, signing=store.signing)
    record = found.record
    requests = [r for r in handover.list_requests(record.workflow_id) if r.how == "cancel"]
    if not requests:
        return False
    base_epoch = store.read_claim(record.workflow_id, record.epoch).base_epoch
    # A later one is for whoever has started the workflow over since it was looked at.
    requests = [request for request in requests if request.base_epoch <= base_epoch]
    valid = [request for request in requests if handover.is_valid(request, base_epoch)]
    if valid:
        change_status(store, found, WorkflowStatus.CANCELED, manager_id=manager_id, now=now)
    for request in requests:
        handover.delete_request(request)
    return bool(valid)


def new_visitor_id() -> str:
    """A name for somebody who holds no lease: its claims last as long as it writes."""
    return f"visitor-{uuid.uuid4().hex}"


def claim(
    store: WorkflowStore,
    found: Found,
    *,
    why: str,
    manager_id: str,
    now: float,
    continues: Claim | None = None,
    from_task: str = "",
) -> Claim:
    """Claim a workflow that nobody runs.

    :param why: what for, for the error.
    :raises WorkflowStillActiveError: when somebody runs it, or has begun to.
    """
    record = found.record
    workflow_id = record.workflow_id
    if found.has_lost_owner and store.lease_watch.is_doubtful(record.manager_id):
        raise WorkflowStillActiveError(why, workflow_id)  # dead by our clock only
    latest = store.last_epoch(workflow_id)
    status_now = store.latest_status(workflow_id)
    if status_now is None or status_now.epoch > record.epoch:
        raise WorkflowStillActiveError(why, workflow_id)
    if latest > record.epoch:
        # Somebody has claimed it and not written a status: it starts, or its start failed.
        starter = store.read_claim(workflow_id, latest).manager_id
        if starter != manager_id and HonestStatuses(store, now=now).is_alive(starter):
            raise WorkflowStillActiveError(why, workflow_id)
    taken = store.claim(
        workflow_id,
        after=latest,
        manager_id=manager_id,
        now=now,
        user_metadata=record.user_metadata,
        continues=continues,
        from_task=from_task,
    )
    if taken is None:
        raise WorkflowStillActiveError(why, workflow_id)
    return taken
