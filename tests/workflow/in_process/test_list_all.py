"""``list_all`` and ``iter_all``: which workflows they give, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import effects
import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY
from airflow_provider_rayworkflow.workflow.runtime.service import connect
from airflow_provider_rayworkflow.workflow.storage.keys import INDEX
from airflow_provider_rayworkflow.workflow.storage.listing import ListFilter
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows


@ray.remote
def give(value: int) -> int:
    return value


@ray.remote
def fail() -> None:
    raise ValueError


@ray.remote
def wait_at_gate() -> None:
    effects.gate.wait()


@pytest.fixture
def filled(workflows: InProcessWorkflows) -> InProcessWorkflows:
    """``b one``, ``c two`` and ``a three`` in this order, of which the second has failed."""
    origin = {ORIGIN_KEY: {"dag_id": "flights"}}
    workflows.run(give.bind(1), workflow_id="b one", metadata=origin)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflows.run(fail.bind(), workflow_id="c two")
    workflows.run(give.bind(3), workflow_id="a three", metadata=origin)
    return workflows


def ids(found: Any) -> list[str]:
    return [workflow_id for workflow_id, _ in found]


def created(workflow_id: str) -> float:
    [start] = [workflow.get_metadata(workflow_id)["stats"]["start_time"]]
    return float(start)


def pages(chosen: ListFilter, size: int) -> Iterator[list[str]]:
    after = ""
    while True:
        rows, after = connect.ask("queries.list_page", chosen, size=size, after=after)
        yield ids(rows)
        if not after:
            return


def test_a_list_of_statuses_is_in_the_order_of_ids(filled: InProcessWorkflows) -> None:
    assert filled.list_all() == [
        ("a three", "SUCCESSFUL"),
        ("b one", "SUCCESSFUL"),
        ("c two", "FAILED"),
    ]
    assert filled.list_all({"SUCCESSFUL"}) == filled.list_all()[:2]


def test_with_a_limit_the_newest_come_first(filled: InProcessWorkflows) -> None:
    assert filled.list_all(limit=2) == [("a three", "SUCCESSFUL"), ("c two", "FAILED")]
    assert filled.list_all("SUCCESSFUL", limit=1) == [("a three", "SUCCESSFUL")]
    assert ids(filled.list_all(limit=10)) == ["a three", "c two", "b one"]


def test_filters_are_of_the_dag_the_time_and_the_id(filled: InProcessWorkflows) -> None:
    since = datetime.fromtimestamp(created("c two") - 1e-4, UTC)
    assert ids(filled.list_all(dag_id="flights")) == ["a three", "b one"]
    assert ids(filled.list_all(dag_id="flights", since=since)) == ["a three"]
    assert ids(filled.list_all("FAILED", dag_id="flights")) == []
    assert ids(filled.list_all(until=since.timestamp())) == ["b one"]
    assert ids(filled.list_all(id="T")) == ["a three", "c two"]


def test_ids_that_begin_with_the_text_come_first(filled: InProcessWorkflows) -> None:
    filled.run(give.bind(1), workflow_id="three b")
    filled.run(give.bind(1), workflow_id="last")
    assert ids(filled.list_all(id="three")) == ["three b", "a three"]


def test_iter_all_gives_the_same_one_by_one(filled: InProcessWorkflows) -> None:
    found = filled.iter_all()
    assert next(found) == ("a three", workflow.SUCCESSFUL)
    assert ids(found) == ["c two", "b one"]
    assert list(filled.iter_all("FAILED", id="two")) == [("c two", workflow.FAILED)]
    assert list(filled.iter_all(set())) == []


def test_the_manager_gives_page_after_page(filled: InProcessWorkflows) -> None:
    assert list(pages(ListFilter(), 1)) == [["a three"], ["c two"], ["b one"]]
    assert list(pages(ListFilter(), 2)) == [["a three", "c two"], ["b one"]]


def test_the_manager_lists_what_it_holds_as_it_stands(filled: InProcessWorkflows) -> None:
    filled.init(max_running_workflows=1)
    filled.run_async(wait_at_gate.bind(), workflow_id="runs")
    filled.run_async(wait_at_gate.bind(), workflow_id="waits")
    assert filled.list_all(limit=2) == [("waits", "PENDING"), ("runs", "RUNNING")]
    assert filled.list_all({"RUNNING"}, limit=2) == [("runs", "RUNNING")]
    effects.gate.set()
    filled.get_output("waits")
    assert filled.list_all("SUCCESSFUL", limit=2) == [
        ("waits", "SUCCESSFUL"),
        ("runs", "SUCCESSFUL"),
    ]


def test_a_workflow_whose_manager_has_crashed_is_resumable_in_a_list(fresh: None) -> None:
    store = testing.MemoryStore()
    with testing.in_process(store) as workflows:
        workflows.run_async(wait_at_gate.bind(), workflow_id="interrupted")
        workflows.crash()
    with testing.in_process(store) as workflows:
        assert workflows.list_all("RESUMABLE", limit=5) == [("interrupted", "RESUMABLE")]
        assert workflows.list_all("RUNNING", limit=5) == []
    effects.gate.set()


def test_without_an_index_lists_are_the_same(filled: InProcessWorkflows) -> None:
    filled.run_async(wait_at_gate.bind(), workflow_id="runs")
    filled.store.delete([entry.key for entry in filled.store.list(INDEX)])
    assert ids(filled.list_all()) == ["a three", "b one", "c two", "runs"]
    assert ids(filled.iter_all()) == ["runs", "a three", "c two", "b one"]
    assert list(pages(ListFilter(), 2)) == [["runs", "a three", "c two", "b one"]]
    assert ids(filled.list_all(dag_id="flights", limit=1)) == ["a three"]
    effects.gate.set()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"limit": 0}, ValueError),
        ({"limit": -1}, ValueError),
        ({"limit": True}, TypeError),
        ({"limit": 1.0}, TypeError),
        ({"since": "2026-07-01"}, TypeError),
        ({"until": float("nan")}, TypeError),
        ({"dag_id": 5}, TypeError),
        ({"id": b"a"}, TypeError),
        ({"status_filter": "NONE", "limit": 1}, ValueError),
    ],
)
def test_what_is_no_filter_is_refused_by_its_name(
    workflows: InProcessWorkflows, wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(wrong)) if "status_filter" not in wrong else "NONE"):
        workflows.list_all(**wrong)


def test_a_filter_is_refused_before_the_first_workflow_is_asked_for(
    workflows: InProcessWorkflows,
) -> None:
    with pytest.raises(ValueError, match="is not a status"):
        workflows.iter_all("NOPE")
