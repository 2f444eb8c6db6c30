"""Whether single tasks of a workflow have finished, for sensors that ask again and again; and whether an output is lost."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Snapshot
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_committed, read_snapshot
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)


class FinishedTasks:
    """The tasks of one workflow that have a result that counts.

    One listing a question; reads only what has changed.

    A task that returned a graph has finished when that graph's output is committed. A task with
    ``checkpoint=False`` leaves no trace, and so never counts.
    """

    def __init__(self, store: WorkflowStore, workflow_id: str) -> None:
        self._store = store
        self._workflow_id = workflow_id
        self._seen: tuple[int, WorkflowStatus, Sequence[WorkflowFile]] | None = None
        self._snapshot: Snapshot | None = None

    def has(self, task_id: str, *, epoch: int, status: WorkflowStatus) -> bool:
        """True if the task has finished.

        :param epoch: and ``status``: of the workflow's latest status.
        :raises StorageError: when that can't be read.
        """
        files = self._store.list_files(self._workflow_id)
        seen = (epoch, status, files)
        if self._snapshot is None or seen != self._seen:
            self._snapshot = self._read(*seen)
            self._seen = seen
        return self._snapshot.has_finished(task_id)

    def _read(self, epoch: int, status: WorkflowStatus, files: Sequence[WorkflowFile]) -> Snapshot:
        known = self._snapshot
        if known is not None and known.claim.epoch == epoch:
            claim, graph = known.claim, known.graph
        else:
            claim, graph = self._store.read_run(self._workflow_id, epoch)
        return Snapshot(
            claim=claim,
            graph=graph,
            checkpoints=read_committed(self._store, claim, files=files),
            is_successful=status is WorkflowStatus.SUCCESSFUL,
        )


def has_lost_output(
    store: WorkflowStore, record: StatusRecord, *, files: Sequence[WorkflowFile]
) -> bool:
    """True if the output of a successful workflow can't be loaded any more. Blocks.

    What is damaged of it is deleted: then its task counts as not committed and runs again.

    :param files: in the workflow's folder.
    """
    workflow_id = record.workflow_id
    snapshot = read_snapshot(store, record, files=files)
    result = snapshot.output
    if result is None:
        for problem in snapshot.checkpoints.damaged:
            log.warning("Workflow %s: %s Its task runs again.", workflow_id, problem)
        return True
    damage = store.values.find_damage(result)
    if damage is None:
        return False
    log.warning("Workflow %s: %s It is deleted, and its task runs again.", workflow_id, damage)
    store.bytes.delete([damage.key])
    return True
