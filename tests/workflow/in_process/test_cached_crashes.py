"""A crash, or a failed write, at each of the storage's writes, with caching on: no result is wrong, and none is lost."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, wait

import effects
import pytest
from effects import calls
from faulty import FaultyStore, Killed

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.exceptions import WorkflowError
from airflow_provider_rayworkflow.workflow.offline.cache import evict_few_by_few
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.byte_store import ByteStore
from airflow_provider_rayworkflow.workflow.storage.cached_keys import CACHE

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.timeout(180)]

OUTPUT = [50_000, 2, 5]


@workflow.task(cache=workflow.Cache())
def large(letter: str) -> bytes:
    effects.note("large")
    return letter.encode() * 50_000


@workflow.task(cache=workflow.Cache())
def length(data: bytes) -> int:
    effects.note("length")
    return len(data)


@workflow.task(cache=workflow.Cache())
def plus(x: int, y: int) -> int:
    effects.note("plus")
    return x + y


@workflow.task
def collect(*values: int) -> list[int]:
    return list(values)


def graph():
    return collect(length(large("a")), plus(1, 1), plus(plus(1, 1), 3))


def live(store: ByteStore, *, at: int, how: str) -> int:
    """Let a manager run the workflow to its end, or to its death; returns the number of writes."""
    faulty = FaultyStore(store, at=at, how=how)
    try:
        with testing.in_process(faulty) as workflows:
            try:
                output = workflows.run_async(graph(), workflow_id="crashing")
                wait([output.future(), faulty.died], return_when=FIRST_COMPLETED)
            finally:
                if faulty.died.done():
                    workflows.crash()
    except (WorkflowError, Killed):
        pass
    effects.join_tasks()
    return faulty.writes


@pytest.mark.parametrize("how", ["after", "before", "error"])
def test_whatever_a_crash_leaves_in_the_cache_no_result_is_wrong(how: str) -> None:
    for at in range(live(MemoryStore(), at=-1, how=how)):
        store = MemoryStore()
        live(store, at=at, how=how)
        with testing.in_process(store) as workflows:
            assert workflows.run(graph(), workflow_id="another") == OUTPUT
            assert workflows.run(graph(), workflow_id="crashing") == OUTPUT
            assert len(workflows.get_output("another", task_id="large")) == 50_000
        calls.clear()
        with testing.in_process(store) as workflows:
            assert workflows.run(graph(), workflow_id="last") == OUTPUT
        assert calls == []
        for _ in evict_few_by_few(WorkflowStore(store), max_bytes=10**9, now=0.0):
            raise AssertionError("a result was evicted")
        assert not [one.key for one in store.list(CACHE) if one.key.endswith(".claim")]
