"""``rayworkflow fork``: a new workflow with the checkpoints of another one."""

from __future__ import annotations

import time
from typing import Any

from airflow_provider_rayworkflow.workflow.cli.stored import open_stored, read_record
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands, workflow_id
from airflow_provider_rayworkflow.workflow.offline.fork import fork


def add_to(commands: Commands) -> None:
    parser = commands.add_of_one(
        "fork", _fork, "Make a new workflow of a workflow's checkpoints; needs no cluster."
    )
    parser.add_argument("new_id", metavar="NEW-ID", type=workflow_id, help="of the new workflow")
    parser.add_argument(
        "--from-task",
        metavar="TASK",
        default="",
        help="leave out the checkpoints of this task and of all that depend on it",
    )


def _fork(options: Any) -> Answer:
    store = open_stored(options)
    fork(
        store,
        options.workflow_id,
        options.new_id,
        from_task=options.from_task,
        now=time.time(),
    )
    record = read_record(store, options.new_id)
    value = {"workflow_id": record.workflow_id, "status": record.status}
    return Answer(value=value, text=f"{record.workflow_id} is {record.status}")
