"""``rayworkflow status``: how a workflow stands, or one of its tasks."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_rayworkflow.workflow.cli.stored import open_stored, read_record
from airflow_provider_rayworkflow.workflow.cli.text import fields, task_options
from airflow_provider_rayworkflow.workflow.cli.usage import Answer, Commands, Json
from airflow_provider_rayworkflow.workflow.format.times import utc_time
from airflow_provider_rayworkflow.workflow.model.causes import counts_text
from airflow_provider_rayworkflow.workflow.model.progress import progress_line
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.offline.describe import describe_task, describe_workflow


def add_to(commands: Commands) -> None:
    parser = commands.add_of_one(
        "status", _status, "Show how a workflow stands, or one of its tasks."
    )
    parser.add_argument("--task", metavar="TASK", help="the id of one of its tasks")


def _status(options: Any) -> Answer:
    store = open_stored(options)
    record = read_record(store, options.workflow_id)
    if options.task is not None:
        task = describe_task(store, record, options.task)
        return Answer(value=task, text=_describe_task(task))
    value = status_value(record)
    return Answer(value=value, text=_describe_status(record, value))


def status_value(record: StatusRecord) -> Json:
    value = {
        "workflow_id": record.workflow_id,
        **describe_workflow(record),
        "epoch": record.epoch,
        "created_at": record.created_at,
    }
    if record.ended_at is not None or record.progress is not None:  # they are counted by then
        value["tasks"] = {
            "total": record.tasks_total,
            "done": record.tasks_done,
            "reused": record.tasks_reused,
        }
    if record.reuse is not None:
        value["reuse"] = record.reuse.to_json()
    if record.status.is_active and record.progress is not None:
        value["progress"] = record.progress.to_json()
    return value


def _describe_status(record: StatusRecord, value: Json) -> str:
    rows = [
        ("workflow", record.workflow_id),
        ("status", record.status),
        ("created", utc_time(record.created_at)),
        ("started", utc_time(record.started_at)),
        ("ended", utc_time(record.ended_at)),
        ("epoch", record.epoch),
    ]
    if "tasks" in value:
        tasks = "{total}, of which {done} are done ({reused} reused from earlier runs)"
        rows.append(("tasks", tasks.format(**value["tasks"])))
    if record.reuse is not None:
        rows.append(("went on", record.reuse))
    if record.failed_attempts:
        rows.append(("failed attempts", counts_text(record.failed_attempts)))
    if "progress" in value:
        rows.append(("progress", progress_line(record)))
    if record.user_metadata:
        rows.append(("metadata", json.dumps(record.user_metadata)))
    failure = record.failure
    if failure is None:
        return fields(rows)
    rows.append(("failed task", failure.task_id or "none"))
    rows.append(("cause", failure.cause))
    rows.append(("error", failure))
    text = fields(rows)
    if record.failed_tasks is not None:
        rows.append(("failures", record.failed_tasks.total))
        text = "\n".join([fields(rows), "", *record.failed_tasks.table()])
    return f"{text}\n\n{failure.traceback}".rstrip()


def _describe_task(task: Json) -> str:
    stats = task["stats"]
    rows = [
        ("task", task["task_id"]),
        ("takes", ", ".join(task["workflow_refs"]) or "nothing"),
        ("options", task_options(task) or "none"),
        ("metadata", json.dumps(task["user_metadata"])),
        ("started", utc_time(stats.get("start_time"))),
        ("ended", utc_time(stats.get("end_time"))),
    ]
    return fields(rows)
