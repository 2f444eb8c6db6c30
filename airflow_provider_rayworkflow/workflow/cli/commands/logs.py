"""``rayworkflow logs``: what a workflow's tasks have printed and logged. Reads the storage only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow_provider_rayworkflow.workflow.cli.stored import (
    UnavailableError,
    open_stored,
    read_record,
)
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands
from airflow_provider_rayworkflow.workflow.format.shown_text import escaped, one_line
from airflow_provider_rayworkflow.workflow.model.log_line import LogLine
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.honest_statuses import HonestStatuses
from airflow_provider_rayworkflow.workflow.storage.log_pieces import BEGINNING, LogCursor


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_of_one(
        "logs", _logs, "Print what the tasks of a workflow have printed and logged."
    )
    parser.add_argument("--task", metavar="TASK", help="only what this task has")
    parser.add_argument(
        "--follow", action="store_true", help="go on until the workflow has stopped"
    )
    parser.add_argument(
        "--interval", metavar="SECONDS", type=float, default=2.0, help="between two looks"
    )


def _logs(options: Any) -> Answer:
    if options.json and options.follow:
        raise UnavailableError("--follow prints lines as they come. Leave --follow or --json out.")
    store = open_stored(options)
    read_record(store, options.workflow_id)
    reader = LogReader(store, options.workflow_id, task_id=options.task)
    if options.json:
        lines: list[LogLine] = []
        reader.read(lines.append)
        return Answer(
            value=[line.to_json() for line in lines], text=None, problems=tuple(reader.damaged)
        )
    if options.follow:
        reader.follow(_print, interval_s=options.interval)
    else:
        reader.read(_print)
    return Answer(value=None, text=None, problems=tuple(reader.damaged))


class LogReader:
    """Reads a log from its beginning on, each line once.

    :param task_id: only lines of this task; None for all.
    :ivar damaged: why pieces of it are left out.
    """

    def __init__(self, store: WorkflowStore, workflow_id: str, *, task_id: str | None) -> None:
        self.damaged: list[str] = []
        self._store = store
        self._workflow_id = workflow_id
        self._task_id = task_id
        self._cursor: LogCursor = BEGINNING

    def read(self, write: Callable[[LogLine], None]) -> None:
        """Read all that is there and has not been read.

        :raises DataLoadError: when the log can't be read.
        """
        is_all = False
        while not is_all:
            found = self._store.logs.read(self._workflow_id, self._cursor, task_id=self._task_id)
            self._cursor, is_all = found.cursor, found.is_all
            self.damaged += found.damaged
            for line in found.lines:
                write(line)

    def follow(self, write: Callable[[LogLine], None], *, interval_s: float) -> None:
        """Read on until the workflow has stopped, or is deleted."""
        while True:
            # In this order: before a workflow has stopped, all of its log is written.
            found = HonestStatuses(self._store, now=time.time()).read(self._workflow_id)
            self.read(write)
            if found is None or not found.status.is_active:
                return
            time.sleep(interval_s)


def shown_line(line: LogLine) -> str:
    """A line of a log for people, with time, level and task in front."""
    at = datetime.fromtimestamp(line.at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    attempt = f" (attempt {line.attempt})" if line.attempt > 1 else ""
    task = f"{one_line(line.task_id)}{attempt}: " if line.task_id else ""
    return escaped(f"{at} {line.level.ljust(8)} {task}{line.text}")


def _print(line: LogLine) -> None:
    print(shown_line(line), file=sys.stdout, flush=True)
