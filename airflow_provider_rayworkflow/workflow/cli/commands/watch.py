"""``rayworkflow watch``: a workflow as it runs, in a terminal. Reads the storage, nothing else.

Escape sequences that every terminal knows, and no library: the command must start without Airflow
and in a fraction of a second.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from airflow_provider_rayworkflow.workflow.cli.commands.status import status_value
from airflow_provider_rayworkflow.workflow.cli.stored import open_stored, read_record
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands
from airflow_provider_rayworkflow.workflow.format.columns import columns
from airflow_provider_rayworkflow.workflow.format.shortening import right_end
from airflow_provider_rayworkflow.workflow.format.shown_text import one_line
from airflow_provider_rayworkflow.workflow.format.times import duration
from airflow_provider_rayworkflow.workflow.model.progress import progress_line
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader

#: Looks up the honest status; None if there is no such workflow any more.
Look = Callable[[], StatusRecord | None]

_SHOWN_ROWS = 12
_BAR_WIDTH = 30
_CLEAR_TO_END = "\x1b[0J"
_CLEAR_LINE = "\x1b[K"
_COLORS = {"SUCCESSFUL": 32, "RUNNING": 36, "PENDING": 33, "RESUMABLE": 33, "FAILED": 31}


def add_to(commands: Commands) -> None:
    parser = commands.add_of_one("watch", _watch, "Show how a workflow runs, until it has stopped.")
    parser.add_argument(
        "--interval", metavar="SECONDS", type=float, default=2.0, help="between two looks"
    )
    parser.add_argument("--once", action="store_true", help="show it once, and don't wait")


def _watch(options: Any) -> Answer:
    store = open_stored(options)
    read_record(store, options.workflow_id)
    reader = StatusReader(store)

    def look() -> StatusRecord | None:
        found = reader.read(options.workflow_id)
        return None if found is None else found.honest_record

    record = watch(
        look,
        interval_s=options.interval,
        once=options.once,
        out=None if options.json else sys.stdout,
    )
    problem = f"workflow {record.workflow_id} is {record.status}"
    is_well = options.once or record.status is WorkflowStatus.SUCCESSFUL
    return Answer(value=status_value(record), text=None, problems=() if is_well else (problem,))


def watch(look: Look, *, interval_s: float, once: bool, out: TextIO | None) -> StatusRecord:
    """Show the workflow until it has stopped; returns its record then.

    In a terminal one picture is kept up to date; elsewhere, a line is written at each change.

    :param once: look once, and don't wait.
    :param out: None to show nothing.
    :raises LookupError: when it is deleted meanwhile.
    """
    screen = None
    if out is not None:
        screen = _Terminal(out) if out.isatty() else _Lines(out)
    while True:
        record = look()
        if record is None:
            raise LookupError("The workflow has been deleted")
        if screen is not None:
            screen.show(record, time.time())
        if once or not record.status.is_active:
            return record
        time.sleep(interval_s)


def picture(record: StatusRecord, now: float) -> list[str]:
    """The workflow as lines of text, without colours."""
    lines = [f"{record.workflow_id}  {record.status}  {_elapsed(record, now)}"]
    lines.append(f"{_bar(record)}  {progress_line(record)}")
    if record.reuse is not None:
        lines.append(f"went on: {record.reuse}")
    progress = record.progress if record.status.is_active else None
    if progress is not None:
        rows: list[tuple[str, ...]] = [
            (
                right_end(task.task_id),
                f"attempt {task.attempt}",
                duration(now - task.started_at),
                task.node,
            )
            for task in progress.running[:_SHOWN_ROWS]
        ]
        lines += ["", *columns(rows)] if rows else []
        if progress.running_total > len(rows):
            lines.append(f"… and {progress.running_total - len(rows)} more running")
        lines += [
            f"{right_end(failed.task_id)}: attempt {failed.attempt} failed: {failed.text}"
            for failed in progress.retried[:_SHOWN_ROWS]
        ]
    if record.failure is not None:
        failure = record.failure
        lines += ["", f"{failure.task_id or 'no task'}: {failure}"]
        lines += failure.traceback.splitlines()
    return lines


class _Lines:
    """Writes a line for each change: into a file, a pipe, or the log of a job."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = ""

    def show(self, record: StatusRecord, now: float) -> None:
        line = one_line(f"{record.workflow_id} {record.status}: {progress_line(record)}")
        if line != self._last:
            print(line, file=self._out, flush=True)
            self._last = line


class _Terminal:
    """Draws a picture over the last one."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._height = 0

    def show(self, record: StatusRecord, now: float) -> None:
        size = shutil.get_terminal_size()
        lines = [_shown(line, size.columns) for line in picture(record, now)]
        lines = lines[: max(2, size.lines - 1)]  # more would scroll, and could not be drawn over
        color = _COLORS.get(record.status, 0)
        lines[0] = f"\x1b[1;{color}m{lines[0]}\x1b[0m"
        up = f"\x1b[{self._height}A" if self._height else ""
        body = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines)
        self._out.write(f"\r{up}{body}{_CLEAR_TO_END}")
        self._out.flush()
        self._height = len(lines)


def _shown(line: str, width: int) -> str:
    """The line without what a terminal would obey: ids and errors are foreign text."""
    clean = "".join(char if char.isprintable() else "�" for char in line.expandtabs())
    return clean if len(clean) <= width else f"{clean[: width - 1]}…"


def _bar(record: StatusRecord) -> str:
    total = max(record.tasks_total, 1)
    filled = _BAR_WIDTH * min(record.tasks_done, total) // total
    return f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}]"


def _elapsed(record: StatusRecord, now: float) -> str:
    if record.started_at is None:
        return "not started"
    return duration((record.ended_at or now) - record.started_at)
