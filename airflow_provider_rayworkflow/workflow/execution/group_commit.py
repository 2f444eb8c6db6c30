"""Group commit: while one write is under way, what comes in waits and shares the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from airflow_provider_rayworkflow.workflow.execution.writes import Guard, Writes
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter


@dataclass(slots=True)
class _Commit:
    """A record on its way to the storage, and what to do when it is there.

    :ivar record: None for what only has to come after the records before it.
    """

    record: TaskRecord | None
    then: Callable[[], None]


class GroupCommit:
    """The records of one run, written in the order in which they come.

    :param writes: write the journal.
    :param guard: says whether the journal may still be written.
    :param enqueue: calls a function between two steps of the run.
    :param on_written: told the records of each batch when they are durable, before what follows
        from them, or with the error of their write.
    """

    def __init__(
        self,
        journal: JournalWriter,
        writes: Writes,
        *,
        guard: Guard | None = None,
        enqueue: Callable[[Callable[[], None]], None],
        on_written: Callable[[Sequence[TaskRecord], BaseException | None], None],
    ) -> None:
        self._journal = journal
        self._writes = writes
        self._guard = guard
        self._enqueue = enqueue
        self._on_written = on_written
        self._waiting: list[_Commit] = []
        self._is_writing = False

    @property
    def is_busy(self) -> bool:
        """True while anything waits, is being written, or is written and not told yet."""
        return bool(self._waiting) or self._is_writing

    def commit(self, record: TaskRecord | None, then: Callable[[], None]) -> None:
        """Let a record wait for the next write.

        :param record: None for what only has to come after the records before it; without any to
            wait for, ``then`` is called at once.
        :param then: called when the record, and all that came before it, are durable.
        """
        if record is None and not self.is_busy:
            then()
        else:
            self._waiting.append(_Commit(record, then))

    def discard_waiting(self) -> None:
        """Drop what waits: it may not be written any more."""
        self._waiting.clear()

    def write_waiting(self) -> None:
        """Start to write what waits, unless a write is under way."""
        if not self._waiting or self._is_writing:
            return
        batch, self._waiting = self._waiting, []
        records = [commit.record for commit in batch if commit.record is not None]
        written = partial(self._written, batch, records)
        self._is_writing = True
        if records:
            write = self._writes.put(lambda: self._journal.next_put(records), guard=self._guard)
            write.add_done_callback(
                lambda write: self._enqueue(partial(written, write.exception()))
            )
        else:
            self._enqueue(partial(written, None))

    def _written(
        self,
        batch: Sequence[_Commit],
        records: Sequence[TaskRecord],
        error: BaseException | None,
    ) -> None:
        self._is_writing = False
        if error is not None:
            self._journal.take_back()
        self._on_written(records, error)
        if error is None:
            for commit in batch:
                commit.then()
