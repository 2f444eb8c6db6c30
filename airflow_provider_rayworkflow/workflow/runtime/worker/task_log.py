"""What one attempt of a task prints and logs, as lines that wait to be sent to the manager."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Literal

from airflow_provider_rayworkflow.workflow.model.log_line import (
    MAX_LINE_BYTES,
    Level,
    LogLine,
    TaskLines,
    clean,
    fold,
)
from airflow_provider_rayworkflow.workflow.runtime.private_ray import LOG_PREFIX_TASK_NAME
from airflow_provider_rayworkflow.workflow.scheduling.attempts import TaskRun

#: Where a task prints.
StreamName = Literal["stdout", "stderr"]

#: How much waits at most, in bytes; the manager is sent it once a second. What comes faster is left
#: out, with a note.
MAX_WAITING_BYTES = 1024 * 1024


class TaskLog:
    """The lines of one attempt. Any thread may write.

    :param clock: seconds since the epoch.
    :ivar beats: rises with what it prints and logs, and with each heartbeat.
    :ivar is_busy: it beats all the time: something is being saved or loaded, or its result stored.
    """

    def __init__(self, run: TaskRun, clock: Callable[[], float] = time.time) -> None:
        self.run = run
        self.beats = 0
        self.is_busy = False
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: list[LogLine] = []
        self._bytes = 0
        self._left_out = 0
        self._partial: dict[StreamName, str] = {}
        self._sender = ""
        self._unconfirmed: list[LogLine] = []
        self._confirmed = 0
        self._is_sending = False

    # ---- writing

    def print(self, stream: StreamName, text: str) -> None:
        """The task has printed this: any part of a line, or several lines."""
        self.beats += 1
        with self._lock:
            *lines, partial = (self._partial.pop(stream, "") + text).split("\n")
            for line in lines:
                self._print_line(line)
            if len(partial) > MAX_LINE_BYTES:
                partial = self._shortened(partial)
            if partial:
                self._partial[stream] = partial

    def log(self, level: Level, text: str) -> None:
        """The task has logged this."""
        self.beats += 1
        with self._lock:
            self._add(level, text)

    def _print_line(self, line: str) -> None:
        line = fold(line)
        if line.strip() and not line.startswith(LOG_PREFIX_TASK_NAME):
            self._add("INFO", line)

    def _shortened(self, partial: str) -> str:
        """What is kept of a line that does not end: of a progress bar, the latest state."""
        if "\r" in partial:
            before, _, latest = partial.rpartition("\r")
            return f"{fold(before)[-MAX_LINE_BYTES:]}\r{latest[-MAX_LINE_BYTES:]}"
        while len(partial) > MAX_LINE_BYTES // 4:  # no character has more than four bytes
            self._print_line(partial[: MAX_LINE_BYTES // 4])
            partial = partial[MAX_LINE_BYTES // 4 :]
        return partial

    def _add(self, level: Level, text: str) -> None:
        if self._bytes >= MAX_WAITING_BYTES:
            self._left_out += 1
            return
        if not (text := clean(text)):
            return
        line = LogLine(self._clock(), level, self.run.task_id, self.run.attempt, text)
        self._lines.append(line)
        self._bytes += line.size

    # ---- sending

    def begin_to_send(self) -> TaskLines | None:
        """What the manager has not confirmed yet; None for nothing, and while that is asked.

        Call :meth:`sent` then.
        """
        with self._lock:
            if self._is_sending or not (self._lines or self._unconfirmed):
                return None
            self._is_sending = True
            self._sender = self._sender or uuid.uuid4().hex
            if not self._unconfirmed:  # else these come first: not more and more of them
                self._take_over()
            return self._all_unconfirmed()

    def sent(self, *, is_confirmed: bool) -> None:
        """What :meth:`begin_to_send` gave has come to the manager, or has not."""
        with self._lock:
            self._is_sending = False
            if is_confirmed:
                self._confirmed += len(self._unconfirmed)
                self._unconfirmed = []

    def rest(self) -> TaskLines | None:
        """All that is not confirmed, to be sent with the attempt's end; None for nothing.

        Nothing can be written or sent after that.
        """
        with self._lock:
            for partial in self._partial.values():
                self._print_line(partial)
            self._partial.clear()
            self._take_over()
            self._bytes = MAX_WAITING_BYTES
            self._is_sending = True
            return self._all_unconfirmed() if self._unconfirmed else None

    def _take_over(self) -> None:
        if self._left_out:
            note = f"[{self._left_out:,} lines are left out here: they came too fast]"
            run = self.run
            self._lines.append(LogLine(self._clock(), "WARNING", run.task_id, run.attempt, note))
            self._left_out = 0
        self._unconfirmed += self._lines
        self._lines, self._bytes = [], 0

    def _all_unconfirmed(self) -> TaskLines:
        return TaskLines(
            workflow_id=self.run.workflow_id,
            epoch=self.run.epoch,
            lines=tuple(self._unconfirmed),
            sender=self._sender,
            first=self._confirmed,
        )
