"""What ``get_metadata`` answers, read from storage alone."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayworkflow.workflow.graph import Graph, Task, allocate_ids
from airflow_provider_rayworkflow.workflow.ids import TaskIds
from airflow_provider_rayworkflow.workflow.model import StatusRecord
from airflow_provider_rayworkflow.workflow.storage.workflows import (
    Checkpoints,
    TaskRecord,
    WorkflowStore,
)

Json = dict[str, Any]


def describe_workflow(record: StatusRecord) -> Json:
    """``{"status", "user_metadata", "stats": {"start_time", "end_time"}}``; times where known.

    A failed workflow has ``"failure"`` besides: task, type, message and traceback as text.
    """
    stats = {"start_time": record.started_at, "end_time": record.ended_at}
    description: Json = {
        "status": record.status.value,
        "user_metadata": record.user_metadata,
        "stats": {name: time for name, time in stats.items() if time is not None},
    }
    if record.failure is not None:
        description["failure"] = record.failure.to_json()
    return description


def describe_task(store: WorkflowStore, record: StatusRecord, task_id: str) -> Json:
    """A task's id, options, metadata, the ids of the tasks it takes results of, and its times.

    :raises ValueError: when the workflow has no such task.
    """
    graph, checkpoints = _read(store, record)
    for found, task, upstream in _all_tasks(graph, checkpoints):
        if found == task_id:
            return _describe(task_id, task, upstream, checkpoints.records.get(task_id))
    raise ValueError(f"No such task_id '{task_id}' in workflow '{record.workflow_id}'")


def describe_graph(store: WorkflowStore, record: StatusRecord) -> Json:
    """``{"tasks", "damaged"}``: all tasks known so far, and what is wrong with their checkpoints.

    Tasks come inputs first, each as :func:`describe_task` has it. ``"checkpoint"`` is there
    besides: ``"committed"``, or ``"continued"`` for a task that returned a graph
    (``"continuation"`` has the ids of its tasks), ``"damaged"`` where it is known whose checkpoint
    that was, or None. ``"damaged"`` has a sentence for each object, with its key.
    """
    graph, checkpoints = _read(store, record)
    tasks = []
    for task_id, task, upstream in _all_tasks(graph, checkpoints):
        committed = checkpoints.records.get(task_id)
        description = _describe(task_id, task, upstream, committed)
        description["checkpoint"] = None if committed is None else "committed"
        if committed is None and task_id in checkpoints.lost:
            description["checkpoint"] = "damaged"
        if committed is not None and committed.graph is not None:
            description["checkpoint"] = "continued"
            description["continuation"] = list(committed.task_ids)
        tasks.append(description)
    return {"tasks": tasks, "damaged": [str(damage) for damage in checkpoints.damaged]}


def _read(store: WorkflowStore, record: StatusRecord) -> tuple[Graph, Checkpoints]:
    workflow_id = record.workflow_id
    claim, graph = store.read_run(workflow_id, record.epoch)
    return graph, store.read_checkpoints(workflow_id, since_epoch=claim.base_epoch)


def _all_tasks(graph: Graph, checkpoints: Checkpoints) -> Any:
    yield from _tasks(graph, allocate_ids(graph, TaskIds()))
    for record in checkpoints.records.values():
        if record.graph is not None:
            yield from _tasks(Graph.from_bytes(record.graph), record.task_ids)


def _tasks(graph: Graph, task_ids: Any) -> Any:
    for task_id, task in zip(task_ids, graph.tasks, strict=True):
        yield task_id, task, [task_ids[index] for index in task.upstream]


def _describe(task_id: str, task: Task, upstream: list[str], record: TaskRecord | None) -> Json:
    options = task.options
    times = record.times if record else None
    return {
        "task_id": task_id,
        "task_options": {
            "task_type": "FUNCTION",
            "max_retries": options.max_retries,
            "catch_exceptions": options.catch_exceptions,
            "retry_exceptions": options.retry_exceptions,
            # A stored continuation is of a task with a checkpoint, which its tasks inherit.
            "checkpoint": True if options.checkpoint is None else options.checkpoint,
            "ray_options": dict(task.shown_options),
        },
        "user_metadata": options.metadata,
        "workflow_refs": upstream,
        "stats": {"start_time": times.started_at, "end_time": times.ended_at} if times else {},
    }
