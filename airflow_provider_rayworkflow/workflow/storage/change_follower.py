"""What is new in the change logs, for readers that look again and again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_rayworkflow.workflow.exceptions import KeyNotFoundError, StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.storage.at_once import map_at_once
from airflow_provider_rayworkflow.workflow.storage.change_logs import (
    KEPT_S,
    Change,
    ChangeLog,
    ChangeLogs,
)
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

#: Two looks that are further apart may have missed a log that came and went.
LATE_S = KEPT_S / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """What the change logs say since the look before.

    :ivar changes: of all workflows; those of one writer in their order.
    :ivar is_whole: False if there may have been changes that are not among them.
    :ivar incomplete: the writers that made such changes, as far as that is known, each with the segments of
        which the latest change is among :attr:`changes`.
    """

    changes: Sequence[Change]
    is_whole: bool
    incomplete: Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class _LookRow:
    seq: int
    since: float


@dataclass(kw_only=True, slots=True)
class _Followed:
    """What is known of one log.

    :ivar looks: its look rows by segment.
    """

    seq: int = 0
    size: int = -1
    is_done: bool = False
    is_readable: bool = True
    looks: dict[str, _LookRow] = field(default_factory=dict)

    @property
    def is_at_end(self) -> bool:
        """True if it was read to its end: nothing will come any more."""
        return self.is_done and self.is_readable

    @property
    def least_seq(self) -> int:
        """What has to be read stands behind this one."""
        return min([self.seq, *(look.seq - 1 for look in self.looks.values())])

    def note_looks(self, changes: Sequence[Change], now: float) -> dict[str, _LookRow]:
        """Note the look rows that a log has now; returns those without a later change that it had."""
        known_looks, self.looks = self.looks, {}
        for change in changes:
            known = known_looks.pop(change.segment, None)
            if change.row is None:
                if known is None or known.seq != change.seq:
                    known = _LookRow(change.seq, now)
                self.looks[change.segment] = known
        return known_looks


_NEW = _Followed()


class ChangeFollower:
    """Reads change logs, and knows how far it has read each of them.

    :param clock: seconds that never jump.
    """

    def __init__(self, store: WorkflowStore, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._followed: dict[str, _Followed] = {}
        self._followed_at: float | None = None
        self.use(store)

    def use(self, store: WorkflowStore) -> None:
        """Go on with another way to the same storage."""
        self._bytes = store.bytes
        self._logs = ChangeLogs(store.bytes, signing=store.signing)

    def follow(self) -> News:
        """What is new. One listing, and a read for each log that may have grown.

        A log that can't be read has no news, and is logged once.

        :raises StorageError: when the logs can't be listed, or one can't be read just now. Then the
            next call gives these news, too.
        """
        now = self._clock()
        sizes = self._logs.writers()
        due = [writer for writer, size in sizes.items() if not self._has_read(writer, size)]
        found = map_at_once(self._bytes, self._read, due)
        # From here on nothing fails: what is noted as read has been given out.
        is_late = self._followed_at is not None and now - self._followed_at > LATE_S
        self._followed_at = now
        incomplete: dict[str, Collection[str]] = {}
        for writer in [writer for writer in self._followed if writer not in sizes]:
            self._forget(writer, incomplete)
        changes: list[Change] = []
        for writer, read in zip(due, found, strict=True):
            changes += self._take(writer, read, now, incomplete)
        is_whole = not incomplete and not is_late
        return News(changes=changes, is_whole=is_whole, incomplete=incomplete)

    @property
    def looks(self) -> Mapping[str, float]:
        """The segments of which a look row is the latest that a log says, and since when."""
        return {
            segment: look.since
            for followed in self._followed.values()
            for segment, look in followed.looks.items()
        }

    @property
    def has_unreadable(self) -> bool:
        """True while one of the logs can't be read."""
        return not all(followed.is_readable for followed in self._followed.values())

    def follows(self, writer: str) -> bool:
        """True if the writer's changes can be seen: it has a log that can be read."""
        followed = self._followed.get(writer)
        return followed is not None and followed.is_readable

    def _has_read(self, writer: str, size: int) -> bool:
        followed = self._followed.get(writer)
        return followed is not None and followed.is_at_end and followed.size == size

    def _read(self, writer: str) -> ChangeLog | StorageError:
        followed = self._followed.get(writer, _NEW)
        try:
            # Its look rows are read again each time: one may leave the log without a row of its own.
            found = self._logs.read(writer, since=followed.least_seq)
            has_begun_anew = found.seq < followed.seq
            return self._logs.read(writer) if has_begun_anew else found
        except StorageError as exc:
            if exc.is_transient:
                raise
            return exc

    def _take(
        self,
        writer: str,
        found: ChangeLog | StorageError,
        now: float,
        incomplete: dict[str, Collection[str]],
    ) -> Sequence[Change]:
        """Note what a log says; returns what is new."""
        if isinstance(found, KeyNotFoundError):
            self._forget(writer, incomplete)
            return ()
        followed = self._followed.setdefault(writer, _Followed())
        if isinstance(found, StorageError):
            if followed.is_readable:
                followed.is_readable = False
                incomplete[writer] = ()
                log.warning("What %s changes is found slowly: %s", writer, found)
            return ()
        known_seq = followed.seq
        has_begun_anew = found.seq < known_seq
        if has_begun_anew or found.forgotten > known_seq:
            known_seq = 0
            incomplete[writer] = {change.segment for change in found.changes}
        known_looks = followed.note_looks(found.changes, now)
        followed.seq, followed.size = found.seq, found.size
        followed.is_done, followed.is_readable = found.is_done, True
        # What is not there any more has to be read as well, once.
        gone = [Change(seq=known.seq, segment=segment) for segment, known in known_looks.items()]
        return [*gone, *(change for change in found.changes if change.seq > known_seq)]

    def _forget(self, writer: str, incomplete: dict[str, Collection[str]]) -> None:
        """A log is gone."""
        followed = self._followed.pop(writer, None)
        if followed is None or not followed.is_at_end:
            incomplete[writer] = ()
