"""Change logs as managers write them, with the statuses that they tell of."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change, ChangeLog, ChangeLogs
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id


class NoNotes:
    """The notes of a store whose test writes the change logs itself."""

    def changing(self, segments: Collection[str]) -> AbstractContextManager[None]:
        return nullcontext()

    def wrote(self, row: IndexRow) -> None:
        """Nothing is noted."""


class LogWriter:
    """One writer, with its log in memory until it is flushed.

    :ivar log: with what has not been flushed yet.
    """

    def __init__(self, store: WorkflowStore, writer: str = "m") -> None:
        self._logs = ChangeLogs(store.bytes, signing=store.signing)
        try:
            self.log = self._logs.read(writer)
        except StorageError:
            self.log = ChangeLog(writer=writer)

    def look(self, *segments: str) -> None:
        """Have a look row of each."""
        for segment in segments:
            self._add(segment, None)

    def note(self, *records: StatusRecord) -> None:
        """Have a row of each status."""
        for record in records:
            segment = quote_id(record.workflow_id)
            self._add(segment, IndexRow.of(record, segment))

    def gone(self, segment: str) -> None:
        """Have the row of a workflow that was deleted."""
        row = IndexRow(segment=segment, workflow_id=segment, status=WorkflowStatus.NONE)
        self._add(segment, row)

    def forget(self, seq: int) -> None:
        """Leave out the rows up to this one; look rows stay."""
        kept = [one for one in self.log.changes if one.seq > seq or one.row is None]
        self.log = replace(self.log, changes=kept, forgotten=max(seq, self.log.forgotten))

    def flush(self, *, is_done: bool = False) -> None:
        self.log = replace(self.log, is_done=is_done)
        self._logs.write(self.log)

    def delete(self) -> None:
        self._logs.delete(self.log.writer)

    def _add(self, segment: str, row: IndexRow | None) -> None:
        seq = self.log.seq + 1
        others = [change for change in self.log.changes if change.segment != segment]
        changes = [*others, Change(seq=seq, segment=segment, row=row)]
        self.log = replace(self.log, changes=changes, seq=seq)


def write_with_log(store: WorkflowStore, *records: StatusRecord) -> None:
    """Write statuses as one manager does: they are durable before its change log has them."""
    unnoted = store.with_notes(NoNotes())
    for record in records:
        unnoted.write_status(record)
    writer = LogWriter(store, records[0].manager_id)
    writer.note(*records)
    writer.flush()
