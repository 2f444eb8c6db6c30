"""What a manager knows of all workflows: the storage's word, and its own of those it holds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_rayworkflow.workflow.execution.result_cache import ResultCache
from airflow_provider_rayworkflow.workflow.execution.thread_pool import ThreadPool
from airflow_provider_rayworkflow.workflow.execution.writes import Writes
from airflow_provider_rayworkflow.workflow.manager.held_workflow import HeldWorkflow
from airflow_provider_rayworkflow.workflow.manager.own_changes import OwnChanges
from airflow_provider_rayworkflow.workflow.model.graph import Graph
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id
from airflow_provider_rayworkflow.workflow.storage.leases import Tenure
from airflow_provider_rayworkflow.workflow.storage.listing import ListFilter, read_page
from airflow_provider_rayworkflow.workflow.storage.overview import HeldRows, Overview
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader, StoredWorkflow
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

T = TypeVar("T")

# A write waits for a disk or a network most of the time.
_STORAGE_THREADS = 64

# A smaller graph is read at once: that takes less than to hand it to a thread.
_SMALL_GRAPH_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervals:
    """How often one manager does what it does again and again, and how long it waits, in seconds.

    :ivar build_s: between looks whether a graph that is being built is still wanted.
    :ivar build_timeout_s: how long a graph may take to be built; that takes seconds, with an environment
        minutes, and one that hangs keeps a place from others.
    :ivar cache_s: between rounds in which the cache is kept within its limit.
    :ivar cached_s: between looks for a result that another manager computes.
    :ivar changes_s: how long a change waits for others until it is written into the manager's change log,
        where no caller waits for that.
    :ivar index_s: between times at which what has changed is taken over into the index.
    :ivar left_logs_s: between looks for the change logs of others that are gone.
    :ivar log_close_s: how long the end of a run waits for the last piece of its log.
    :ivar log_s: from when a line of a task's log comes until it is written: together with what
        else comes by then.
    :ivar look_s: how long a look at the claims is good where each look is a request.
    :ivar poll_s: between looks for stop requests, while there is a workflow to be stopped.
    :ivar progress_s: between writes of a run's progress; only changes are written.
    :ivar retention_s: between rounds in which old workflows are deleted, where there is a retention.
    :ivar retry_s: between attempts to write a status whose write has failed.
    :ivar stop_timeout_s: how long a run that is replaced may take to stop; a manager obeys in two seconds.
    :ivar submissions_s: between looks for submissions, while none is open.
    :ivar watch_s: between looks at a workflow that another manager starts or runs.
    """

    build_s: float = 10.0
    build_timeout_s: float = 3600.0
    cache_s: float = 3600.0
    cached_s: float = 1.0
    changes_s: float = 0.2
    index_s: float = 600.0
    left_logs_s: float = 60.0
    log_close_s: float = 10.0
    log_s: float = 3.0
    look_s: float = 1.0
    poll_s: float = 2.0
    progress_s: float = 5.0
    retention_s: float = 3600.0
    retry_s: float = 5.0
    stop_timeout_s: float = 60.0
    submissions_s: float = 1.0
    watch_s: float = 0.5


class Registry:
    """All workflows, as one manager sees them.

    :ivar cache: results that its workflows take from others, and keep for others.
    :ivar changes: what the manager changes, for all who read the storage.
    :ivar intervals: of the manager.
    :ivar live: the workflows that the manager holds, by id.
    :ivar statuses: those that the storage tells. Its methods block.
    :ivar tenure: how long the manager may act.
    :ivar threads: where storage calls block.
    :ivar writes: what is written while workflows run, together where that is better.
    """

    def __init__(
        self,
        store: WorkflowStore,
        *,
        manager_id: str,
        clock: Callable[[], float],
        tenure: Tenure,
        intervals: Intervals | None = None,
    ) -> None:
        self.intervals = intervals or Intervals()
        self.tenure = tenure
        self.manager_id = manager_id
        self.clock = clock
        self.live: dict[str, HeldWorkflow] = {}
        self.threads = ThreadPool(_STORAGE_THREADS, thread_name_prefix="storage")
        self.writes = Writes(store.bytes, self.threads)
        self.cache = ResultCache(
            store,
            self.threads,
            manager_id=manager_id,
            clock=clock,
            interval_s=self.intervals.cached_s,
        )
        # All of the storage's threads may wait for the change log: a thread of its own writes it.
        log_writes = Writes(store.bytes, ThreadPool(1, thread_name_prefix="change log"))
        self.changes = OwnChanges(
            store, log_writes, manager_id=manager_id, gather_s=self.intervals.changes_s
        )
        self.store = store.with_notes(self.changes)
        self.statuses = StatusReader(self.store, clock)

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Call what blocks."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *args)

    async def read_graph(self, data: bytes) -> Graph:
        """The graph that :meth:`Graph.to_bytes` has made."""
        if len(data) <= _SMALL_GRAPH_BYTES:
            return Graph.from_bytes(data)
        return await self.in_thread(Graph.from_bytes, data)

    def find(self, workflow_id: str) -> StoredWorkflow | None:
        """What is stored, and the honest status; None for nothing. Blocks."""
        record, documents = self.store.read_statuses(workflow_id)
        return None if record is None else self.found(record, documents)

    def find_name(self, workflow_id: str) -> StoredWorkflow | None:
        """As :meth:`find`, from the name of the status document alone, which may be damaged. Blocks."""
        found = self.statuses.read_name(workflow_id)
        return self.found(found.record) if found else None

    def read_status(self, workflow_id: str) -> StatusRecord | None:
        """The stored record, with its honest status. Blocks."""
        found = self.find(workflow_id)
        return found.honest_record if found else None

    def found(self, record: StatusRecord, documents: Sequence[str] = ()) -> StoredWorkflow:
        """A stored record with its honest status. Blocks."""
        if record.manager_id != self.manager_id:
            return self.statuses.found(record, documents)
        status = self._own_status(record.workflow_id, record.status)
        return StoredWorkflow(record=record, status=status, documents=documents)

    def _own_status(self, workflow_id: str, status: WorkflowStatus) -> WorkflowStatus:
        """The honest status of a workflow whose stored status is this manager's own."""
        if status.is_active and workflow_id not in self.live:
            return WorkflowStatus.RESUMABLE  # its start or its end failed
        return status

    def list_with_status(
        self, statuses: Collection[WorkflowStatus]
    ) -> list[tuple[str, WorkflowStatus]]:
        """Ids and honest statuses of the workflows that have one of these statuses. Blocks.

        This manager knows those that it holds better than the storage. Sorted by id, those that wait or waited
        for a slot last.
        """
        found = list(Overview(self.store, self.clock, held=self._held()).find(statuses))
        found.sort(key=lambda one: (one.row.status is WorkflowStatus.PENDING, one.workflow_id))
        return [(listed.workflow_id, listed.status) for listed in found]

    def list_page(
        self, chosen: ListFilter, *, size: int, after: str = ""
    ) -> tuple[list[tuple[str, WorkflowStatus]], str]:
        """One page of the workflows that a filter selects, as :func:`read_page` orders them. Blocks.

        Without an index, one page has all.

        :returns: ids and honest statuses, and where the next page begins; ``""`` for the last one.
        """
        overview = Overview(self.store, self.clock, held=self._held())
        page = read_page(
            overview,
            chosen,
            size=size if overview.load() else sys.maxsize,
            after=after,
            most_read=sys.maxsize,
        )
        return [(listed.workflow_id, listed.status) for listed in page.rows], page.next

    def _held(self) -> HeldRows:
        rows = [
            IndexRow.of(live.record, quote_id(workflow_id))
            for workflow_id, live in dict(self.live).items()
        ]
        return HeldRows(manager_id=self.manager_id, rows={row.segment: row for row in rows})

    def list_held_by(self, manager_ids: Collection[str]) -> list[str]:
        """Ids of the workflows that these managers held when they died. Blocks."""
        return Overview(self.store, self.clock).held_by(manager_ids)
