"""A workflow's tasks as they are read for its page."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.plugin.tasks import ShownTasks, TaskView
from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.memory import MemoryStore
from airflow_provider_rayworkflow.workflow.storage.status_reader import StatusReader


@ray.remote
def one(*inputs: Any) -> int:
    return 1


@ray.remote
def fails(*inputs: Any) -> None:
    raise ValueError("boom")


@ray.remote
def returns_graph() -> Any:
    return workflow.continuation(task("sub", one).bind())


def task(name: str, function: Any, **options: Any) -> Any:
    return function.options(**workflow.options(task_id=name, **options))


def ran(graph: Any, **how: Any) -> MemoryStore:
    """The storage after a run of a graph."""
    with testing.in_process() as workflows:
        ray.wait([workflows.run_async(graph, workflow_id="w", **how)])
        assert isinstance(workflows.store, MemoryStore)
        return workflows.store


def tasks_of(store: MemoryStore) -> ShownTasks:
    reader = WorkflowStore(store)
    found = StatusReader(reader, lambda: 0.0).read("w")
    assert found is not None
    return ShownTasks(reader, found)


def views_of(store: MemoryStore) -> dict[str, TaskView]:
    return {view.task_id: view for view in tasks_of(store).views()}


def test_after_a_failure_each_task_says_how_it_stands():
    graph = task("end", one).bind(task("bad", fails).bind(task("good", one).bind()))
    tasks = tasks_of(ran(graph))
    views = {view.task_id: view for view in tasks.views()}
    assert {name: view.state for name, view in views.items()} == {
        "good": "done",
        "bad": "failed",
        "end": "not_run",
    }
    assert views["bad"].error == "ValueError: boom"
    assert views["bad"].started_at is not None
    assert views["end"].takes == ("bad",)
    details = tasks.details("bad")
    assert details is not None
    assert details.failure is not None
    assert "raise ValueError" in details.failure.traceback
    assert tasks.details("no such task") is None


def test_a_caught_exception_is_shown_as_text():
    graph = task("end", one).bind(task("bad", fails, catch_exceptions=True).bind())
    tasks = tasks_of(ran(graph))
    assert {view.task_id: view.state for view in tasks.views()} == {"bad": "caught", "end": "done"}
    details = tasks.details("bad")
    assert details is not None
    assert details.failure is not None
    assert (details.failure.type, details.failure.message) == ("ValueError", "boom")


def test_tasks_with_a_rule_say_whether_they_ran_or_were_skipped():
    bad, good = task("bad", fails).bind(), task("good", one).bind()
    skipped = task("skipped", one, when="any_failed").bind(good)
    told = task("told", one, when="all_done").bind(bad, skipped)
    views = views_of(ran(told, on_failure="finish"))
    assert {name: view.state for name, view in views.items()} == {
        "bad": "failed",
        "good": "done",
        "skipped": "skipped",
        "told": "done",
    }


def test_tasks_of_a_returned_graph_come_after_their_maker():
    views = views_of(ran(task("end", one).bind(task("maker", returns_graph).bind())))
    assert list(views) == ["maker", "end", "sub"]
    assert (views["maker"].state, views["maker"].gives) == ("done", "sub")
    assert views["sub"].creator == "maker"


def test_a_task_that_an_earlier_run_committed_is_reused():
    store = ran(task("end", fails).bind(task("good", one).bind()))
    with testing.in_process(store) as workflows:
        ray.wait([workflows.resume_async("w")])
    assert {view.task_id: view.state for view in views_of(store).values()} == {
        "good": "reused",
        "end": "failed",
    }


def test_nothing_is_unpickled(monkeypatch: pytest.MonkeyPatch):
    store = ran(task("end", fails).bind(task("maker", returns_graph).bind()))

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    tasks = tasks_of(store)
    assert len(tasks.views()) == 3
    assert tasks.details("end") is not None


@workflow.task(cache=workflow.Cache())
def kept(x: int) -> int:
    return x


def test_a_result_from_the_cache_is_told_with_its_source():
    with testing.in_process() as workflows:
        for name in ("first", "w"):
            workflows.run(kept(1), workflow_id=name)
        store = workflows.store
    tasks = tasks_of(store)
    assert [view.state for view in tasks.views()] == ["cached"]
    details = tasks.details("kept")
    assert details is not None
    assert details.record is not None
    assert details.record.cached is not None
    assert details.record.cached.workflow_id == "first"
