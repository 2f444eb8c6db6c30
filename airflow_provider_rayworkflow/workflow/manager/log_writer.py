"""Collects what workers send of the logs of running workflows, and writes it in pieces.

Nothing here may block or fail a workflow: memory is bounded, what does not fit is left out with a
note that says so, and a storage that fails costs lines only. A workflow whose tasks print nothing
costs no request.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from airflow_provider_rayworkflow.workflow.exceptions import OwnershipLostError
from airflow_provider_rayworkflow.workflow.execution.writes import Guard
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.manager.registry import Registry
from airflow_provider_rayworkflow.workflow.model.claim import Claim
from airflow_provider_rayworkflow.workflow.model.log_line import Level, LogLine, TaskLines, clean
from airflow_provider_rayworkflow.workflow.storage.byte_store import Put
from airflow_provider_rayworkflow.workflow.storage.log_pieces import PIECE_BYTES

log = get_logger(__name__)

#: The largest log of a workflow in its storage, in bytes, where the environment of the manager says nothing
#: else (:data:`MAX_LOG_VARIABLE`). A later run of the workflow deletes the oldest pieces of earlier runs until
#: half of this is free.
MAX_LOG_BYTES = 16 * 1024 * 1024
MAX_LOG_VARIABLE = "RAY_WORKFLOW_MAX_LOG_BYTES"


def max_log_bytes(environment: Mapping[str, str]) -> int:
    """What an environment says; 0 for no log.

    :raises ValueError: when that is no number of bytes.
    """
    text = environment.get(MAX_LOG_VARIABLE) or str(MAX_LOG_BYTES)
    if not text.isdecimal():
        raise ValueError(f"{MAX_LOG_VARIABLE} is {text!r}. Give a number of bytes; 0 for no log.")
    return int(text)


class LogWriter:
    """The logs of all workflows that one manager runs. It belongs to one event loop.

    :param max_bytes: the largest log of a workflow.
    :param memory_bytes: how much of all workflows together waits until it is written.
    """

    def __init__(
        self,
        known: Registry,
        *,
        max_bytes: int = MAX_LOG_BYTES,
        memory_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self.known = known
        self.max_bytes = max_bytes
        self.memory_bytes = memory_bytes
        #: How many bytes of lines wait in memory.
        self.waiting_bytes = 0

    def add(self, sent: Sequence[TaskLines]) -> None:
        """Workers send what tasks have printed and logged. What is of no run of this manager is dropped."""
        for lines in sent:
            live = self.known.live.get(lines.workflow_id)
            if live is not None and live.log is not None and live.claim.epoch == lines.epoch:
                live.log.take(lines)

    def of_run(self, claim: Claim, guard: Guard) -> RunLog:
        """The log of one run.

        :param guard: says whether the run may still write.
        """
        return RunLog(self, claim, guard)


class RunLog:
    """The log of one run of one workflow, to which only its manager writes."""

    def __init__(self, writer: LogWriter, claim: Claim, guard: Guard) -> None:
        self._writer = writer
        self._known = writer.known
        self._claim = claim
        self._guard = guard
        self._lines: deque[LogLine] = deque()
        self._bytes = 0
        self._left_out = 0
        self._had: dict[str, int] = {}
        self._number = 0
        self._room = writer.max_bytes
        self._has_room = claim.epoch == claim.base_epoch
        self._takes_lines = self._room > 0
        self._is_full = False
        self._is_closing = False
        self._is_due = False
        self._unwritten: Callable[[], Put] | None = None
        self._unwritten_bytes = 0
        self._has_warned = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def take(self, sent: TaskLines) -> None:
        """Take lines of a worker. Those that it has sent before are left out."""
        if not sent.sender:
            self._add(sent.lines)
            return
        had = self._had.get(sent.sender, 0)
        self._had[sent.sender] = max(had, sent.first + len(sent.lines))
        self._add(sent.lines[max(0, had - sent.first) :])

    def remark(self, level: Level, task_id: str, attempt: int, text: str) -> None:
        """Add a line of the manager itself.

        Only a warning, and where the result of a task without an attempt is from, are worth a request of
        their own: how the run ends is in its status, and the other lines are written together with
        those of tasks.
        """
        line = LogLine(self._known.clock(), level, task_id, attempt, clean(text))
        self._add([line], is_due=level == "WARNING" or not attempt)

    async def close(self) -> None:
        """Write what waits, before the run's final status; for :attr:`.Intervals.log_close_s` at most.

        Lines that come later are dropped.
        """
        self._takes_lines, self._is_closing = False, True
        self._stop_timer()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._known.intervals.log_close_s):
                if self._writing is not None:  # if this one fails, the next may work
                    await asyncio.wait([self._writing])
                if self._has_work:
                    await asyncio.wait([self._begin_to_write()])
        self._drop()

    # ---- what waits

    def _add(self, lines: Sequence[LogLine], *, is_due: bool = True) -> None:
        if not (self._takes_lines and lines):
            return
        for line in lines:
            size = line.size
            if self._writer.waiting_bytes + size > self._writer.memory_bytes:
                self._left_out += 1
                continue
            self._lines.append(line)
            self._count(size)
        self._is_due = self._is_due or is_due
        if self._bytes >= PIECE_BYTES and self._unwritten is None:
            self._begin_to_write()
        else:
            self._write_later()

    def _count(self, size: int) -> None:
        self._bytes += size
        self._writer.waiting_bytes += size

    def _drop(self) -> None:
        self._lines.clear()
        self._count(-self._bytes)
        self._unwritten_bytes = 0
        self._is_due = False

    # ---- writing

    @property
    def _has_work(self) -> bool:
        return self._is_due or self._unwritten is not None

    def _write_later(self) -> None:
        is_free = self._timer is None and self._writing is None
        if self._has_work and is_free and not self._is_closing:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._known.intervals.log_s, self._begin_to_write)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_to_write(self) -> asyncio.Task[None]:
        self._stop_timer()
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write())
        return self._writing

    async def _write(self) -> None:
        """Write all that waits, in pieces, as long as that works."""
        try:
            while self._has_work:
                await self._write_piece()
        except OwnershipLostError as exc:
            log.debug("The log of workflow %s ends: %s", self._claim.workflow_id, exc)
            self._takes_lines, self._unwritten = False, None
            self._drop()
        except Exception as exc:  # of the log only: it is tried again
            if not self._has_warned:
                self._has_warned = True
                log.warning(
                    "The log of workflow %s can't be written now: %s", self._claim.workflow_id, exc
                )
        finally:
            self._writing = None
        self._write_later()

    async def _write_piece(self) -> None:
        await self._make_room()
        # The same piece again, where it is not known whether a write of it has worked.
        make = self._unwritten = self._unwritten or self._next_piece()
        await self._known.writes.put(make, guard=self._guard)
        self._unwritten, self._has_warned = None, False
        self._count(-self._unwritten_bytes)
        self._unwritten_bytes = 0
        # What came during the write and was left out gets its note, too; a log that is full has one already.
        self._is_due = bool(self._lines) or (self._left_out > 0 and not self._is_full)

    async def _make_room(self) -> None:
        """Once in a later run: let the logs of earlier runs leave it half of the room."""
        if self._has_room:
            return
        claim, most = self._claim, self._writer.max_bytes
        kept, deleted = await self._known.in_thread(
            self._known.store.logs.make_room, claim.workflow_id, claim.epoch, most // 2
        )
        self._has_room = True
        self._room = max(0, most - kept)
        if deleted:
            self._lines.appendleft(self._note(_DELETED.format(deleted)))
            self._count(self._lines[0].size)

    def _next_piece(self) -> Callable[[], Put]:
        """The first lines that wait; the last piece that there is room for ends with a note."""
        lines: list[LogLine] = []
        size = 0
        while self._lines and size < PIECE_BYTES:
            if size + self._lines[0].size > self._room:
                lines.append(self._note(_FULL.format(self._writer.max_bytes)))
                self._takes_lines, self._is_full = False, True
                self._drop()
                break
            lines.append(self._lines.popleft())
            size += lines[-1].size
        self._room -= size
        self._unwritten_bytes = 0 if self._is_full else size  # they are in memory until then
        if self._left_out and not self._is_full and not self._lines:
            lines.append(self._note(_LEFT_OUT.format(self._left_out)))
            self._left_out = 0
        self._number += 1
        claim = self._claim
        put = self._known.store.logs.put
        return functools.partial(put, claim.workflow_id, claim.epoch, self._number, lines)

    def _note(self, text: str) -> LogLine:
        return LogLine(self._known.clock(), "WARNING", "", 0, f"[{text}]")


_DELETED = "{:,} pieces of the log of earlier runs are deleted: this run needs the room"
_FULL = (
    "the log of this workflow has reached {:,} bytes: what its tasks print from here on is in the "
    "files of Ray's workers only, see Logs on Ray's dashboard"
)
_LEFT_OUT = (
    "{:,} lines are left out here: they came faster than they could be written. They are in the files "
    "of Ray's workers, see Logs on Ray's dashboard"
)
