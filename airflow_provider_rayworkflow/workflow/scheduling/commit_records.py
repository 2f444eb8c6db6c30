"""The records that a run commits. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_rayworkflow.workflow.model.cache_options import CacheSource
from airflow_provider_rayworkflow.workflow.model.records import (
    Form,
    JsonOutput,
    Result,
    TaskFailure,
)
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Continued, Raised, Returned
from airflow_provider_rayworkflow.workflow.scheduling.node import TaskNode


def returned_record(node: TaskNode, returned: Returned, result: Result) -> TaskRecord:
    """A task returned a value.

    :param result: the value, as the task's dependents get it.
    """
    return TaskRecord(
        task_id=node.task_id,
        times=returned.times,
        result=result,
        json_output=returned.json_output,
        fingerprints=node.made_of(),
    )


def cached_record(
    node: TaskNode, result: Result, source: CacheSource, json_output: JsonOutput | None
) -> TaskRecord:
    """A task's result is from the cache.

    :param result: as the task's dependents get it.
    """
    return TaskRecord(
        task_id=node.task_id,
        result=result,
        json_output=json_output,
        fingerprints=node.made_of(),
        cached=source,
    )


def continued_record(node: TaskNode, continued: Continued, task_ids: Sequence[str]) -> TaskRecord:
    """A task returned a graph.

    :param task_ids: of the graph's tasks, in its order.
    """
    return TaskRecord(
        task_id=node.task_id,
        times=continued.times,
        graph=continued.graph,
        task_ids=tuple(task_ids),
        catches=node.catches,
        fingerprints=node.made_of(),
    )


def caught_record(
    node: TaskNode, catcher: TaskNode, result: Result, failure: TaskFailure, raised: Raised | None
) -> TaskRecord:
    """An exception is the result of the task that catches it: the one that raised it, or a creator."""
    return TaskRecord(
        task_id=catcher.task_id,
        times=raised.times if raised and catcher is node else None,
        result=result,
        failure=failure,
        fingerprints=catcher.made_of(),
    )


def failed_record(
    node: TaskNode, failure: TaskFailure, exception: bytes, raised: Raised | None
) -> TaskRecord:
    """A task has failed for good.

    :param exception: encoded, also of a failure of the system.
    :param raised: None for one of those.
    """
    return TaskRecord(
        task_id=node.task_id,
        times=raised.times if raised else None,
        result=Result(form=Form.CAUGHT_ERROR, inline=exception),
        is_failure=True,
        failure=failure,
    )


def skipped_record(node: TaskNode, result: Result, json_output: JsonOutput | None) -> TaskRecord:
    """A task did not run, as its rule says: its result is None."""
    return TaskRecord(
        task_id=node.task_id,
        result=result,
        json_output=json_output,
        fingerprints=node.made_of(),
        is_skipped=True,
    )


def revoked_record(node: TaskNode) -> TaskRecord | None:
    """The stored value of a task's result is gone or damaged; None if it is no stored value."""
    if node.result is None or node.result.blob is None:
        return None
    return TaskRecord(task_id=node.task_id, result=Result(blob=node.result.blob), is_revoked=True)


def as_found(record: TaskRecord, node: TaskNode, output: TaskNode) -> TaskRecord:
    """The record of a task's result, under the task id where a reader finds it.

    The workflow's output has its own id where stored continuations do not lead to the task that
    gave it.

    :param output: the last task of the workflow's own graph.
    """
    if not node.is_output or node.is_found or record.result is None:
        return record
    return record._replace(
        task_id=output.task_id,
        result=node.as_output(record.result),
        fingerprints=output.made_of(),
    )
