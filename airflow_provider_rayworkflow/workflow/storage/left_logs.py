"""Change logs that their writers have left: of managers that are gone, and of visitors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from airflow_provider_rayworkflow.workflow.exceptions import (
    CorruptedDataError,
    KeyNotFoundError,
    UntrustedDataError,
)
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.storage.change_logs import KEPT_S, Change, ChangeLog
from airflow_provider_rayworkflow.workflow.storage.change_notes import is_visitor, new_visitor_id
from airflow_provider_rayworkflow.workflow.storage.index_rebuild import rebuild
from airflow_provider_rayworkflow.workflow.storage.index_updates import take_over, take_over_active
from airflow_provider_rayworkflow.workflow.storage.leases import LeaseWatch, since_boot
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftLogTimes:
    """How long a log must stay as it is until its writer counts as gone, in seconds.

    :ivar manager_s: of a manager that has no lease: it may be about to take one.
    :ivar visitor_s: of a visitor, which has none.
    :ivar hints_s: of one that has only what stands in the index.
    :ivar old_hints_s: the same by the clocks of its writer and of the caller, which may have begun to look just now.
        They may differ by some minutes.
    """

    manager_s: float = 60.0
    visitor_s: float = 600.0
    hints_s: float = KEPT_S
    old_hints_s: float = 3600.0


@dataclass(slots=True)
class _Seen:
    """A log as it was found, and since when it is so.

    :ivar size: in bytes; 0 for one that could not be read.
    """

    seq: int
    size: int
    since: float


class LeftLogs:
    """Takes over into the index what others have left, and deletes their logs.

    A writer that was only held up writes its whole log again. While it does what takes long, it writes it now and then.

    :param own: the caller's own writer, whose log it leaves alone; ``""`` for none.
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
        # What others sign with another key, or not at all, is not believed: it tells where to look.
        self._unchecked = WorkflowStore(store.bytes, signing=SigningKeys())
        self._unchecked.leases.watch = LeaseWatch(store.leases.watch.clock)
        self._own = own
        self._elapsed = elapsed
        self._times = times
        self._tell = tell
        self._seen: dict[str, _Seen] = {}
        #: True if the writer's own log was missing at the last look.
        self.misses_own = False

    def take_over(self, now: float) -> None:
        """Take over all logs that are left. Blocks. One listing, and what there is to do.

        :param now: seconds since the epoch.
        :raises StorageError: when the storage does not answer, or the index is damaged.
        """
        writers = self._store.changes.writers()
        self.misses_own = bool(self._own) and self._own not in writers
        self._seen = {writer: seen for writer, seen in self._seen.items() if writer in writers}
        left = [
            changed
            for writer in writers
            if writer != self._own and (changed := self._read_left(writer, now)) is not None
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
        if rows and self._tell is not None:
            self._tell(rows.values())
        elif rows:
            self._leave_hints(rows.values(), now)
        for changed in left:
            if self._is_as_it_was(changed):
                self._store.changes.delete(changed.writer)

    def has_strangers(self) -> bool:
        """True if others are at work, or may be, whose change logs are not signed with a key of this process."""
        return any(
            writer != self._own and self._is_stranger(writer)
            for writer in self._store.changes.writers()
        )

    def _is_stranger(self, writer: str) -> bool:
        try:
            self._store.changes.read(writer)
        except UntrustedDataError:
            with suppress(KeyNotFoundError, CorruptedDataError):
                changed = self._unchecked.changes.read(writer)
                return not changed.is_done and not self._is_gone(changed, self._unchecked)
        except (KeyNotFoundError, CorruptedDataError):
            pass
        return False

    def _is_as_it_was(self, changed: ChangeLog) -> bool:
        """False for one whose writer has only been held up, and has written it again: that is taken over later."""
        try:
            now = self._store.changes.read(changed.writer, since=changed.seq)
        except UntrustedDataError:
            now = self._unchecked.changes.read(changed.writer, since=changed.seq)
        except KeyNotFoundError:
            return False
        except CorruptedDataError:
            return changed.size == 0
        return (now.seq, now.size) == (changed.seq, changed.size)

    def _leave_hints(self, rows: Collection[IndexRow], now: float) -> None:
        changes = [
            Change(seq=seq, segment=row.segment, row=row) for seq, row in enumerate(rows, start=1)
        ]
        last = len(changes)
        hints = ChangeLog(
            writer=new_visitor_id(),
            changes=changes,
            seq=last,
            taken=last,
            is_done=True,
            left_at=now,
        )
        self._store.changes.write(hints)

    def _read_left(self, writer: str, now: float) -> ChangeLog | None:
        """A log whose writer is gone; None for any other one."""
        try:
            changed = self._store.changes.read(writer)
        except KeyNotFoundError:
            return None
        except UntrustedDataError as exc:
            return self._read_unchecked(writer, exc)
        except CorruptedDataError as exc:
            changed = ChangeLog(writer=writer)
            if not self._is_gone(changed, self._store):
                return None
            log.warning("A change log is damaged, so the index is made anew: %s", exc)
            rebuild(self._store, now=now)
            return changed
        if changed.is_done:
            is_hint = is_visitor(writer) and not changed.untaken
            return changed if not is_hint or self._is_seen(changed, now) else None
        return _looks_of(changed) if self._is_gone(changed, self._store) else None

    def _read_unchecked(self, writer: str, problem: UntrustedDataError) -> ChangeLog | None:
        """A log that is not signed with a key of this process, and left: it says which statuses to read."""
        try:
            changed = self._unchecked.changes.read(writer)
        except (KeyNotFoundError, CorruptedDataError):
            changed = ChangeLog(writer=writer)
        if not changed.is_done and not self._is_gone(changed, self._unchecked):
            return None
        log.warning("Of a change log that was left, nothing is believed: %s", problem)
        return _looks_of(changed)

    def _is_seen(self, hints: ChangeLog, now: float) -> bool:
        """True if all who look again and again have read hints."""
        is_old = now - hints.left_at >= self._times.old_hints_s
        return is_old or self._unchanged_s(hints) >= self._times.hints_s

    def _unchanged_s(self, changed: ChangeLog) -> float:
        seen = self._seen.get(changed.writer)
        if seen is None or (seen.seq, seen.size) != (changed.seq, changed.size):
            seen = _Seen(changed.seq, changed.size, self._elapsed())
            self._seen[changed.writer] = seen
        return self._elapsed() - seen.since

    def _is_gone(self, changed: ChangeLog, store: WorkflowStore) -> bool:
        unchanged_s = self._unchanged_s(changed)
        if is_visitor(changed.writer):
            return unchanged_s >= self._times.visitor_s
        if not StatusReader(store).look().may_be_replaced(changed.writer):
            return False
        has_lease = store.leases.read(changed.writer) is not None
        return has_lease or unchanged_s >= self._times.manager_s


def _looks_of(changed: ChangeLog) -> ChangeLog:
    """Its look rows alone: what it was about to write, or wrote as the last, is not in the log."""
    return replace(
        changed, taken=0, changes=[replace(change, row=None) for change in changed.changes]
    )


def _together(logs: list[ChangeLog]) -> Iterator[Change]:
    """The changes of several logs: of a workflow in more than one of them, only that it has changed."""
    found: dict[str, Change] = {}
    for changed in logs:
        for change in changed.untaken:
            is_first = change.segment not in found
            found[change.segment] = change if is_first else replace(change, row=None)
    yield from found.values()
