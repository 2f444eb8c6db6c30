"""``rayworkflow list``: workflows and their statuses."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayworkflow.workflow.cli.stored import open_stored
from airflow_provider_rayworkflow.workflow.cli.text import table
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands, add_status
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import shown
from airflow_provider_rayworkflow.workflow.storage.overview import Overview

_LISTED = [status for status in WorkflowStatus if status is not WorkflowStatus.NONE]


def add_to(commands: Commands) -> None:
    parser = commands.add("list", _list, "List workflows and their statuses.")
    add_status(parser, _LISTED, f"only those with one of these: {', '.join(_LISTED)}")


def _list(options: Any) -> Answer:
    store = open_stored(options)
    problems: list[str] = []

    def leave_out(problem: WorkflowError) -> None:
        problems.append(str(problem))

    found = [
        (listed.workflow_id, listed.status, listed.row.epoch)
        for listed in Overview(store, report=leave_out).find(options.status or _LISTED)
    ]
    if not found:
        text = f"No workflows in {shown(store.bytes.uri)}."
        return Answer(value=[], text=text, problems=tuple(problems))
    names = ("workflow_id", "status", "epoch")
    return Answer(
        value=[dict(zip(names, row, strict=True)) for row in found],
        text=table(("WORKFLOW", "STATUS", "EPOCH"), found),
        problems=tuple(problems),
    )
