"""What a workflow's tasks print and log, in the log of the task instance that waits for the workflow.

Each line once, at its own level, in the order in which they came; over a deferral by what is
carried, over tries by what is remembered. A log that can't be read never fails a try.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.shown_text import one_line
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine
from airflow_provider_rayworkflow.workflow.storage.log_pieces import BEGINNING, LogCursor, LogRead
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

log = get_logger(__name__)
#: By this logger the lines stand in the log of the task instance.
output = get_logger("airflow_provider_rayworkflow.workflow_tasks")

Json = dict[str, Any]

#: How often a waiting try looks for new lines, in seconds.
LOOK_S = 2.0
#: How often what was shown is remembered for later tries, in seconds. A try that is killed within
#: that time leaves its last lines to be shown again.
REMEMBER_S = 60.0

_END_OF_EPOCH = 99_999_999
_LINES_A_READ = 10_000


class WorkflowLog:
    """The log of one workflow, as one try shows it. One thread at a time may use it.

    :param remembered: what an earlier try of the task instance left by ``remember``; None for
        nothing.
    :param remember: takes JSON for a later try; it may raise.
    :param clock: seconds that never jump.
    :param most_characters: what the try puts into the log of its task instance.
    :param look_s: how often it looks for new lines: each look is one listing.
    """

    def __init__(
        self,
        workflow_id: str,
        *,
        remembered: Any = None,
        remember: Callable[[Json], None] = lambda value: None,
        clock: Callable[[], float] = time.monotonic,
        most_characters: int = 1_000_000,
        look_s: float = LOOK_S,
    ) -> None:
        self._workflow_id = workflow_id
        self._remember = remember
        self._left = most_characters
        self._look_s = look_s
        self._clock = clock
        self._cursor = BEGINNING
        self._is_remembered = False
        if isinstance(remembered, dict) and remembered.get("workflow_id") == workflow_id:
            self._cursor = LogCursor.parse(remembered.get("cursor"))
            self._is_remembered = True
        self._found: LogRead | None = None
        #: When it was looked at last, by the clock.
        self.looked_at = float("-inf")
        self._told_at = clock()
        self._told = self._cursor
        self._has_warned = False

    # ---- where it begins

    def begin(self, *, epoch_before: int, is_new_run: bool) -> None:
        """Decide from where on lines are shown: from where an earlier try was, if that is known.

        Else from the beginning of the run that the try joins, or begins.

        :param epoch_before: of what is stored before the try does anything; 0 for nothing.
        :param is_new_run: the try begins a run.
        """
        if self._is_remembered and self._cursor.epoch <= epoch_before:
            return
        self._is_remembered = False  # of a workflow of this id that was deleted since
        number = _END_OF_EPOCH if is_new_run else 0
        self._cursor = LogCursor(epoch_before, number) if epoch_before else BEGINNING

    @property
    def carried(self) -> Json:
        """What :meth:`rejoin` has to know, in another process of the same try."""
        return {"cursor": str(self._cursor), "left": self._left}

    def rejoin(self, carried: Any) -> None:
        """Go on where the same try was in another process."""
        match carried:
            case {"cursor": str(cursor), "left": int(left)}:
                self._cursor, self._left = LogCursor.parse(cursor), left

    # ---- showing

    def copy(self, store: WorkflowStore, *, is_last: bool = False) -> None:
        """Show what is new, if a look is due.

        :param is_last: the workflow has stopped: show all there is.
        """
        if not is_last and not self.is_due:
            return
        is_all = False
        while not is_all and self.look(store):
            is_all = self._found is None or self._found.is_all
            self.show()
        if is_last:
            self._tell()

    @property
    def is_due(self) -> bool:
        """True if it is time for the next look, and there is room for what it finds."""
        return self._left > 0 and self._clock() - self.looked_at >= self._look_s

    def look(self, store: WorkflowStore, *, most_lines: int = _LINES_A_READ) -> bool:
        """Read what is new, for :meth:`show`; True if there is something. Blocks, and never raises.

        May be called in another thread than :meth:`show`.
        """
        if self._left <= 0 or self._found is not None:
            return self._found is not None
        self.looked_at = self._clock()
        try:
            found = store.logs.read(self._workflow_id, self._cursor, most_lines=most_lines)
        except Exception as exc:  # the try itself says what is wrong with the storage
            if not self._has_warned:
                log.warning("The log of workflow %s can't be read: %s", self._workflow_id, exc)
            self._has_warned = True
            return False
        self._has_warned = False
        if found.cursor == self._cursor:
            return False
        self._found = found
        return True

    def show(self) -> None:
        """Write what :meth:`look` has found into the log of the task instance."""
        if (found := self._found) is not None:
            for damage in found.damaged:
                log.warning(
                    "A part of the log of workflow %s is left out: %s", self._workflow_id, damage
                )
            for line in found.lines:
                if self._left > 0:
                    self._show(line)
            self._cursor = found.cursor
            self._found = None  # not before the cursor is behind it: see `look`
        if self._clock() - self._told_at >= REMEMBER_S:
            self._tell()

    def _show(self, line: LogLine) -> None:
        self._left -= len(line.text)
        write_line(line)
        if self._left <= 0:
            output.warning(
                "[the rest of what the workflow's tasks print is on the workflow's page, and given by: "
                "rayworkflow logs %s]",
                one_line(self._workflow_id),
            )

    def _tell(self) -> None:
        """Leave word of what was shown for a later try."""
        self._told_at = self._clock()
        if self._cursor == self._told:
            return
        self._told = self._cursor
        try:
            self._remember({"workflow_id": self._workflow_id, "cursor": str(self._cursor)})
        except Exception as exc:  # a later try shows some lines again
            log.debug("What was shown of a log can't be remembered: %s", exc)


def write_line(line: LogLine) -> None:
    """Log a line at its level and with its time; its task's id stands in front."""
    level = logging.getLevelNamesMapping()[line.level]
    if not output.isEnabledFor(level):
        return
    attempt = f", attempt {line.attempt}" if line.attempt > 1 else ""
    task = f"[{one_line(line.task_id)}{attempt}] " if line.task_id else ""
    record = output.makeRecord(
        output.name, level, "(workflow task)", 0, "%s%s", (task, line.text), None
    )
    record.created, record.msecs = line.at, line.at % 1 * 1000
    output.handle(record)
