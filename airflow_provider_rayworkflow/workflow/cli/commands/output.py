"""``rayworkflow output``: the output of a workflow, or of one of its tasks."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_rayworkflow.workflow.cli.stored import (
    UnavailableError,
    open_stored,
    read_record,
)
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands
from airflow_provider_rayworkflow.workflow.model.records import Encoding, Form, StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore, shown
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot


def add_to(commands: Commands) -> None:
    parser = commands.add_of_one(
        "output", _output, "Print the output of a workflow, if it is JSON."
    )
    parser.add_argument("--task", metavar="TASK", help="the output of this task instead")


def _output(options: Any) -> Answer:
    store = open_stored(options)
    record = read_record(store, options.workflow_id)
    if options.task is not None:
        value = _value_of_task(store, record, options.task)
    else:
        value = _value_of_workflow(store, record)
    text = value if isinstance(value, str) else json.dumps(value, indent=2)
    return Answer(value=value, text=text)


def _value_of_workflow(store: WorkflowStore, record: StatusRecord) -> Any:
    workflow_id = record.workflow_id
    if record.failure is not None:
        raise UnavailableError(
            f"Workflow {workflow_id!r} is {record.status}: task {record.failure.task_id!r} failed "
            f"with {record.failure.type}. `rayworkflow status` shows the traceback."
        )
    if record.status is not WorkflowStatus.SUCCESSFUL:
        raise UnavailableError(
            f"Workflow {workflow_id!r} is {record.status} and has no output. "
            "`rayworkflow graph` shows which tasks are committed; --task gives the output of one."
        )
    if record.output is not None and not record.output.problem:
        return record.output.value
    # Perhaps it was only too large for the status document.
    return _value_of_task(store, record, None)


def _value_of_task(store: WorkflowStore, record: StatusRecord, task_id: str | None) -> Any:
    """A task's value; None: the workflow's."""
    workflow_id = record.workflow_id
    snapshot = read_snapshot(store, record)
    result = snapshot.output if task_id is None else snapshot.result_of(task_id)
    if result is None:
        snapshot.raise_damage()
        raise UnavailableError(
            f"Task {task_id or snapshot.output_id!r} of workflow {workflow_id!r} has no "
            "checkpoint that counts. `rayworkflow graph` lists the tasks."
        )
    if result.encoding is not Encoding.JSON or result.form is Form.CAUGHT_ERROR:
        what = "a caught exception and " if result.form is Form.CAUGHT_ERROR else ""
        how = "the result of a map" if result.encoding is Encoding.MAP else f"{what}pickled"
        call = f"{workflow_id!r}, task_id={task_id!r}" if task_id else repr(workflow_id)
        raise UnavailableError(
            f"The output is {how}, and this command unpickles nothing. In Python: "
            f"workflow.init(storage={shown(store.bytes.uri)!r}); workflow.get_output({call})"
        )
    return store.values.read_json(result)
