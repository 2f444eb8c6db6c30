"""What lists show of all workflows, from the change logs and the index: its cost follows what is shown.

The change logs are read before the index: a change that a manager takes over meanwhile is seen twice, never
missed. Where one of them does not tell for certain how a workflow stands, its status document is read. Without an
index, and where a part of it is damaged, all statuses are listed.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.documents import understanding
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.index_row import (
    FEED,
    IndexRow,
    behind,
    by_end,
    by_status,
    feed_key,
    id_key,
    index_keys,
    time_key,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLog
from airflow_provider_rayworkflow.workflow.storage.index import Tree
from airflow_provider_rayworkflow.workflow.storage.left_out import Report, log_left_out
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusLook, StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

Json = dict[str, Any]

_ACTIVE = (WorkflowStatus.RUNNING, WorkflowStatus.PENDING)
_ENDED = (
    WorkflowStatus.SUCCESSFUL,
    WorkflowStatus.FAILED,
    WorkflowStatus.RESUMABLE,
    WorkflowStatus.CANCELED,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One workflow of a list.

    :ivar status: the honest one.
    :ivar has_times: False where only the name of its status document is known: the row has no more.
    """

    row: IndexRow
    status: WorkflowStatus
    has_times: bool = True

    @property
    def workflow_id(self) -> str:
        return self.row.workflow_id

    @property
    def key(self) -> keys.StatusKey:
        """The name of its status document."""
        row = self.row
        return keys.StatusKey(row.epoch, row.number, row.status, row.manager_id, row.segment)


