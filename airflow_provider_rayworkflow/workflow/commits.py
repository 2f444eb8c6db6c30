"""Group commit: while one write is under way, what comes in waits and shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as ThreadPool
from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.storage.workflows import JournalWriter, TaskRecord


@dataclass(slots=True)
class Commit:
    """A record on its way to the storage, and what to do when it is there.

    :ivar record: None for what only has to come after the records before it.
    """

    record: TaskRecord | None
    then: Callable[[], None]


class GroupCommit:
    """The records of one run, written in the order in which they come.

    :param threads: where writes block.
    :param on_written: told each batch when it is durable, or the error that kept it from being so.
    """

    def __init__(
        self,
        journal: JournalWriter,
        threads: ThreadPool,
        *,
        on_written: Callable[[Sequence[Commit], StorageError | None], None],
    ) -> None:
        self._journal = journal
        self._threads = threads
        self._on_written = on_written
        self._waiting: list[Commit] = []
        self._write: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """True while anything waits or is being written."""
        return bool(self._waiting) or self._write is not None

    def add(self, record: TaskRecord | None, then: Callable[[], None]) -> None:
        """Let a record wait for the next write, or something for all that was added before it."""
        self._waiting.append(Commit(record, then))

    def discard_waiting(self) -> None:
        """Forget what waits: it may not be written any more."""
        self._waiting.clear()

    def write_waiting(self) -> None:
        """Start to write what waits, unless a write is under way."""
        if self._waiting and self._write is None:
            batch, self._waiting = self._waiting, []
            self._write = asyncio.ensure_future(self._write_batch(batch))

    async def _write_batch(self, batch: Sequence[Commit]) -> None:
        records = [commit.record for commit in batch if commit.record is not None]
        error: StorageError | None = None
        try:
            if records:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, self._journal.commit, records)
        except StorageError as exc:
            error = exc
        self._write = None
        self._on_written(batch, error)
