"""Who changes a workflow's status says so in a change log: before, and with what it wrote after."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol

from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.storage.change_logs import Change, ChangeLog, ChangeLogs
from airflow_provider_rayworkflow.workflow.storage.index import Index
from airflow_provider_rayworkflow.workflow.storage.leases import since_boot

log = get_logger(__name__)

_VISITOR = "visitor-"
# A log that stays as it is for ten minutes counts as left (`LeftLogTimes`).
_WRITTEN_ANEW_S = 60.0


class ChangeNotes(Protocol):
    """Where the changes of one writer are noted."""

    def changing(self, segments: Collection[str]) -> AbstractContextManager[None]:
        """While this lasts, the statuses of these workflows may change. Blocks until that is durable.

        :param segments: :func:`quote_id` of the ids.
        :raises StorageError: when that can't be written: then nothing may be changed.
        """

    def wrote(self, row: IndexRow) -> None:
        """A workflow's status was written, or the workflow deleted, inside of :meth:`changing`."""


def new_visitor_id() -> str:
    """A name for a writer that holds no lease: its claims last as long as it writes."""
    return f"{_VISITOR}{uuid.uuid4().hex}"


def is_visitor(writer: str) -> bool:
    """True for a name of :func:`new_visitor_id`."""
    return writer.startswith(_VISITOR)


class VisitorNotes:
    """The notes of processes that act without a manager: one change log for each action.

    An action inside of another one is a part of it, also in threads that go on in a copy of its context: each part
    of one that takes long says that it is still under way.

    :param elapsed: seconds that never jump.
    """

    def __init__(
        self, logs: ChangeLogs, index: Index, elapsed: Callable[[], float] = since_boot
    ) -> None:
        self._logs = logs
        self._index = index
        self._elapsed = elapsed

    @contextmanager
    def changing(self, segments: Collection[str]) -> Iterator[None]:
        outer = self._action_now()
        action = outer or _Action(self, self._logs, self._index, self._elapsed)
        action.announce(segments)
        before = _ACTION.set(action)
        try:
            yield
        except BaseException:
            action.has_failed = True
            raise
        finally:
            _ACTION.reset(before)
            if outer is None:
                action.end()

    def wrote(self, row: IndexRow) -> None:
        action = self._action_now()
        if action is None:
            raise RuntimeError("A status was written that was not announced.")
        action.wrote(row)

    def _action_now(self) -> _Action | None:
        action = _ACTION.get()
        return action if action is not None and action.notes is self else None


class _Action:
    """One action with its log. Several threads may do parts of it.

    :ivar notes: that it is of.
    :ivar has_failed: a part of it has raised: a write whose answer is missing may come late.
    """

    def __init__(
        self,
        notes: VisitorNotes,
        logs: ChangeLogs,
        index: Index,
        elapsed: Callable[[], float],
    ) -> None:
        self.notes = notes
        self._logs = logs
        self._elapsed = elapsed
        # Also while the log is written: an earlier state of it must not come last.
        self._lock = threading.Lock()
        self._version = index.last_version()
        self._writer = new_visitor_id()
        self._changes: dict[str, Change] = {}
        self._seq = 0
        self._written_at = elapsed()
        self.has_failed = False

    def announce(self, segments: Collection[str]) -> None:
        with self._lock:
            new = [segment for segment in segments if not self._is_look(segment)]
            for segment in new:
                self._add(segment, None)
            if new or (self._changes and self._elapsed() - self._written_at >= _WRITTEN_ANEW_S):
                self._seq += 1  # so that it is another one
                self._logs.write(self._log(is_done=False))
                self._written_at = self._elapsed()

    def _is_look(self, segment: str) -> bool:
        known = self._changes.get(segment)
        return known is not None and known.row is None

    def wrote(self, row: IndexRow) -> None:
        with self._lock:
            self._add(row.segment, row)

    def end(self) -> None:
        if not self._changes:
            return
        # Else the log stays, and has the statuses read, until it counts as left.
        has_all_rows = all(change.row is not None for change in self._changes.values())
        try:
            self._logs.write(self._log(is_done=has_all_rows or not self.has_failed))
        except StorageError as exc:
            # What was announced stands there: readers look at the statuses themselves.
            log.warning("The end of a change can't be noted: %s", exc)

    def _add(self, segment: str, row: IndexRow | None) -> None:
        self._seq += 1
        self._changes.pop(segment, None)
        self._changes[segment] = Change(seq=self._seq, segment=segment, row=row)

    def _log(self, *, is_done: bool) -> ChangeLog:
        return ChangeLog(
            writer=self._writer,
            changes=tuple(self._changes.values()),
            seq=self._seq,
            version=self._version,
            is_done=is_done,
        )


_ACTION: ContextVar[_Action | None] = ContextVar("action", default=None)
