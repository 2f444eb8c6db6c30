"""Group commit: while one write is under way, what comes in waits and shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.execution.writes import Guard, Writes
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter


@dataclass(slots=True)
class Commit:
    """A record on its way to the storage, and what to do when it is there.

    :ivar record: None for what only has to come after the records before it.
    """

    record: TaskRecord | None
    then: Callable[[], None]


class GroupCommit:
    """The records of one run, written in the order in which they come.

    :param writes: write the journal.
    :param guard: says whether the journal may still be written.
    :param on_written: told each batch when it is durable, or with the error of its write.
    """

    def __init__(
        self,
        journal: JournalWriter,
        writes: Writes,
        *,
        guard: Guard | None = None,
        on_written: Callable[[Sequence[Commit], BaseException | None], None],
    ) -> None:
        self._journal = journal
        self._writes = writes
        self._guard = guard
        self._on_written = on_written
        self._waiting: list[Commit] = []
        self._is_writing = False

    @property
    def is_busy(self) -> bool:
        """True while anything waits or is being written."""
        return bool(self._waiting) or self._is_writing

    def commit(self, record: TaskRecord | None, then: Callable[[], None]) -> None:
        """As :meth:`add`; without a record, and without writes to wait for, ``then`` is called at once."""
        if record is None and not self.is_busy:
            then()
        else:
            self.add(record, then)

    def add(self, record: TaskRecord | None, then: Callable[[], None]) -> None:
        """Let a record wait for the next write.

        :param record: None for what only has to come after the records before it.
        :param then: called when the record, and all that were added before it, are durable.
        """
        self._waiting.append(Commit(record, then))

    def discard_waiting(self) -> None:
        """Drop what waits: it may not be written any more."""
        self._waiting.clear()

    def write_waiting(self) -> None:
        """Start to write what waits, unless a write is under way."""
        if not self._waiting or self._is_writing:
            return
        batch, self._waiting = self._waiting, []
        records = [commit.record for commit in batch if commit.record is not None]
        self._is_writing = True
        if records:
            write = self._writes.put(lambda: self._journal.next_put(records), guard=self._guard)
            write.add_done_callback(lambda write: self._written(batch, write.exception()))
        else:
            asyncio.get_running_loop().call_soon(self._written, batch, None)

    def _written(self, batch: Sequence[Commit], error: BaseException | None) -> None:
        self._is_writing = False
        if error is not None:
            self._journal.take_back()
        self._on_written(batch, error)
