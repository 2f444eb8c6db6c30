"""Change logs that their writers have left: of managers that are gone, and of visitors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from airflow_provider_rayworkflow.workflow.exceptions import CorruptedDataError, KeyNotFoundError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change, ChangeLog
from airflow_provider_rayworkflow.workflow.storage.change_notes import is_visitor, new_visitor_id
from airflow_provider_rayworkflow.workflow.storage.index_updates import (
    rebuild,
    take_over,
    take_over_active,
)
from airflow_provider_rayworkflow.workflow.storage.leases import since_boot
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftLogTimes:
    """How long a log must stay as it is until its writer counts as gone, in seconds.

    :ivar manager_s: of a manager that has no lease: it may be about to take one.
    :ivar visitor_s: of a visitor, which has none.
    :ivar hints_s: of one that has only what stands in the index.
    """

    manager_s: float = 60.0
    visitor_s: float = 600.0
    hints_s: float = 60.0


@dataclass(slots=True)
class _Seen:
    size: int
    since: float


class LeftLogs:
    """Takes over into the index what others have left, and deletes their logs.

    A writer that was only held up writes its whole log again.

    :param own: the writer whose log is its own business.
    :param elapsed: seconds that never jump.
    :param tell: tells those who watch workflows what the index has of them, before the logs are deleted, which
        they may not have read. By default that is a log of its own, which is deleted some time later.
    """

    def __init__(
        self,
        store: WorkflowStore,
        *,
        own: str = "",
        elapsed: Callable[[], float] = since_boot,
        times: LeftLogTimes = LeftLogTimes(),
        tell: Callable[[Collection[IndexRow]], None] | None = None,
    ) -> None:
        self._store = store
        self._reader = StatusReader(store)
        self._own = own
        self._elapsed = elapsed
        self._times = times
        self._tell = tell or self._leave_hints
        self._seen: dict[str, _Seen] = {}

    def take_over(self, now: float) -> None:
        """Take over all logs that are left. Blocks. One listing, and what there is to do.

        :param now: seconds since the epoch.
        :raises StorageError: when the storage does not answer, or the index is damaged.
        """
        writers = self._store.changes.writers()
        self._seen = {writer: seen for writer, seen in self._seen.items() if writer in writers}
        left = [
            changed
            for writer, size in writers.items()
            if writer != self._own and (changed := self._read_left(writer, size, now)) is not None
        ]
        if not left:
            return
        changes = list(_together(left))
        since = min(changed.version for changed in left)
        rows = take_over(self._store, changes, since=since, now=now) if changes else {}
        if rows is None:
            return  # there is no index yet
        for changed in left:
            if not is_visitor(changed.writer):
                rows |= take_over_active(self._store, changed.writer, now=now)
        if rows:
            self._tell(rows.values())
        for changed in left:
            self._store.changes.delete(changed.writer)

    def _leave_hints(self, rows: Collection[IndexRow]) -> None:
        changes = [
            Change(seq=seq, segment=row.segment, row=row) for seq, row in enumerate(rows, start=1)
        ]
        last = len(changes)
        self._store.changes.write(
            ChangeLog(writer=new_visitor_id(), changes=changes, seq=last, taken=last, is_done=True)
        )

    def _read_left(self, writer: str, size: int, now: float) -> ChangeLog | None:
        """A log whose writer is gone; None for any other one."""
        seen = self._seen.get(writer)
        if seen is None or seen.size != size:
            seen = self._seen[writer] = _Seen(size, self._elapsed())
        unchanged_s = self._elapsed() - seen.since
        try:
            changed = self._store.changes.read(writer)
        except KeyNotFoundError:
            return None
        except CorruptedDataError as exc:
            if not self._is_gone(writer, unchanged_s):
                return None
            log.warning("A change log is damaged, so the index is made anew: %s", exc)
            rebuild(self._store, now=now)
            return ChangeLog(writer=writer)
        if changed.is_done:
            is_hint = is_visitor(writer) and not changed.untaken
            return changed if not is_hint or unchanged_s >= self._times.hints_s else None
        if not self._is_gone(writer, unchanged_s):
            return None
        # What it was about to write, or wrote as the last, is not in the log.
        return replace(
            changed, taken=0, changes=[replace(change, row=None) for change in changed.changes]
        )

    def _is_gone(self, writer: str, unchanged_s: float) -> bool:
        if is_visitor(writer):
            return unchanged_s >= self._times.visitor_s
        if not self._reader.look().may_be_replaced(writer):
            return False
        has_lease = self._store.leases.read(writer) is not None
        return has_lease or unchanged_s >= self._times.manager_s


def _together(logs: list[ChangeLog]) -> Iterator[Change]:
    """The changes of several logs: of a workflow in more than one of them, only that it has changed."""
    found: dict[str, Change] = {}
    for changed in logs:
        for change in changed.untaken:
            is_first = change.segment not in found
            found[change.segment] = change if is_first else replace(change, row=None)
    yield from found.values()
