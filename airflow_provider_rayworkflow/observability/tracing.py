"""A span for each workflow task, in the trace of the Airflow task, where Airflow traces.

They are made from the times that the workflow's journal has, when the workflow has ended: so they
cost the workflow nothing, the cluster needs no OpenTelemetry, and a lost manager loses no span.
"""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from airflow_provider_rayworkflow.hooks import StoredWorkflow
from airflow_provider_rayworkflow.workflow.exceptions import StorageError
from airflow_provider_rayworkflow.workflow.format.log_lines import get_logger
from airflow_provider_rayworkflow.workflow.format.shown_text import shown_text
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore

log = get_logger(__name__)

#: How many tasks of a run become spans: the first to begin. Viewers don't bear more.
MAX_SPANS = 2_000

_NS = 1_000_000_000


def trace_tasks(store: WorkflowStore, found: StoredWorkflow, *, max_spans: int = MAX_SPANS) -> None:
    """Make the spans of the workflow's latest run, below the current span.

    Nothing is read if that span is not recorded. A storage that can't be read is no failure of
    the task: the log says so.
    """
    if not trace.get_current_span().is_recording():
        return
    record = found.record
    try:
        checkpoints = store.read_checkpoints(record.workflow_id, since_epoch=record.epoch)
    except StorageError as exc:
        log.warning("Workflow %s: its tasks are not traced: %s", record.workflow_id, exc)
        return
    failed = record.failure.task_id if record.failure else None
    ended = [*checkpoints.records.values(), *checkpoints.failures.values()]
    _make_spans(record.workflow_id, ended, failed, max_spans)


def _make_spans(
    workflow_id: str, records: Iterable[TaskRecord], failed: str | None, max_spans: int
) -> None:
    tracer = trace.get_tracer("airflow_provider_rayworkflow")
    timed = [(record.times, record) for record in records if record.times is not None]
    timed.sort(key=lambda each: each[0].started_at)
    if len(timed) > max_spans:
        log.info("Workflow %s: %d of its %d tasks are traced", workflow_id, max_spans, len(timed))
    for times, record in timed[:max_spans]:
        span = tracer.start_span(
            record.task_id,
            start_time=int(times.started_at * _NS),
            attributes={
                "ray_workflow.workflow_id": workflow_id,
                "ray_workflow.task_id": record.task_id,
                "ray_workflow.attempt": times.attempt,
                "ray_workflow.node": times.node,
            },
        )
        if record.failure is not None:
            failure = record.failure
            span.set_attribute("exception.type", failure.type)
            message = shown_text(failure.message)
            span.set_attribute("exception.message", message)
            if record.task_id == failed:
                span.set_status(Status(StatusCode.ERROR, f"{failure.type}: {message}"))
        span.end(end_time=int(times.ended_at * _NS))
