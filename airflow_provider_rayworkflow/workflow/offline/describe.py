"""What ``get_metadata`` answers, read from storage alone."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayworkflow.workflow.model.graph import TaskOptions
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.scheduling.failed_ends import failed_ends
from airflow_provider_rayworkflow.workflow.scheduling.snapshot import Placed
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore

Json = dict[str, Any]


def describe_workflow(record: StatusRecord) -> Json:
    """``{"status", "user_metadata", "stats": {"start_time", "end_time"}}``; times where known.

    ``"failed_attempts"`` says how many attempts of tasks have failed in the latest run, by cause.
    A failed workflow has ``"failure"`` besides: task, type, message and traceback as text; and where
    several tasks have failed, ``"failed_tasks"``: how many, and the first ones.
    """
    stats = {"start_time": record.started_at, "end_time": record.ended_at}
    description: Json = {
        "status": record.status.value,
        "user_metadata": record.user_metadata,
        "stats": {name: time for name, time in stats.items() if time is not None},
    }
    if record.failed_attempts:
        description["failed_attempts"] = record.failed_attempts
    if record.failure is not None:
        description["failure"] = record.failure.to_json()
    if record.failed_tasks is not None:
        description["failed_tasks"] = record.failed_tasks.to_json()
    return description


def describe_task(store: WorkflowStore, record: StatusRecord, task_id: str) -> Json:
    """A task's id, options, metadata, the ids of the tasks it takes results of, and its times.

    ``"from_cache"`` is there where its result was taken from the cache: the workflow and the task that
    made it, and when.

    :raises ValueError: when the workflow has no such task.
    """
    for placed in read_snapshot(store, record).tasks():
        if placed.task_id == task_id:
            return _describe(placed)
    raise ValueError(f"No such task_id '{task_id}' in workflow '{record.workflow_id}'")


def describe_graph(store: WorkflowStore, record: StatusRecord) -> Json:
    """``{"tasks", "damaged"}``: all tasks known so far, and what is wrong with their checkpoints.

    Tasks come inputs first, each as :func:`describe_task` has it. ``"checkpoint"`` is there
    besides: ``"committed"``, or ``"continued"`` for a task that returned a graph
    (``"continuation"`` has the ids of its tasks), ``"damaged"`` where it is known whose checkpoint
    that was, ``"skipped"``, or None where none counts. ``"ended"`` is ``"failed"`` or ``"not run"`` for
    a task that has no value because of a failure in the latest run, else None. ``"damaged"`` has a sentence for each object, with its key.
    """
    snapshot = read_snapshot(store, record)
    lost = snapshot.checkpoints.lost
    failure = record.failure.task_id if record.failure else ""
    tasks, ended = [], failed_ends(snapshot, [failure])
    for placed in snapshot.tasks():
        description, committed = _describe(placed), placed.record
        description["checkpoint"] = None if committed is None else "committed"
        if committed is None and placed.task_id in lost:
            description["checkpoint"] = "damaged"
        if committed is not None and committed.graph is not None:
            description["checkpoint"] = "continued"
            description["continuation"] = list(committed.task_ids)
        if committed is not None and committed.is_skipped:
            description["checkpoint"] = "skipped"
        description["ended"] = ended.get(placed.task_id)
        tasks.append(description)
    damaged = [str(damage) for damage in snapshot.checkpoints.damaged]
    return {"tasks": tasks, "damaged": damaged}


def _describe(placed: Placed) -> Json:
    options = placed.task.options
    times = placed.record.times if placed.record else None
    cached = placed.record.cached if placed.record else None
    return {
        "task_id": placed.task_id,
        "task_options": {
            "task_type": "FUNCTION",
            "max_retries": options.max_retries,
            "catch_exceptions": options.catch_exceptions,
            "retry_exceptions": options.retry_exceptions,
            **_given(options),
            # A stored continuation is of a task with a checkpoint, which its tasks inherit.
            "checkpoint": True if options.checkpoint is None else options.checkpoint,
            "ray_options": dict(placed.task.shown_options),
        },
        "user_metadata": options.metadata,
        "workflow_refs": list(placed.takes),
        "stats": {"start_time": times.started_at, "end_time": times.ended_at} if times else {},
        **({"from_cache": cached.to_json()} if cached else {}),
    }


def _given(options: TaskOptions) -> Json:
    """Budgets and limits, those that the author gave."""
    given: Json = {
        "max_preemptions": options.max_preemptions,
        "max_oom_retries": options.max_oom_retries,
        "max_crashes": options.max_crashes,
    }
    if (escalation := options.escalation) is not None:
        given["escalate"] = dict(escalation.factors)
        given["limit"] = dict(escalation.limits) or None
    given["limits"] = [str(limit) for limit in options.limits] or None
    return {name: value for name, value in given.items() if value is not None}
