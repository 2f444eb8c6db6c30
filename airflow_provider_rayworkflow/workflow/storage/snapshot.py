"""Reads what a snapshot is made of."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    WorkflowNotFoundError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.records import (
    OnChange,
    StatusRecord,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot, ids_of
from airflow_provider_rayworkflow.workflow.storage.claims import next_claim
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile
from airflow_provider_rayworkflow.workflow.storage.status_reader import StoredWorkflow
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)


# ---- reading


def read_snapshot(
    store: WorkflowStore, record: StatusRecord, *, files: Sequence[WorkflowFile] | None = None
) -> Snapshot:
    """How a workflow stands: a read of the claim, and of the graph if the claim has none.

    :param files: what lies in the workflow's folder; None if that has to be asked.
    :raises StorageError: when that can't be read.
    """
    claim, graph = store.read_run(record.workflow_id, record.epoch)
    return Snapshot(
        claim=claim,
        graph=graph,
        checkpoints=read_committed(store, claim, files=files),
        is_successful=record.status is WorkflowStatus.SUCCESSFUL,
    )


def read_next(
    store: WorkflowStore,
    workflow_id: str,
    found: StoredWorkflow | None,
    graph: Graph | None,
    *,
    on_change: OnChange | None = None,
    from_task: str = "",
    files: Sequence[WorkflowFile] | None = None,
) -> Snapshot:
    """What a run or resume would begin with.

    :param found: how the workflow stands, None for nothing stored.
    :param graph: None for the stored one.
    :param files: as for :func:`read_snapshot`.
    :raises WorkflowNotFoundError: when nothing is stored, and no graph is given.
    :raises ValueError: when there is no task of the name ``from_task``.
    """
    earlier, stored, checkpoints = None, None, Checkpoints()
    if found is not None and graph is None:
        earlier, stored = store.read_run(workflow_id, found.record.epoch)
    elif found is not None:
        earlier, stored = read_earlier(store, workflow_id, found.record.epoch)
    if earlier is not None:
        checkpoints = read_committed(store, earlier, files=files)
    run = graph or stored
    if run is None:
        raise WorkflowNotFoundError(workflow_id)
    claim = next_claim(
        workflow_id,
        after=earlier.epoch if earlier else 0,
        manager_id="",
        now=0,
        user_metadata={},
        has_graph=graph is not None,
        continues=earlier,
        on_change=on_change,
        from_task=from_task,
    )
    snapshot = Snapshot(
        claim=claim,
        graph=run,
        checkpoints=checkpoints,
        known=ids_of(stored) if stored else None,
    )
    if from_task:
        snapshot.check_restart(from_task)
    return snapshot


def read_committed(
    store: WorkflowStore, claim: Claim, *, files: Sequence[WorkflowFile] | None = None
) -> Checkpoints:
    """All that is committed of the run that a claim is of, whether or not it counts."""
    return store.read_checkpoints(claim.workflow_id, since_epoch=claim.base_epoch, files=files)


def read_earlier(store: WorkflowStore, workflow_id: str, epoch: int) -> tuple[Claim, Graph | None]:
    """The claim and the graph of a run whose graph is replaced; None for a damaged graph."""
    claim, graph = store.read_epoch(workflow_id, epoch)
    try:
        return claim, graph or store.read_older_graph(workflow_id, claim)
    except CorruptedDataError as exc:
        log.warning("Workflow %s: %s The graph given now is run.", workflow_id, exc)
        return claim, None
