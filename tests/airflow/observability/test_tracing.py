"""Workflow tasks are spans in the trace of the Airflow task, and so are those that they open."""

import sys

import pytest
import ray
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.observability.tracing import trace_tasks
from airflow_provider_rayworkflow.workflow.exceptions import DataLoadError
from airflow_provider_rayworkflow.workflow.execution.trace_context import (
    current_traceparent,
    joining,
)
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader
from airflow_provider_rayworkflow.workflow.storage.workflow_store import WorkflowStore
from airflow_provider_rayworkflow.workflow.testing import in_process


@ray.remote
def load():
    return 1


@ray.remote
def fail(value, allowed):
    if not allowed:
        raise KeyError("no more")
    return value


def graph(allowed=True):
    def named(function, name):
        return function.options(**workflow.options(task_id=name))

    return named(fail, "train").bind(named(load, "load").bind(), allowed)


@pytest.fixture
def exporter():
    """Takes the spans of this process, as Airflow's exporter does where it traces."""
    exporter = InMemorySpanExporter()
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture
def store():
    return MemoryStore()


def found(store):
    return StatusReader(WorkflowStore(store), lambda: 0.0).read("w")


def trace_in_a_span(store, **options):
    with trace.get_tracer("test").start_as_current_span("worker.train") as span:
        trace_tasks(WorkflowStore(store), found(store), **options)
    return span.get_span_context()


def test_each_task_is_a_span_below_the_airflow_tasks(exporter, store):
    with in_process(store):
        assert workflow.run(graph(), workflow_id="w") == 1
    parent = trace_in_a_span(store)
    load, train, _ = exporter.get_finished_spans()
    assert [load.name, train.name] == ["load", "train"]
    assert {load.parent.span_id, train.parent.span_id} == {parent.span_id}
    assert {load.context.trace_id, train.context.trace_id} == {parent.trace_id}
    assert load.end_time <= train.start_time
    assert load.start_time <= load.end_time
    assert train.attributes["ray_workflow.workflow_id"] == "w"
    assert train.attributes["ray_workflow.task_id"] == "train"
    assert train.attributes["ray_workflow.attempt"] == 1
    assert load.status.status_code is StatusCode.UNSET


def test_the_task_that_failed_is_a_span_with_its_error(exporter, store):
    with in_process(store), pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(graph(allowed=False), workflow_id="w")
    trace_in_a_span(store)
    _, train, _ = exporter.get_finished_spans()
    assert train.status.status_code is StatusCode.ERROR
    assert train.status.description == "KeyError: 'no more'"
    assert train.attributes["exception.type"] == "KeyError"


def test_a_retry_has_spans_of_what_it_ran_only(exporter, store):
    with in_process(store):
        with pytest.raises(workflow.WorkflowExecutionError):
            workflow.run(graph(allowed=False), workflow_id="w")
        workflow.run(graph(), workflow_id="w")
    trace_in_a_span(store)
    assert [span.name for span in exporter.get_finished_spans()] == ["train", "worker.train"]


def test_nothing_is_read_where_airflow_does_not_trace(exporter, store):
    with in_process(store):
        workflow.run(graph(), workflow_id="w")
    record = found(store)
    trace_tasks(WorkflowStore(Unreadable()), record)
    assert exporter.get_finished_spans() == ()


def test_a_storage_that_can_not_be_read_fails_nothing(exporter, store, caplog):
    with in_process(store):
        workflow.run(graph(), workflow_id="w")
    record = found(store)
    with trace.get_tracer("test").start_as_current_span("worker.train"):
        trace_tasks(WorkflowStore(Unreadable()), record)
    assert "Workflow w: its tasks are not traced" in caplog.text
    assert [span.name for span in exporter.get_finished_spans()] == ["worker.train"]


def test_a_huge_workflow_has_no_more_spans_than_a_viewer_can_show(exporter, store):
    with in_process(store):
        workflow.run(graph(), workflow_id="w")
    trace_in_a_span(store, max_spans=1)
    assert [span.name for span in exporter.get_finished_spans()] == ["load", "worker.train"]


# ---- spans that the functions open


@ray.remote
def query(allowed):
    with trace.get_tracer("theirs").start_as_current_span("query"):
        if not allowed:
            raise KeyError("no more")


def query_span(exporter):
    return next(span for span in exporter.get_finished_spans() if span.name == "query")


def test_spans_of_the_functions_join_the_trace_of_the_workflows_caller(exporter, store):
    with in_process(store), trace.get_tracer("test").start_as_current_span("caller") as caller:
        workflow.run(query.bind(True), workflow_id="w")
    span = query_span(exporter)
    assert span.context.trace_id == caller.get_span_context().trace_id
    assert span.parent.span_id == caller.get_span_context().span_id


def test_a_resume_outside_of_any_trace_joins_that_of_the_run_before(exporter, store):
    with in_process(store):
        with trace.get_tracer("test").start_as_current_span("caller") as caller:
            workflow.run_async(query.bind(False), workflow_id="w")
            with pytest.raises(workflow.WorkflowExecutionError):
                workflow.get_output("w")
        exporter.clear()
        with pytest.raises(workflow.WorkflowExecutionError):
            workflow.resume("w")
    assert query_span(exporter).parent.span_id == caller.get_span_context().span_id


def test_a_resume_in_another_trace_joins_that(exporter, store):
    with in_process(store):
        with (
            trace.get_tracer("test").start_as_current_span("caller"),
            pytest.raises(workflow.WorkflowExecutionError),
        ):
            workflow.run(query.bind(False), workflow_id="w")
        exporter.clear()
        with (
            trace.get_tracer("test").start_as_current_span("later") as later,
            pytest.raises(workflow.WorkflowExecutionError),
        ):
            workflow.resume("w")
    assert query_span(exporter).parent.span_id == later.get_span_context().span_id


def test_outside_of_any_trace_the_functions_begin_their_own(exporter, store):
    with in_process(store):
        workflow.run(query.bind(True), workflow_id="w")
    assert query_span(exporter).parent is None


def test_a_trace_that_is_not_recorded_hides_no_span_of_the_functions():
    """Airflow passes such a one through its tasks where it does not trace."""
    unsampled = NonRecordingSpan(SpanContext(trace_id=1, span_id=2, is_remote=True))
    with trace.use_span(unsampled):
        assert current_traceparent() == ""


def test_a_worker_without_opentelemetry_runs_its_tasks(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    ran = []
    with joining(f"00-{'1' * 32}-{'2' * 16}-01"):
        ran.append("a task")
    assert ran == ["a task"]


class Unreadable(MemoryStore):
    def list(self, folder):
        raise DataLoadError(f"{folder} can't be listed")

    def get(self, key, start=0, length=None):
        raise DataLoadError(f"{key} can't be read")
