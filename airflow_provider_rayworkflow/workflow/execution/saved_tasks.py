"""Deletes what tasks have saved while they ran, once their results are committed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from concurrent.futures import Executor as ThreadPool

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.attempts import (
    AttemptEnd,
    Continued,
    Interrupted,
    Lost,
    Raised,
    Returned,
)
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore, Entry
from airflow_provider_rayworkflow.workflow.storage.keys import WorkflowFile, task_hash
from airflow_provider_rayworkflow.workflow.storage.saved_keys import (
    folder_of_hash,
    parse_saved_file,
    saved_folder,
)

log = get_logger(__name__)


class SavedTasks:
    """The tasks of one run that have saved something, or may have. It belongs to one event loop.

    A task that has saved nothing costs nothing here: its worker says so with its result, and of a task that
    has run before, the listing with which a run begins.

    :param epoch: of the run; what later ones save is theirs, however late something is deleted here.
    :param threads: where storage calls block.
    """

    def __init__(self, workflow_id: str, epoch: int, store: ByteStore, threads: ThreadPool) -> None:
        self._workflow_id = workflow_id
        self._epoch = epoch
        self._store = store
        self._threads = threads
        self._hashes: set[str] = set()
        self._to_delete: list[str] = []
        self._deleting: asyncio.Future[None] | None = None

    def found(self, files: Sequence[WorkflowFile], committed: Collection[str]) -> None:
        """A run begins: what committed tasks have left is deleted before any of them can run again. Blocks.

        :param files: what lies in the workflow's folder.
        :param committed: ids of the tasks that have a checkpoint.
        """
        saved = [file for file in files if file.kind == "saved" and file.epoch <= self._epoch]
        if not saved:
            return
        over = set(map(task_hash, committed))
        if left := [file.key for file in saved if file.task_hash in over]:
            self._delete_keys(left)
        self._hashes.update(file.task_hash for file in saved if file.task_hash not in over)

    def ended(self, task_id: str, end: AttemptEnd) -> None:
        """An attempt has ended; that of a lost worker may have saved something."""
        match end:
            case Returned() | Continued() | Raised():
                if not end.has_saved:
                    return
            case Lost() | Interrupted():
                pass
            case _:
                return
        self._hashes.add(task_hash(task_id))

    def committed(self, records: Sequence[TaskRecord]) -> None:
        """The results of tasks are durable: what these have saved is deleted, soon."""
        if not self._hashes:
            return
        done = {task_hash(one.task_id) for one in records if not (one.is_failure or one.is_revoked)}
        over = done & self._hashes
        self._hashes -= over
        self._delete([folder_of_hash(self._workflow_id, one) for one in over])

    async def deleted(self) -> None:
        """Return when nothing is being deleted any more."""
        while self._deleting is not None:
            await self._deleting

    async def close(self, *, is_successful: bool) -> None:
        """The run has ended; returns when all is deleted.

        :param is_successful: then no task goes on, and what any has saved is of no use.
        """
        if is_successful and self._hashes:
            self._delete([saved_folder(self._workflow_id)])
        await self.deleted()

    def _delete(self, folders: Sequence[str]) -> None:
        self._to_delete += folders
        if self._to_delete and self._deleting is None:
            self._deleting = asyncio.ensure_future(self._delete_all())

    async def _delete_all(self) -> None:
        try:
            while self._to_delete:
                folders, self._to_delete = self._to_delete, []
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, self._delete_each, folders)
        except Exception as exc:  # what stays goes with the workflow
            log.warning(
                "Workflow %s: what its tasks saved can't be deleted: %s", self._workflow_id, exc
            )
        finally:
            self._deleting = None

    def _delete_each(self, folders: Sequence[str]) -> None:
        for folder in folders:
            try:
                keys = [entry.key for entry in self._store.list(folder) if self._is_ours(entry)]
            except StorageError as exc:
                log.warning("What a task saved can't be deleted: %s", exc)
            else:
                self._delete_keys(keys)

    def _is_ours(self, entry: Entry) -> bool:
        file = parse_saved_file(entry.key, entry.size)
        return file is not None and file.version.epoch <= self._epoch

    def _delete_keys(self, keys: Sequence[str]) -> None:
        try:
            self._store.delete(keys)
        except StorageError as exc:
            log.warning("What a task saved can't be deleted: %s", exc)
