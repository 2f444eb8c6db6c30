"""``rayworkflow logs``: what a workflow's tasks have printed and logged. Reads the storage only."""

from __future__ import annotations

import sys
import time
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
from airflow_provider_rayworkflow.workflow.storage.log_pieces import BEGINNING
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader


def add_to(commands: Commands) -> None:
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
    store, workflow_id = open_stored(options), options.workflow_id
    read_record(store, workflow_id)
    lines: list[LogLine] = []
    write = lines.append if options.json else _print
    damaged: list[str] = []
    cursor, goes_on = BEGINNING, True
    while goes_on:
        # In this order: before a workflow has stopped, all of its log is written.
        goes_on = options.follow and _is_active(store, workflow_id)
        is_all = False
        while not is_all:
            found = store.logs.read(workflow_id, cursor, task_id=options.task)
            cursor, is_all = found.cursor, found.is_all
            damaged += found.damaged
            for line in found.lines:
                write(line)
        if goes_on:
            time.sleep(options.interval)
    value = [line.to_json() for line in lines] if options.json else None
    return Answer(value=value, text=None, problems=tuple(damaged))


def _is_active(store: WorkflowStore, workflow_id: str) -> bool:
    """False also for a workflow that is deleted."""
    found = StatusReader(store).read(workflow_id)
    return found is not None and found.status.is_active


def shown_line(line: LogLine) -> str:
    """A line of a log for people, with time, level and task in front."""
    at = datetime.fromtimestamp(line.at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    attempt = f" (attempt {line.attempt})" if line.attempt > 1 else ""
    task = f"{one_line(line.task_id)}{attempt}: " if line.task_id else ""
    return escaped(f"{at} {line.level.ljust(8)} {task}{line.text}")


def _print(line: LogLine) -> None:
    print(shown_line(line), file=sys.stdout, flush=True)
