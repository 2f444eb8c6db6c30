"""How some workflows stand, asked again and again: costs what changes, however much is stored.

Change logs say whose status may have changed; the folder of its status documents says how it stands.
So nothing is shown that is not stored, and what a log says too late, or not at all, costs time only:

- A manager that dies between a status and its log stops renewing its lease. Before its workflow is
  shown as RESUMABLE, the status is read; then again every ten seconds, as late writes may arrive.
- A look row comes before the first status of a run: from then on the status is read at each look,
  until the log has its row.
- A log that forgot what was not read yet, that vanished before its end or can't be read: the statuses of
  its manager are read once, and those that no manager holds, and without a log then every ten seconds.
- Beyond that, the status that was read longest ago is read every 30 s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    KeyNotFoundError,
    StorageError,
)
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys
from airflow_provider_rayworkflow.workflow.storage.at_once import map_at_once
from airflow_provider_rayworkflow.workflow.storage.change_follower import ChangeFollower
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change
from airflow_provider_rayworkflow.workflow.storage.keys import StatusKey
from airflow_provider_rayworkflow.workflow.storage.leases import since_boot
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

#: By segment: the honest status with what is written, or why that can't be read. Nothing is stored
#: of a workflow that is missing.
Standings = dict[str, tuple[WorkflowStatus, StatusKey] | StorageError]

#: How many statuses are read at most for each second since the look before, besides those of
#: workflows that are watched anew.
READS_A_SECOND = 100
#: How often a status is read whose changes no log tells.
SLOW_S = 10.0
#: How long a status is read at each look while it is not what a log says.
_HASTE_S = 30.0
_CHECK_S = 30.0
_MAX_READS = 20


@dataclass(kw_only=True, slots=True, eq=False)
class _Watched:
    """What is known of one workflow.

    :ivar read_at: when its status was read; not yet at first.
    :ivar is_due: its status has to be read.
    :ivar row: what a log said of it last, while the status did not show that yet.
    :ivar loss: number of the loss of its owner (:attr:`StatusWatch._lost`) that was known before its status
        was read.
    """

    segment: str
    key: StatusKey | None = None
    problem: StorageError | None = None
    read_at: float = -math.inf
    is_due: bool = True
    row: IndexRow | None = None
    row_since: float = 0.0
    loss: int = 0

    @property
    def owner(self) -> str | None:
        """The manager that has to be alive for its status; None if it is not active."""
        return self.key.manager_id if self.key is not None and self.key.status.is_active else None

    def note(self, change: Change, now: float) -> None:
        """A log has a change of it."""
        row = change.row
        if row is not None and self.key is not None and _is_of(row, self.key):
            return
        self.row, self.row_since, self.is_due = row, now, True

    def found(self, key: StatusKey | None, *, read_at: float, loss: int) -> None:
        """Its status was read."""
        self.key, self.problem, self.read_at, self.loss = key, None, read_at, loss
        # Where a listing may be older than a log that was read before it (NFS), the next one tells.
        is_older = self.row is not None and _is_older(key, self.row)
        self.is_due = is_older and read_at - self.row_since < _HASTE_S
        if not self.is_due:
            self.row = None


class StatusWatch:
    """Looks at the statuses of some workflows, in one thread.

    A look costs a listing of the change logs, a read for each log that may have grown, a read of the
    lease of each manager that has one of the workflows, and a listing for each of them that changed.

    :param reader: a patient one.
    :param clock: seconds that never jump.
    :param check_s: how often the status is read that was read longest ago.
    """

    def __init__(
        self,
        reader: StatusReader,
        clock: Callable[[], float] = since_boot,
        *,
        check_s: float = _CHECK_S,
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._check_s = check_s
        self._changes = ChangeFollower(reader.store, clock)
        self._watched: dict[str, _Watched] = {}
        self._lost: dict[str, int] = {}
        self._losses = 0
        self._looked_at: float | None = None
        self._checked_at = -math.inf

    @property
    def store(self) -> WorkflowStore:
        return self._reader.store

    def use(self, reader: StatusReader) -> None:
        """Go on with another way to the same storage, and what is known of it."""
        reader.store.leases.watch = self.store.leases.watch
        self._reader = reader
        self._changes.use(reader.store)

    def look(self, segments: Collection[str]) -> Standings:
        """How these workflows stand; others are watched no longer.

        :param segments: of their ids, as :func:`.keys.quote_id` makes them.
        :raises StorageError: when the storage can't be read just now. What is known stays known.
        """
        now = self._clock()
        elapsed_s = 0.0 if self._looked_at is None else now - self._looked_at
        most = int(READS_A_SECOND * max(1.0, elapsed_s))
        self._watch_only(segments, now)
        self._note_changes(now)
        most -= self._read_some(self._find_due(now), most)
        self._judge_owners()
        # What a manager wrote before its end, and what others have done since, counts more than its end.
        self._read_some([one for one in self._watched.values() if self._is_news_of_loss(one)], most)
        self._looked_at = now
        return self._standings()

    def _watch_only(self, segments: Collection[str], now: float) -> None:
        if not self._watched:
            self._checked_at = now
        if self._watched.keys() != (wanted := set(segments)):
            for segment in self._watched.keys() - wanted:
                del self._watched[segment]
            for segment in wanted - self._watched.keys():
                self._watched[segment] = _Watched(segment=segment)

    def _note_changes(self, now: float) -> None:
        news = self._changes.follow()
        for change in news.changes:
            if (watched := self._watched.get(change.segment)) is not None:
                watched.note(change, now)
        if news.is_whole:
            return
        # Who runs a workflow is the only one to change it, while it is alive.
        for segment, watched in self._watched.items():
            owner = watched.owner
            told = news.incomplete.get(owner) if owner is not None else ()
            watched.is_due |= told is not None and segment not in told

    def _find_due(self, now: float) -> list[_Watched]:
        looks, are_logs_damaged = self._changes.looks, self._changes.has_unreadable
        slow = {owner for owner in self._owners() if self._is_slow(owner)}
        due = []
        for segment, watched in self._watched.items():
            is_old = now - watched.read_at >= SLOW_S
            if (
                watched.is_due
                or (segment in looks and (is_old or now - looks[segment] < _HASTE_S))
                or (is_old and watched.owner in slow)
                or (is_old and are_logs_damaged and watched.key is None)
            ):
                due.append(watched)
        if now - self._checked_at >= self._check_s:
            self._checked_at = now
            oldest = min(self._watched.values(), key=_by_read, default=None)
            if oldest is not None and oldest not in due:
                due.append(oldest)
        return due

    def _is_slow(self, owner: str) -> bool:
        return owner in self._lost or not self._changes.follows(owner)

    def _is_news_of_loss(self, watched: _Watched) -> bool:
        loss = self._loss_of(watched)
        return bool(loss) and loss != watched.loss

    def _loss_of(self, watched: _Watched) -> int:
        """The number of the loss of its owner; 0 while that is alive, or does not matter."""
        owner = watched.owner
        return 0 if owner is None else self._lost.get(owner, 0)

    def _owners(self) -> set[str]:
        return {owner for watched in self._watched.values() if (owner := watched.owner) is not None}

    def _judge_owners(self) -> None:
        look = self._reader.look()
        lost = {owner for owner in self._owners() if not look.is_alive(owner)}
        self._lost = {owner: loss for owner, loss in self._lost.items() if owner in lost}
        for owner in lost - self._lost.keys():
            self._losses += 1
            self._lost[owner] = self._losses

    def _read_some(self, due: list[_Watched], most: int) -> int:
        """Read those that are watched anew, and of the others those that were read longest ago.

        :returns: how many of the others.
        """
        new = [watched for watched in due if watched.read_at == -math.inf]
        others = [watched for watched in due if watched.read_at != -math.inf]
        others = sorted(others, key=_by_read)[: max(0, most)]
        map_at_once(self.store.bytes, self._read, new + others)
        return len(others)

    def _read(self, watched: _Watched) -> None:
        now = self._clock()
        try:
            key = _read_key(self.store, watched.segment)
        except StorageError as exc:
            if exc.is_transient:
                raise
            watched.key, watched.problem, watched.read_at = None, exc, now
            watched.is_due = True
            return
        loss = 0 if key is None else self._lost.get(key.manager_id, 0)
        watched.found(key, read_at=now, loss=loss)

    def _standings(self) -> Standings:
        standings: Standings = {}
        for segment, watched in self._watched.items():
            if watched.problem is not None:
                standings[segment] = watched.problem
            elif watched.key is not None:
                # While the status was not read since the loss of its owner, it may have ended before.
                loss = self._loss_of(watched)
                is_lost = bool(loss) and loss == watched.loss
                status = WorkflowStatus.RESUMABLE if is_lost else watched.key.status
                standings[segment] = (status, watched.key)
        return standings


def _read_key(store: WorkflowStore, segment: str) -> StatusKey | None:
    """The latest status; with a signing key, only if the document says the same."""
    for _ in range(_MAX_READS):
        key = store.latest_of_segment(segment)
        if key is None:
            return None
        try:
            store.believe(key)
        except KeyNotFoundError:
            continue  # replaced between the listing and the read
        return key
    raise CorruptedDataError(keys.status_folder_of(segment), "its documents keep vanishing")


def _by_read(watched: _Watched) -> float:
    return watched.read_at


def _is_of(row: IndexRow, key: StatusKey) -> bool:
    """True if the row is of the status with this name."""
    return (
        row.position == (key.epoch, key.number)
        and row.manager_id == key.manager_id
        and row.status is key.status
    )


def _is_older(key: StatusKey | None, row: IndexRow) -> bool:
    """True if the row is of something that came after the status with this name."""
    if row.status is WorkflowStatus.NONE:
        return key is not None
    return key is None or (key.epoch, key.number) < row.position
