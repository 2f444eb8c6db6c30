"""Whether single tasks of a workflow have finished, for those who ask again and again."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.workflows import Checkpoints, WorkflowStore


class FinishedTasks:
    """The committed tasks of one workflow. One listing a question; reads only what has changed.

    A task that returned a graph has finished when that graph's output is committed. A task with
    ``checkpoint=False`` leaves no trace, and so never counts.
    """

    def __init__(self, store: WorkflowStore, workflow_id: str) -> None:
        self._store = store
        self._workflow_id = workflow_id
        self._seen: tuple[int, dict[str, int]] = (0, {})
        self._checkpoints = Checkpoints()

    def has(self, task_id: str, *, epoch: int) -> bool:
        """True if the task has finished.

        :param epoch: of the workflow's latest status.
        :raises StorageError: when that can't be read.
        """
        folder = keys.workflow_folder(self._workflow_id)
        seen = (epoch, {entry.key: entry.size for entry in self._store.bytes.list(folder)})
        if seen != self._seen:
            since = self._store.read_claim(self._workflow_id, epoch).base_epoch
            self._checkpoints = self._store.read_checkpoints(self._workflow_id, since_epoch=since)
            self._seen = seen
        records = self._checkpoints.records
        while (record := records.get(task_id)) is not None and record.graph is not None:
            task_id = record.task_ids[-1]
        return record is not None
