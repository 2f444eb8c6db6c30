"""The outline of a workflow: its snapshot without what takes memory, and of bounded size."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from sample_records import status_record, store_run

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import UntrustedDataError
from airflow_provider_rayworkflow.workflow.format.signing import SigningKeys
from airflow_provider_rayworkflow.workflow.model.graph import Graph, Task
from airflow_provider_rayworkflow.workflow.model.records import StatusRecord
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.model.task_record import TaskRecord
from airflow_provider_rayworkflow.workflow.offline.plan import make_plan, planned_task
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.journal import JournalWriter
from airflow_provider_rayworkflow.workflow.storage.outline import (
    MOST_GRAPH_BYTES,
    MOST_SEGMENT_BYTES,
    MOST_TASKS,
    TooLargeError,
    read_outline,
)
from airflow_provider_rayworkflow.workflow.storage.snapshot import read_snapshot
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader


@ray.remote
def one(*inputs: Any) -> int:
    return 1


@ray.remote
def fails(*inputs: Any) -> None:
    raise ValueError("x" * 10_000)


@ray.remote
def returns_graph(padding: bytes) -> Any:
    numbers = [one.bind(padding) for _ in range(3)]
    return workflow.continuation(one.bind(*numbers))


class Sizes(MemoryStore):
    """Notes how much is read at once, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        data = super().get(key, start, length)
        self.most = max(self.most, len(data))
        return data


@pytest.fixture
def ran() -> WorkflowStore:
    """A workflow with a continuation that takes large arguments, which has failed."""
    with testing.in_process() as workflows:
        graph = fails.bind(one.bind(), returns_graph.bind(b"x" * 50_000))
        ray.wait([workflows.run_async(graph, workflow_id="w")])
        assert isinstance(workflows.store, MemoryStore)
        return WorkflowStore(workflows.store)


def record_of(store: WorkflowStore) -> StatusRecord:
    record = store.read_status("w")
    assert record is not None
    return record


def graph_of(size: int, *, blob: bytes = b"x", name: str = "t") -> Graph:
    return Graph(tasks=[Task(name=name, function=0)] * size, blobs=[blob])


def outline_of(graph: Graph, store: WorkflowStore | None = None) -> Any:
    store = store or WorkflowStore(MemoryStore())
    return read_outline(store, store_run(store, status_record(WorkflowStatus.RUNNING), graph))


# ---- the same as the snapshot


def test_an_outline_has_the_tasks_and_decisions_of_the_snapshot(ran: WorkflowStore):
    record = record_of(ran)
    whole, outline = read_snapshot(ran, record), read_outline(ran, record)
    expected = [(placed.task_id, placed.takes, placed.creator) for placed in whole.tasks()]
    assert len(expected) == 7
    found = [(placed.task_id, placed.takes, placed.creator) for placed in outline.tasks()]
    assert found == expected
    for task_id, decision in whole.decisions.items():
        same = outline.decisions[task_id]
        assert (same.action, same.reason, same.identity, same.fingerprints) == (
            *(decision.action, decision.reason, decision.identity, decision.fingerprints),
        )


def test_it_has_no_values_arguments_and_tracebacks(ran: WorkflowStore):
    outline = read_outline(ran, record_of(ran))
    records = [*outline.checkpoints.records.values(), *outline.checkpoints.failures.values()]
    assert len(records) == 7
    assert all(record.result is None or record.result.inline is None for record in records)
    assert sum(len(record.graph or b"") for record in records) < 10_000
    [failed] = outline.checkpoints.failures.values()
    assert failed.failure is not None
    assert (failed.failure.traceback, len(failed.failure.message) < 1000) == ("", True)
    assert sum(map(len, outline.graph.blobs)) < 200


def test_the_record_of_one_task_is_kept_whole(ran: WorkflowStore):
    whole = read_snapshot(ran, record_of(ran))
    for kept in ("records", "failures"):
        for task_id, record in getattr(whole.checkpoints, kept).items():
            outline = read_outline(ran, record_of(ran), value_of=task_id)
            assert getattr(outline.checkpoints, kept)[task_id] == record


def test_what_a_resume_does_with_a_task_is_the_same_in_the_plan(ran: WorkflowStore):
    plan = make_plan(ran, "w", StatusReader(ran).read("w"), None)
    outline = read_outline(ran, record_of(ran))
    assert [planned_task(outline, task.task_id) for task in plan.tasks] == list(plan.tasks)
    assert planned_task(outline, "no such task") is None


# ---- bounds


def test_of_large_arguments_little_is_read():
    store = Sizes()
    outline = outline_of(graph_of(3, blob=b"x" * 20_000_000), WorkflowStore(store))
    assert len(list(outline.tasks())) == 3
    assert store.most == MOST_GRAPH_BYTES


def test_too_many_tasks_are_refused():
    assert len(outline_of(graph_of(MOST_TASKS)).graph.tasks) == MOST_TASKS
    with pytest.raises(TooLargeError, match="more than 10,000 tasks"):
        outline_of(graph_of(MOST_TASKS + 1))


def test_too_large_a_graph_is_refused():
    with pytest.raises(TooLargeError, match="graph has more than 2 MiB"):
        outline_of(graph_of(1, name="x" * MOST_GRAPH_BYTES))


def test_too_many_tasks_of_continuations_are_refused():
    store = WorkflowStore(MemoryStore())
    record = store_run(store, status_record(WorkflowStatus.RUNNING), graph_of(1))
    task_ids = tuple(f"t{number}" for number in range(MOST_TASKS))
    made = TaskRecord(task_id="t", graph=graph_of(1).to_bytes(), task_ids=task_ids)
    JournalWriter(store.bytes, "w", 1).commit([made])
    with pytest.raises(TooLargeError, match="more than 10,000 tasks"):
        read_outline(store, record)


def test_too_large_a_segment_is_refused_and_not_read():
    store = Sizes()
    known = WorkflowStore(store)
    record = store_run(known, status_record(WorkflowStatus.RUNNING), graph_of(1))
    large = TaskRecord(task_id="t", graph=b"x" * MOST_SEGMENT_BYTES, task_ids=("u",))
    JournalWriter(store, "w", 1).commit([large])
    with pytest.raises(TooLargeError, match="segment of its journal has more than 16 MiB"):
        read_outline(known, record)
    assert store.most < MOST_SEGMENT_BYTES


@pytest.mark.parametrize("size", [10, 5_000_000], ids=["small", "large"])
def test_a_signature_covers_what_is_behind_the_beginning(size: int):
    store = MemoryStore()
    signed = WorkflowStore(store, signing=SigningKeys((b"secret",)))
    graph = graph_of(1, blob=b"x" * size)
    record = store_run(signed, status_record(WorkflowStatus.RUNNING), graph)
    assert len(read_outline(signed, record).graph.tasks) == 1
    [key] = [entry.key for entry in store.list("v1/workflows/w") if entry.key.endswith(".epoch")]
    data = bytearray(store.get(key))
    data[-2] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(UntrustedDataError):
        read_outline(signed, record)
