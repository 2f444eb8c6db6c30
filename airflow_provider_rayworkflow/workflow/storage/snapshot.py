"""Reads what a snapshot is made of."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import Checkpoints, TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)


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


def read_committed(
    store: WorkflowStore,
    claim: Claim,
    *,
    files: Sequence[WorkflowFile] | None = None,
    taken: Callable[[Checkpoints, TaskRecord], None] | None = None,
    held_bytes: int = sys.maxsize,
) -> Checkpoints:
    """All that is committed of the run that a claim is of, whether or not it counts.

    :param taken: as for :func:`.read_journal`, with ``held_bytes``.
    """
    return store.read_checkpoints(
        claim.workflow_id,
        since_epoch=claim.base_epoch,
        files=files,
        taken=taken,
        held_bytes=held_bytes,
    )


def read_earlier(
    store: WorkflowStore, workflow_id: str, epoch: int, *, is_replaced: bool
) -> tuple[Claim, Graph | None]:
    """The claim and the graph of a run that another one goes on from.

    :param is_replaced: another graph is run: then a damaged one is None, and no error.
    :raises CorruptedDataError: when a document is not whole.
    """
    claim, graph = store.read_epoch(workflow_id, epoch)
    try:
        return claim, graph or store.read_older_graph(workflow_id, claim)
    except CorruptedDataError as exc:
        if not is_replaced:
            raise
        log.warning("Workflow %s: %s The graph given now is run.", workflow_id, exc)
        return claim, None
