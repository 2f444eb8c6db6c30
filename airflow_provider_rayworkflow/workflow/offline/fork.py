"""A new workflow with the finished checkpoints of another one, made on the storage alone."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.exceptions import (
    WorkflowAlreadyExistsError,
    WorkflowNotFoundError,
    WorkflowStillActiveError,
)
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY, Encoding, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus, check_transition
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.storage.change_notes import new_visitor_id
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

_RECORDS_AT_ONCE = 100


def fork(
    store: WorkflowStore, workflow_id: str, new_workflow_id: str, *, from_task: str, now: float
) -> None:
    """Make a new workflow that has the graph and the finished checkpoints of another one.

    It is RESUMABLE, and has a copy of everything that is small; large values are given to it as the
    storage does that best. Its status is written last: only then does it exist.

    :param from_task: leave out the checkpoints of this task and of all that depend on it; ``""``:
        leave out none.
    :raises WorkflowNotFoundError: when there is no such workflow.
    :raises WorkflowAlreadyExistsError: when there is a workflow of the new id.
    :raises WorkflowStillActiveError: when one of the new id begins at the same moment.
    :raises ValueError: when the workflow has no task ``from_task``.
    :raises CorruptedDataError: when its stored graph is damaged, or a value vanishes meanwhile.
    """
    existing = store.read_status(new_workflow_id)
    if existing is not None:
        raise WorkflowAlreadyExistsError(
            new_workflow_id, existing.status, remedy="or delete that workflow"
        )
    record = store.read_status(workflow_id)
    if record is None:
        raise WorkflowNotFoundError(workflow_id)
    source = read_snapshot(store, record)
    if from_task:
        source = source.restarted(from_task)
    # In the order in which they were committed.
    records = source.checkpoints.records.values()
    # The result of a map says where the items' results are, of this workflow: it is gathered anew there.
    kept = [one for one in records if source.counts(one.task_id) and not _is_of_map(one)]
    store.archives.share(workflow_id, new_workflow_id, now=now)
    claim = _claim(store, new_workflow_id, record, source, from_task=from_task, now=now)
    try:
        _copy(store, kept, claim)
        _write_status(store, claim, total=len(source.graph.tasks), now=now)
    except BaseException:
        store.delete_files(new_workflow_id, unless=lambda file: file.epoch != claim.epoch)
        raise
    if claim.epoch > 1:  # what a fork that crashed has left
        store.delete_earlier(new_workflow_id, claim.epoch)


def _claim(
    store: WorkflowStore,
    new_workflow_id: str,
    record: StatusRecord,
    source: Snapshot,
    *,
    from_task: str,
    now: float,
) -> Claim:
    claim = next_claim(
        new_workflow_id,
        after=store.last_epoch(new_workflow_id),
        manager_id=new_visitor_id(),
        now=now,
        # No task instance waits for it, whatever started the other one.
        user_metadata={
            name: value for name, value in record.user_metadata.items() if name != ORIGIN_KEY
        },
        has_graph=True,
        on_change=source.claim.on_change,
        on_failure=source.claim.on_failure,
        from_task=from_task,
    )
    if not store.claim(claim, source.graph):
        raise WorkflowStillActiveError("FORK", new_workflow_id)
    return claim


def _copy(store: WorkflowStore, records: list[TaskRecord], claim: Claim) -> None:
    journal = JournalWriter(store.bytes, claim.workflow_id, claim.epoch, signing=store.signing)
    for start in range(0, len(records), _RECORDS_AT_ONCE):
        batch = records[start : start + _RECORDS_AT_ONCE]
        journal.commit([_moved(store, record, claim) for record in batch])


def _is_of_map(record: TaskRecord) -> bool:
    return record.result is not None and record.result.encoding is Encoding.MAP


def _moved(store: WorkflowStore, record: TaskRecord, claim: Claim) -> TaskRecord:
    result = record.result
    if result is None or result.blob is None:
        return record
    blob = store.values.copy(
        result.blob, claim.workflow_id, epoch=claim.epoch, task_id=record.task_id
    )
    return record._replace(result=result._replace(blob=blob))


def _write_status(store: WorkflowStore, claim: Claim, *, total: int, now: float) -> None:
    check_transition(claim.workflow_id, WorkflowStatus.NONE, WorkflowStatus.RESUMABLE)
    if store.last_epoch(claim.workflow_id) != claim.epoch:
        raise WorkflowStillActiveError("FORK", claim.workflow_id)
    store.write_status(
        StatusRecord(
            workflow_id=claim.workflow_id,
            status=WorkflowStatus.RESUMABLE,
            epoch=claim.epoch,
            number=0,
            manager_id=claim.manager_id,
            created_at=now,
            changed_at=now,
            user_metadata=claim.user_metadata,
            tasks_total=total,
        )
    )