class Overview:
    """One look at all workflows of a storage.

    :param clock: seconds since the epoch.
    :param patient: as for :class:`StatusReader`.
    :param report: told why a workflow is left out; by default that is logged.
    """

    def __init__(
        self,
        store: WorkflowStore,
        clock: Callable[[], float] = time.time,
        *,
        patient: bool = False,
        report: Report | None = None,
    ) -> None:
        self.store = store
        self._report = report or log_left_out
        self._reader = StatusReader(store, clock, patient=patient)
        self.look: StatusLook = self._reader.look(report)
        self._newer: dict[str, IndexRow | None] = {}
        self._read_again: dict[str, IndexRow | None] = {}
        self._tree: Tree | None = None

    def load(self) -> bool:
        """Read the change logs, then the root of the index; False if there is none, or none that serves.

        :raises StorageError: when the storage does not answer.
        """
        try:
            logs = self._read_logs()
            self._tree = self.store.index.load()
            if self._tree is None or not self._is_complete({one.writer for one in logs}):
                return False
            self._settle(logs)
        except DataLoadError as exc:
            self._warn_or_raise(exc)
            return False
        return True

    def scan(
        self, prefix: str, *, low: str = "", high: str = "", reverse: bool = False
    ) -> Iterator[Listed]:
        """The workflows of one order of the index, each with its honest status.

        Active ones whose manager is gone stand where they were written.

        :param prefix: of the order, see :mod:`.index_row`.
        :param low: the rest of the first key.
        :param high: the rest of the key before which it ends, ``""`` for the end of the prefix.
        :raises DataLoadError: when a part of the index can't be read.
        """
        first, end = prefix + low, prefix + high if high else behind(prefix)
        newer = sorted(
            (key, row)
            for row in self._newer.values()
            if row is not None
            for key in index_keys(row)
            if first <= key < end
        )
        stored = (
            (key, row)
            for key, row in self._stored(first, end, reverse)
            if row.segment not in self._newer
        )
        merged = heapq.merge(
            stored, reversed(newer) if reverse else newer, key=_key_of, reverse=reverse
        )
        for _, row in merged:
            if (listed := self._honest(row)) is not None:
                yield listed

    def find(self, statuses: Collection[WorkflowStatus]) -> Iterator[Listed]:
        """The workflows that have one of these statuses; the newest first, where there is an index.

        The first one is there after the reads of :meth:`load`.

        :raises StorageError: when the storage does not answer; maybe while the caller iterates.
        """
        given: set[str] = set()
        try:
            if self.load():
                for listed in self._with_status(set(statuses)):
                    given.add(listed.row.segment)
                    yield listed
                return
        except DataLoadError as exc:
            self._warn_or_raise(exc)
        for listed in self.list_all():
            if listed.status in statuses and listed.row.segment not in given:
                yield listed

    def held_by(self, manager_ids: Collection[str]) -> list[str]:
        """Ids of the workflows that these managers hold, or held when they died; sorted."""
        return sorted(
            listed.workflow_id
            for listed in self.find((*_ACTIVE, WorkflowStatus.RESUMABLE))
            if listed.row.status.is_active and listed.row.manager_id in manager_ids
        )

    def find_ended(
        self, statuses: Collection[WorkflowStatus], *, before: float
    ) -> Iterator[Listed]:
        """As :meth:`find`, of those that were active before a time for the last time, as far as that is known.

        :param before: seconds since the epoch.
        """
        if before == math.inf or not self.load():
            yield from self.find(statuses)
            return
        high = time_key(before)
        try:
            for status in statuses:
                yield from self.scan(by_end(status), high=high)
        except DataLoadError as exc:
            self._warn_or_raise(exc)
            yield from self.find(statuses)
            return
        for status in _ACTIVE:
            for listed in self.scan(by_status(status)):
                if listed.status in statuses:
                    yield listed

    def list_all(self) -> Iterator[Listed]:
        """All workflows from a listing of all statuses, as their names tell: the slow way."""
        for workflow_id, status, key in self._reader.list_workflows(self._report):
            row = IndexRow(
                segment=key.segment,
                workflow_id=workflow_id,
                status=key.status,
                epoch=key.epoch,
                number=key.number,
                manager_id=key.manager_id,
            )
            yield Listed(row=row, status=status, has_times=False)

    def _with_status(self, wanted: set[WorkflowStatus]) -> Iterator[Listed]:
        # One that was written as active may have lost its manager, and then may have ended.
        scanned = wanted.union(_ACTIVE) if wanted.intersection(_ENDED) else wanted
        orders = [self.scan(by_status(status), reverse=True) for status in scanned]
        for listed in heapq.merge(*orders, key=_created, reverse=True):
            if listed.status in wanted:
                yield listed

    def get(self, segment: str) -> Listed | None:
        """One workflow by :func:`quote_id` of its id, None for an unknown one."""
        if segment in self._newer:
            row = self._newer[segment]
        else:
            row = self._parsed(self._tree.get(id_key(segment))) if self._tree else None
        return None if row is None or row.status is WorkflowStatus.NONE else self._honest(row)

    @property
    def version(self) -> int:
        """Of the index; 0 without one."""
        return self._tree.version if self._tree is not None else 0

    def changed_since(self, version: int) -> set[str]:
        """The segments of workflows that may have ended since a version of the index.

        What came into the index since, what stands in change logs, and what has lost its manager.

        :raises StorageError: when the storage does not answer, or the index is damaged.
        """
        found = set(self._newer)
        found.update(self._came_since(version))
        for status in _ACTIVE:
            found.update(
                listed.row.segment
                for listed in self.scan(by_status(status))
                if not listed.status.is_active
            )
        return found

    def count(self, prefix: str, *, low: str = "") -> int:
        """How many workflows one order of the index has; those in change logs may count as they were."""
        if self._tree is None:
            return 0
        return sum(self._tree.count(low=prefix + low, high=behind(prefix)).values())

    def _warn_or_raise(self, problem: DataLoadError) -> None:
        if problem.is_transient:
            raise problem
        log.warning("The index is of no use, all statuses are listed: %s", problem)

    def _read_logs(self) -> list[ChangeLog]:
        found = []
        for writer in self.store.changes.writers(self._report):
            try:
                found.append(self.store.changes.read(writer))
            except KeyNotFoundError:
                continue  # taken over since the listing: the index is read later
        return found

    def _is_complete(self, writers: set[str]) -> bool:
        """False if a manager that lives has no change log."""
        for lease in self.store.leases.list_all():
            if lease.manager_id not in writers and self.look.is_alive(lease.manager_id):
                log.warning(
                    "Manager %s has no change log: all statuses are listed", lease.manager_id
                )
                return False
        return True

    def _settle(self, logs: Sequence[ChangeLog]) -> None:
        """Decide of each workflow in a change log what counts."""
        found: dict[str, list[tuple[int, IndexRow | None]]] = {}
        for changed in logs:
            for change in changed.untaken:
                found.setdefault(change.segment, []).append((changed.version, change.row))
        since = min((version for rows in found.values() for version, _ in rows), default=None)
        later = {} if since is None else self._came_since(since)
        unsettled = []
        for segment, rows in found.items():
            version, row = rows[0]
            if len(rows) > 1 or row is None or not _is_newer(row, version, later.get(segment, ())):
                unsettled.append(segment)
            else:
                self._newer[segment] = None if row.status is WorkflowStatus.NONE else row
        self._newer |= self._read(unsettled)

    def _came_since(self, version: int) -> dict[str, list[tuple[int, Json]]]:
        """What the feed has since a version, by segment: each with the version in which it came."""
        found: dict[str, list[tuple[int, Json]]] = {}
        for key, value in self._items(feed_key(version + 1, ""), behind(FEED), reverse=False):
            came = int(key.removeprefix(FEED).partition("/")[0])
            found.setdefault(str(value["segment"]), []).append((came, value))
        return found

    def _read(self, segments: Collection[str]) -> dict[str, IndexRow | None]:
        def read(segment: str) -> IndexRow | None:
            try:
                return self.store.read_row(segment)
            except DataLoadError as exc:
                if exc.is_transient:
                    raise
                self._report(exc)
                return None

        at_once = self.store.bytes.reads_at_once
        if at_once == 1 or len(segments) < 2:
            return {segment: read(segment) for segment in segments}
        with ThreadPoolExecutor(at_once) as threads:
            return dict(zip(segments, threads.map(read, segments), strict=True))

    def _stored(self, first: str, end: str, reverse: bool) -> Iterator[tuple[str, IndexRow]]:
        for key, value in self._items(first, end, reverse):
            if (row := self._parsed(value)) is not None:
                yield key, row

    def _items(self, first: str, end: str, reverse: bool) -> Iterator[tuple[str, Json]]:
        """What the index has, also where it is replaced meanwhile: then from the next root on."""
        while self._tree is not None:
            try:
                for key, value in self._tree.scan(low=first, high=end, reverse=reverse):
                    yield key, value
                    if reverse:
                        end = key
                    else:
                        first = key + "\0"
                return
            except KeyNotFoundError:
                self._tree = self.store.index.newer_than(self._tree)

    def _parsed(self, value: Json | None) -> IndexRow | None:
        if value is None:
            return None
        with understanding(keys.INDEX, "row of the index"):
            return IndexRow.from_json(value)

    def _honest(self, row: IndexRow) -> Listed | None:
        status = self.look.of(row.status, row.manager_id)
        if status is row.status:
            return Listed(row=row, status=status)
        # Its last word may have come after the index, or its log, was written.
        if row.segment not in self._read_again:
            self._read_again |= self._read([row.segment])
        now = self._read_again[row.segment]
        return (
            None
            if now is None
            else Listed(row=now, status=self.look.of(now.status, now.manager_id))
        )


def _is_newer(row: IndexRow, version: int, came: Iterable[tuple[int, Json]]) -> bool:
    """True if a change is certainly later than what the index has.

    :param version: of the index, when the change was not made yet.
    :param came: what came into the index of the workflow, with the version in which it did.
    """
    return all(
        at <= version
        or (
            value["manager_id"] == row.manager_id
            and (value["epoch"], value["number"]) <= row.position
        )
        for at, value in came
    )


def _key_of(item: tuple[str, IndexRow]) -> str:
    return item[0]


def _created(listed: Listed) -> tuple[str, str]:
    return time_key(listed.row.created_at), listed.row.segment
