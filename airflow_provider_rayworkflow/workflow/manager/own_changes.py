"""The change log of one manager: what it begins and what becomes of it, for all who read the storage."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

from airflow_provider_rayworkflow.workflow.exceptions import said_by
from airflow_provider_rayworkflow.workflow.execution.writes import Writes
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.model.index_row import IndexRow
from airflow_provider_rayworkflow.workflow.storage.change_logs import (
    Change,
    ChangeLog,
    PackedChanges,
    change_log_put,
)
from airflow_provider_rayworkflow.workflow.storage.leases import since_boot
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)

_RETRY_S = 2.0
# A start waits so many times as long for others as what else no caller awaits.
_PATIENCE = 10
# A thread that waits for the loop looks so often whether there is still one.
_LOOK_S = 1.0
#: How long changes that stand in the index stay in the log, for those who watch it, and how many of them.
ROWS_KEPT_S = 60.0
MOST_ROWS_KEPT = 2000


@dataclass(frozen=True, slots=True)
class _Noted:
    """A change, and since when it is noted."""

    change: Change
    since: float


class OwnChanges:
    """The changes of one manager. It belongs to one event loop; :meth:`changing` is for other threads.

    :param store: where the log is kept.
    :param writes: of the manager.
    :param manager_id: whose log it is.
    :param clock: seconds that never jump.
    :param gather_s: what no caller awaits waits for others so long. A poll looks once a second.
    :ivar is_full: set while there are many changes that do not stand in the index.
    """

    def __init__(
        self,
        store: WorkflowStore,
        writes: Writes,
        *,
        manager_id: str,
        clock: Callable[[], float] = since_boot,
        gather_s: float = 0.2,
    ) -> None:
        self._clock = clock
        self._gather_s = gather_s
        self._signing = store.signing
        self._writes = writes
        self._manager_id = manager_id
        self._changes: dict[str, _Noted] = {}
        self._packed = PackedChanges()
        self._seq = self._taken = self._forgotten = 0
        self._version = 0
        self._open: Counter[str] = Counter()
        self._is_done = self._is_dirty = self._has_unwritten = False
        self._waiting: list[asyncio.Future[None]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._now = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_full = asyncio.Event()

    async def open(self, version: int) -> None:
        """Write the log, empty as it is. Before the manager's lease: who finds that finds the log.

        :param version: of the index.
        :raises StorageError: when it can't be written.
        """
        self._loop = asyncio.get_running_loop()
        self._version = version
        await self._written()

    async def close(self) -> None:
        """Write what is noted; nothing comes after that but what has begun, after whose end the log is done."""
        self._is_done = True
        await self._written()

    def begin(self, segment: str) -> asyncio.Future[None]:
        """Note that a workflow's status may change, until :meth:`end`.

        :param segment: :func:`quote_id` of its id.
        :returns: done when that is durable; with an error when it can't be: then nothing may be changed.
        """
        self._open[segment] += 1
        # With a number of its own: an earlier look row may be on the way into the index.
        self._add(segment, None)
        return self._written()

    def end(self, segment: str) -> None:
        """For each :meth:`begin`, also one that has failed: what was to be written is, and noted.

        Where nothing was noted, it may be written all the same. Then the look row stays, and is written once
        more: a log that was left alone for too long has been taken over, and deleted.
        """
        self._open[segment] -= 1
        if not self._open[segment]:
            del self._open[segment]
        if self._is_done or self._is_look(segment):
            self._flush()

    def note(self, row: IndexRow, *, has_begun: bool = False) -> None:
        """Note how a workflow's status was written. It is durable soon after.

        While another call is about to change the status as well, the look row stays.

        :param has_begun: the caller has called :meth:`begin`.
        """
        self._note(row, has_begun=has_begun)
        self._flush()

    def note_start(self, row: IndexRow) -> None:
        """Note the status with which a run has begun, after :meth:`begin`.

        The look row is there until this is durable, which is with the next change: often that is the run's end.
        """
        self._note(row, has_begun=True)
        if self._later is None:
            wait_s = _PATIENCE * self._gather_s
            self._later = asyncio.get_running_loop().call_later(wait_s, self._flush_later)

    def doubt(self, segment: str) -> None:
        """Note that a workflow may stand otherwise than was noted: who asks reads its status."""
        self._add(segment, None)
        self._flush()

    async def note_end(self, row: IndexRow) -> None:
        """Note how a workflow ended. Returns when that is durable: a list that is asked next has it.

        Where it can't be written yet, that is tried again.
        """
        self._note(row, has_begun=False)
        await asyncio.wait([self._written()])

    def write_anew(self) -> None:
        """Write the log soon, as it is: the one that is stored may be lost, or damaged."""
        self._flush()

    @contextmanager
    def changing(self, segments: Collection[str]) -> Iterator[None]:
        """As :class:`ChangeNotes` has it, for calls in threads.

        In one of its own it is a part of that, also in a thread that goes on in a copy of its context.
        """
        writer, outer = _ANNOUNCED.get()
        outer = outer if writer is self else frozenset()
        new = [one for one in segments if one not in outer or not self._is_look(one)]

        def begin_all() -> Iterable[asyncio.Future[None]]:
            return [self.begin(segment) for segment in new]

        def end_all() -> Iterable[asyncio.Future[None]]:
            for segment in new:
                self.end(segment)
            return ()

        if not new:
            yield
            return
        before = _ANNOUNCED.set((self, outer.union(new)))
        try:
            self._in_loop(begin_all)
            yield
        finally:
            _ANNOUNCED.reset(before)
            self._in_loop(end_all)

    def wrote(self, row: IndexRow) -> None:
        """As :class:`ChangeNotes` has it, for calls in threads."""

        def note() -> Iterable[asyncio.Future[None]]:
            self.note(row, has_begun=True)
            return ()

        self._in_loop(note)

    @property
    def untaken(self) -> list[Change]:
        """What does not stand in the index yet, in the order in which it came."""
        changes = [noted.change for noted in self._changes.values()]
        return [change for change in changes if change.seq > self._taken]

    @property
    def version(self) -> int:
        """Of the index, when none of :attr:`untaken` was made yet."""
        return self._version

    def is_open(self, segment: str) -> bool:
        """True if a workflow's status may be about to be written, or has been and is not noted yet."""
        return segment in self._open

    def took(self, changes: Collection[Change], *, before: int, after: int) -> None:
        """These stand in the index now. Those that have done so for long leave the log.

        :param before: the version of the index before :attr:`untaken` was asked for them.
        :param after: the version since.
        """
        last = max((change.seq for change in changes), default=0)
        taken = {change.seq for change in changes}
        for change in self.untaken:
            if change.seq <= last and change.seq not in taken:
                self._add(change.segment, change.row)  # behind those that are taken
        self._taken = max(self._taken, last)
        # All that is noted from now on is made later: its readers need not look what came in by then.
        version, self._version = self._version, before if self.untaken else after
        self._forget()
        if changes or version != self._version:
            self._flush()

    def relay(self, rows: Collection[IndexRow]) -> None:
        """Tell who watches this log of changes that others made, and that stand in the index.

        For calls in threads. Blocks until that is durable.

        :raises StorageError: when it can't be written.
        """

        def relay() -> Iterable[asyncio.Future[None]]:
            for row in rows:
                known = self._changes.get(row.segment)
                is_untaken = known is not None and known.change.seq > self._taken
                # Of what the index does not have yet it is not known which is newer: its readers look.
                is_news = known is not None and is_untaken and known.change.row != row
                self._add(row.segment, None if is_news else row)
            return [self._written()]

        self._in_loop(relay)

    def _forget(self) -> None:
        """Drop what stands in the index and was to be seen for long enough."""
        now = self._clock()
        kept = [kept for kept in self._changes.values() if kept.change.seq <= self._taken]
        for number, one in enumerate(kept, start=1):
            is_seen = now - one.since >= ROWS_KEPT_S or len(kept) - number >= MOST_ROWS_KEPT
            if one.change.row is None or is_seen:
                self._forgotten = max(self._forgotten, one.change.seq)
                del self._changes[one.change.segment]
                self._packed.remove(one.change)

    def _is_look(self, segment: str) -> bool:
        known = self._changes.get(segment)
        return known is not None and known.change.row is None

    def _in_loop(self, call: Callable[[], Iterable[asyncio.Future[None]]]) -> None:
        if self._loop is None:
            raise RuntimeError("The change log is not open.")
        _call_in(self._loop, call)

    def _note(self, row: IndexRow, *, has_begun: bool) -> None:
        is_shared = self._open.get(row.segment, 0) > has_begun
        self._add(row.segment, None if is_shared else row)

    def _add(self, segment: str, row: IndexRow | None) -> None:
        self._seq += 1
        self._has_unwritten = True
        change = Change(seq=self._seq, segment=segment, row=row)
        if (earlier := self._changes.pop(segment, None)) is not None:
            self._packed.remove(earlier.change)
        self._changes[segment] = _Noted(change, self._clock())
        self._packed.add(change)
        if self._seq - self._taken >= _MANY:
            self.is_full.set()

    def _written(self) -> asyncio.Future[None]:
        """Done when all that is noted now is durable."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(written)
        self._flush()
        self._now.set()
        written.add_done_callback(_heard)
        return written

    def _flush(self) -> None:
        self._is_dirty = True
        if self._flushing is None:
            self._flushing = asyncio.ensure_future(self._flush_all())

    def _flush_later(self) -> None:
        self._later = None
        if self._has_unwritten and not self._is_done:
            self._flush()

    async def _flush_all(self) -> None:
        pause_s = self._gather_s
        try:
            while self._is_dirty:
                if not self._waiting:
                    self._now.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await self._now.wait()
                if error := await self._write():
                    log.warning("The manager's change log can't be written: %s", said_by(error))
                self._is_dirty = self._is_dirty or error is not None
                pause_s = _RETRY_S if error else self._gather_s
        except BaseException as exc:  # the next change tries again; those who wait hear of it now
            waiting, self._waiting = self._waiting, []
            _tell(waiting, exc)
            raise
        finally:
            self._flushing = None

    async def _write(self) -> Exception | None:
        """Write the log as it is now; returns what went wrong, which those who wait are told."""
        self._is_dirty = self._has_unwritten = False
        waiting, self._waiting = self._waiting, []
        changed = ChangeLog(
            writer=self._manager_id,
            seq=self._seq,
            forgotten=self._forgotten,
            taken=self._taken,
            version=self._version,
            is_done=self._is_done and not self._open,
        )
        blocks = self._packed.blocks()
        try:
            await self._writes.put(partial(change_log_put, changed, blocks, signing=self._signing))
        except Exception as exc:  # the next write has it all
            _tell(waiting, exc)
            return exc
        except BaseException as exc:
            _tell(waiting, exc)
            raise
        _tell(waiting, None)
        return None


def _tell(waiting: Collection[asyncio.Future[None]], error: BaseException | None) -> None:
    for written in waiting:
        if not written.done():
            written.set_exception(error) if error else written.set_result(None)


def _call_in(
    loop: asyncio.AbstractEventLoop, call: Callable[[], Iterable[asyncio.Future[None]]]
) -> None:
    """Call this in the event loop, and wait for what it returns. Blocks."""
    if _is_running_here(loop):
        raise RuntimeError("Call this in a thread: it waits for the event loop.")
    called: Future[None] = Future()

    def tell(done: asyncio.Future[list[None]]) -> None:
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        called.set_exception(error) if error else called.set_result(None)

    def begin() -> None:
        try:
            asyncio.gather(*call()).add_done_callback(tell)
        except BaseException as exc:
            called.set_exception(exc)
            raise

    loop.call_soon_threadsafe(begin)  # an error where it is closed
    while True:
        try:
            return called.result(_LOOK_S)
        except TimeoutError:
            if called.done():
                raise
            if loop.is_closed():
                raise RuntimeError("The manager has ended.") from None


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _heard(written: asyncio.Future[None]) -> None:
    """An error that is not waited for any more is in the log already."""
    if not written.cancelled():
        written.exception()


#: The writer whose calls are under way in this context, and what they have announced.
_ANNOUNCED: ContextVar[tuple[OwnChanges | None, frozenset[str]]] = ContextVar(
    "announced", default=(None, frozenset())
)
#: With so many changes that do not stand in the index the log is taken over at once.
_MANY = 400
