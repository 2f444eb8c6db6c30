"""What lists show of all workflows, from the change logs and the index: its cost follows what is shown.

The change logs are read before the index: a change that a manager takes over meanwhile is seen twice, never
missed. Where one of them does not tell for certain how a workflow stands, its status document is read. Without an
index, and where a part of it is damaged, all statuses are listed.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from airflow_provider_rayworkflow.workflow.exceptions import (
    DataLoadError,
    KeyNotFoundError,
    UntrustedDataError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SIGNING_KEY_VARIABLE
from airflow_provider_rayworkflow.workflow.model.index_row import (
    BY_CREATION,
    IndexRow,
    behind,
    by_end,
    by_status,
    creation_key,
    index_keys,
    is_newer,
    time_key,
)
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys, shown
from airflow_provider_rayworkflow.workflow.storage.change_logs import ChangeLog
from airflow_provider_rayworkflow.workflow.storage.latest_index import LatestIndex
from airflow_provider_rayworkflow.workflow.storage.row_reader import (
    InThreads,
    RowReader,
    row_of_name,
)
from airflow_provider_rayworkflow.workflow.storage.status_documents import Report, log_left_out
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusLook, StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

_SAME_KEY = f"give all processes the same {SIGNING_KEY_VARIABLE}, then "
# Of workflows whose manager is gone, so many are read at the same time, and so many more than are shown.
_MOST_AHEAD = 16
_ACTIVE = (WorkflowStatus.RUNNING, WorkflowStatus.PENDING)
_ENDED = (
    WorkflowStatus.SUCCESSFUL,
    WorkflowStatus.FAILED,
    WorkflowStatus.RESUMABLE,
    WorkflowStatus.CANCELED,
)


def written_as(statuses: Collection[WorkflowStatus]) -> list[WorkflowStatus]:
    """Which written statuses workflows may have that have one of these now.

    One that was written as active may have lost its manager, and then may have ended.
    """
    wanted = set(statuses)
    return sorted(wanted.union(_ACTIVE) if wanted.intersection(_ENDED) else wanted)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldRows:
    """The workflows that a manager holds, which it knows better than the storage.

    What it has written as active and does not hold is RESUMABLE: its start or its end failed.

    :ivar rows: by segment.
    """

    manager_id: str = ""
    rows: Mapping[str, IndexRow] = field(default_factory=dict)

    def has_dropped(self, row: IndexRow) -> bool:
        """True for a row of this manager that is active and not held."""
        is_own = row.status.is_active and row.manager_id == self.manager_id
        return is_own and row.segment not in self.rows


class Overview:
    """One look at all workflows of a storage.

    :param clock: seconds since the epoch.
    :param patient: as for :class:`StatusReader`.
    :param report: told why a workflow is left out; by default that is logged.
    :param in_threads: reads several documents at once; by default threads of its own do.
    :param held: what the caller holds; it counts for :meth:`load` and what reads orders, names or documents.
    """

    def __init__(
        self,
        store: WorkflowStore,
        clock: Callable[[], float] = time.time,
        *,
        patient: bool = False,
        report: Report | None = None,
        in_threads: InThreads | None = None,
        held: HeldRows = HeldRows(),
    ) -> None:
        self.store = store
        self._held = held
        self._report = report or log_left_out
        self._reader = StatusReader(store, clock, patient=patient)
        self.look: StatusLook = self._reader.look(report)
        self._rows = RowReader(store, self._report, in_threads)
        self._newer: dict[str, IndexRow | None] = {}
        self._read_again: dict[str, IndexRow | None] = {}
        self._index = LatestIndex(store.index)
        self._has_index: bool | None = None

    def load(self) -> bool:
        """Read the change logs, then the root of the index. Reads once.

        :returns: False if there is no index, or a manager has no change log: then lists are not complete.
        :raises StorageError: when the storage does not answer.
        """
        if self._has_index is None:
            self._has_index = self._load()
        return self._has_index

    def _load(self) -> bool:
        try:
            logs = _read_logs(self.store, self._rows, self._report)
            has_index = self._index.load()
            self._newer |= _settled(logs, self._index, self._rows)
            self._newer |= self._held.rows
            return has_index and self._is_complete({one.writer for one in logs})
        except DataLoadError as exc:
            self.warn_or_raise(exc)
            return False

    def scan(
        self, prefix: str, *, low: str = "", high: str = "", reverse: bool = False
    ) -> Iterator[Listed]:
        """The workflows of one order of the index, each with its honest status: :meth:`merge`."""
        for _, listed in self.merge([prefix], low=low, high=high, reverse=reverse):
            yield listed

    def merge(
        self, prefixes: Iterable[str], *, low: str = "", high: str = "", reverse: bool = False
    ) -> Iterator[tuple[str, Listed]]:
        """The workflows of some orders of the index, each with its honest status and its place.

        Active ones whose manager is gone stand where they were written.

        :param prefixes: of the orders, see :mod:`.index_row`. What a key has behind its prefix is the place.
        :param low: the first place.
        :param high: the place before which it ends, ``""`` for the end of the orders.
        :raises DataLoadError: when a part of the index can't be read.
        """
        orders = [self._order(prefix, low, high, reverse) for prefix in prefixes]
        return heapq.merge(*orders, key=_key_of, reverse=reverse)

    def _order(
        self, prefix: str, low: str, high: str, reverse: bool
    ) -> Iterator[tuple[str, Listed]]:
        found = self._written(prefix, low, high, reverse)
        ahead = 1
        while some := [*islice(found, ahead)]:
            lost = [row for _, row in some if self._status_of(row) is not row.status]
            ahead = min(2 * ahead, _MOST_AHEAD) if lost else 1
            self._read_lost(lost)
            for key, row in some:
                if (listed := self._honest(row)) is not None:
                    yield key.removeprefix(prefix), listed

    def _written(
        self, prefix: str, low: str, high: str, reverse: bool
    ) -> Iterator[tuple[str, IndexRow]]:
        """The rows of one order with their keys, as the change logs and the index have them."""
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
            for key, row in self._index.scan(first, end, reverse=reverse)
            if row.segment not in self._newer
        )
        return heapq.merge(
            stored, reversed(newer) if reverse else newer, key=_key_of, reverse=reverse
        )

    def find(self, statuses: Collection[WorkflowStatus]) -> Iterator[Listed]:
        """The workflows that have one of these statuses; the newest first, where there is an index.

        The first one is there after the reads of :meth:`load`.

        :raises StorageError: when the storage does not answer; maybe while the caller iterates.
        """
        given: set[str] = set()
        try:
            if self.load():
                orders = [by_status(status) for status in written_as(statuses)]
                for _, listed in self.merge(orders, reverse=True):
                    if listed.status in statuses:
                        given.add(listed.row.segment)
                        yield listed
                return
        except DataLoadError as exc:
            self.warn_or_raise(exc)
        for listed in self.list_all():
            if listed.status in statuses and listed.row.segment not in given:
                yield listed

    def held_by(self, manager_ids: Collection[str]) -> list[str]:
        """Ids of the workflows that these managers hold, or held when they died.

        Sorted by id, those that wait or waited for a slot last.
        """
        held = [
            listed.row
            for listed in self.find((*_ACTIVE, WorkflowStatus.RESUMABLE))
            if listed.row.status.is_active and listed.row.manager_id in manager_ids
        ]
        held.sort(key=lambda row: (row.status is WorkflowStatus.PENDING, row.workflow_id))
        return [row.workflow_id for row in held]

    def find_ended(
        self, statuses: Collection[WorkflowStatus], *, before: float
    ) -> Iterator[Listed]:
        """As :meth:`find`, of those whose last activity came before a time. Others may be among them.

        :param before: seconds since the epoch.
        """
        if before == math.inf or not self.load():
            yield from self.find(statuses)
            return
        high = time_key(before)
        try:
            for status in written_as(statuses):
                is_active = status.is_active
                found = self.scan(by_status(status) if is_active else by_end(status), high=high)
                yield from (listed for listed in found if listed.status in statuses)
        except DataLoadError as exc:
            self.warn_or_raise(exc)
            yield from self.find(statuses)

    def list_all(self) -> Iterator[Listed]:
        """All workflows from a listing of all statuses, as their names tell: the slow way."""
        for workflow_id, status, key in self._reader.list_workflows(self._report):
            yield Listed(row=row_of_name(key, workflow_id), status=status, has_times=False)

    def list_names(self) -> Iterator[Listed]:
        """The names of all status documents, read or believed or not; holds none of them.

        A workflow comes once more for a status that was replaced, and a long id as its segment.
        """
        for key in self.store.iter_names(self._report):
            if key.segment not in self._held.rows:
                row = row_of_name(key)
                yield Listed(row=row, status=self._status_of(row), has_times=False)
        yield from map(self._as_read, self._held.rows.values())

    def read(self, found: Sequence[Listed]) -> list[Listed]:
        """The same as their status documents have them; without those that are deleted by now.

        One whose document can't be read stays as its name tells. Each takes a listing and a read.
        """
        named = {listed.row.segment: listed for listed in found}
        stored = [segment for segment in named if segment not in self._held.rows]
        rows = self._rows.read(stored, instead=lambda segment: named[segment].row)
        rows |= {segment: named[segment].row for segment in named if segment not in rows}
        return [
            named[segment] if row is named[segment].row else self._as_read(row)
            for segment, row in rows.items()
            if row is not None
        ]

    def get(self, segment: str) -> Listed | None:
        """One workflow by :func:`quote_id` of its id, None for an unknown one."""
        if segment in self._newer:
            row = self._newer[segment]
        elif self._index.version:
            row = self._index.get(segment)
        else:
            row = self._rows.read([segment], instead=_none)[segment]
        return None if row is None or row.status is WorkflowStatus.NONE else self._honest(row)

    @property
    def version(self) -> int:
        """Of the index; 0 without one."""
        return self._index.version

    def tells_since(self, version: int) -> bool:
        """True if the index has all that came in after a version. Not if it was made anew, or has forgotten more."""
        return self._index.told_since <= version <= self._index.version

    def changed_since(self, version: int) -> set[str]:
        """The segments of workflows that may have ended since a version of the index.

        What came into the index since, as far as it tells that, what stands in change logs, and what has lost its manager.

        :raises StorageError: when the storage does not answer, or the index is damaged.
        """
        found = set(self._newer)
        found.update(self._index.came_since(version))
        lost = [
            row
            for status in _ACTIVE
            for _, row in self._written(by_status(status), "", "", reverse=False)
            if self._status_of(row) is not row.status
        ]
        self._read_lost(lost)
        for row in lost:
            listed = self._honest(row)
            if listed is not None and not listed.status.is_active:
                found.add(row.segment)
        return found

    def count_created(self, since: float) -> Counter[tuple[WorkflowStatus, str]]:
        """How many workflows were created since a time, by the status that was written, active ones by manager.

        Reads a few nodes, and the rows of what stands in change logs.

        :param since: seconds since the epoch.
        """
        first = BY_CREATION + time_key(since)
        counts = self._index.count(first, None)
        for segment, row in self._newer.items():
            before = _indexed(self._index, segment, row)
            for one, number in ((before, -1), (row, 1)):
                if one is not None and creation_key(one) >= first:
                    counts[one.status, one.manager_id if one.status.is_active else ""] += number
        return counts

    def warn_or_raise(self, problem: DataLoadError) -> None:
        """Return where the index is damaged, so that the caller has to read statuses instead."""
        if problem.is_transient:
            raise problem
        log.warning(
            "Storage %s: a list reads all statuses, because a part of its index or a change log can't be read. "
            "If this goes on, %srun `rayworkflow reindex`. %s",
            shown(self.store.bytes.uri),
            _SAME_KEY if isinstance(problem, UntrustedDataError) else "",
            problem,
        )

    def _is_complete(self, writers: set[str]) -> bool:
        """False if a manager that lives has no change log."""
        for manager_id in self.store.leases.list_names():
            if manager_id not in writers and self.look.is_alive(manager_id):
                log.warning("Manager %s has no change log: all statuses are listed", manager_id)
                return False
        return True

    def _honest(self, row: IndexRow) -> Listed | None:
        status = self._status_of(row)
        if status is row.status:
            return Listed(row=row, status=status)
        # Its last word may have come after the index, or its log, was written.
        self._read_lost([row])
        now = self._read_again[row.segment]
        return None if now is None else self._as_read(now)

    def _read_lost(self, rows: Iterable[IndexRow]) -> None:
        """Read the status documents of workflows whose manager is gone, several at once; each document once."""
        wanted = {row.segment for row in rows} - self._read_again.keys()
        if wanted:
            self._read_again |= self._rows.read(sorted(wanted), instead=_none)

    def _as_read(self, row: IndexRow) -> Listed:
        return Listed(row=row, status=self._status_of(row))

    def _status_of(self, row: IndexRow) -> WorkflowStatus:
        if self._held.has_dropped(row):
            return WorkflowStatus.RESUMABLE
        return self.look.of(row.status, row.manager_id)


def _read_logs(store: WorkflowStore, reader: RowReader, report: Report) -> list[ChangeLog]:
    def read(writer: str) -> ChangeLog | None:
        try:
            return store.changes.read(writer, only_untaken=True)
        except KeyNotFoundError:
            return None  # taken over since the listing: the index is read later

    found = reader.each(read, store.changes.writers(report))
    return [one for one in found if one is not None]


def _indexed(index: LatestIndex, segment: str, row: IndexRow | None) -> IndexRow | None:
    """What an index has of a workflow that a change log knows better.

    :param row: what the change log has, None for a deleted one.
    """
    if row is None:
        return index.get(segment)
    # By its creation: the rows of one day lie together.
    found = index.get_by_creation(row)
    # A restart has given it another creation. A workflow of the first epoch is new.
    return index.get(segment) if found is None and row.epoch > 1 else found


def _settled(
    logs: Sequence[ChangeLog], index: LatestIndex, reader: RowReader
) -> dict[str, IndexRow | None]:
    """What counts of each workflow in the change logs, by segment; None for a deleted one."""
    found: dict[str, list[tuple[int, IndexRow | None]]] = {}
    for changed in logs:
        for change in changed.untaken:
            found.setdefault(change.segment, []).append((changed.version, change.row))
    since = min((version for rows in found.values() for version, _ in rows), default=None)
    later = {} if since is None else index.came_since(since)
    settled: dict[str, IndexRow | None] = {}
    unsettled = []
    for segment, rows in found.items():
        version, row = rows[0]
        is_told = index.told_since <= version <= index.version
        came = later.get(segment, ())
        if len(rows) > 1 or row is None or not (is_told and is_newer(row, version, came)):
            unsettled.append(segment)
        else:
            settled[segment] = None if row.status is WorkflowStatus.NONE else row
    return settled | reader.read(unsettled, instead=_none)


def _none(_: str) -> None:
    """Workflows whose documents can't be read are left out."""


def _key_of(item: tuple[str, object]) -> str:
    return item[0]
